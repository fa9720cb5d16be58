"""`deepres eval` of localizers, with the classifiers that tell them the classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepres.commands.console import counting, print_json, sayer
from deepres.runtime.errors import InputError
from deepres.runtime.printing import Console

if TYPE_CHECKING:
    from deepres.classification.views import Protocol

FOR_OTHERS = {
    "split": "--split",
    "image_size": "--image-size",
    "member_weights": "--member-weights",
    "save_scores": "--save-scores",
    "wrong": "--wrong",
    "network": "--network",
    "sides": "--sides",
    "refine": "--refine",
    "threshold": "--threshold",
    "most": "--most",
}


def are_localizers(weights: Sequence[Path]) -> bool:
    """Whether one of the weights says that it is of a localizer; classifiers may stand beside it."""
    from deepres.workflows.open_network import holds_localizer

    return any(map(holds_localizer, weights))


def evaluate_localizer(
    weights: Sequence[Path],
    test: Any,
    views: "Protocol | None",
    test_set: str | None,
    other: Mapping[str, Any],
    json: bool,
) -> None:
    """Test localizers, and print what is asked for. `other` are the options by name."""
    from deepres.classification.scorer import Execution
    from deepres.localization.protocol import PLAIN, Protocol
    from deepres.report.console import print_tables
    from deepres.runtime.ranks import joined
    from deepres.workflows import evaluate_localizer as work

    # Refuse wrong options before anything is loaded.
    if needless := [option for name, option in FOR_OTHERS.items() if other.get(name) not in (None, False)]:
        raise InputError(f"{needless[0]} is not for localizers, and one is among the weights; leave it out")
    setting = work.Setting(
        data=test.data,
        test_set=test_set,
        part=test.part,
        skip_bad=test.skip_bad,
        by_place=test.by_place,
        protocol=PLAIN if views is None else Protocol(views),
        execution=Execution(other["batch_size"], other["device"], other["precision"]),
    )
    # All ranks share the pictures; the first one alone counts them, and tells the figures.
    with joined(setting.execution.device) as ranks:
        err = Console(stderr=True, quiet=not ranks.first)
        say = sayer(err)
        with counting("pictures tested", say, err) as tick:
            table = work.evaluate(weights, setting, say, tick, ranks)
    if not ranks.first:
        return
    if json:
        print_json(table.record(), allow_nan=False)
    else:
        print_tables(Console(), [table.table()])
