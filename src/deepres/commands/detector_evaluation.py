"""`deepres eval` of detectors."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepres.commands.console import counting, print_json, sayer
from deepres.commands.detection import DetectorOptions
from deepres.runtime.errors import InputError
from deepres.runtime.printing import Console

FOR_CLASSIFIERS = {
    "protocol": "--protocol",
    "scales": "--scales",
    "flip": "--flip",
    "batch_size": "--batch-size",
    "split": "--split",
    "image_size": "--image-size",
    "member_weights": "--member-weights",
    "save_scores": "--save-scores",
}


def are_detectors(weights: Sequence[Path], network: str | None) -> bool:
    """Whether the weights say that they are of detectors. Raises `InputError` where only some do."""
    from deepres.workflows.open_network import holds_detector

    found = [holds_detector(place, network) for place in weights]
    if any(found) and not all(found):
        raise InputError(f"{weights[found.index(False)]} is a classifier, and others are detectors; test one kind")
    return all(found)


def evaluate_detector(
    weights: Sequence[Path], test: Any, how: DetectorOptions, test_set: str | None, other: Any, json: bool
) -> None:
    """Test detectors, and print and write what is asked for. `other` are the options by name."""
    from deepres.classification.scorer import Execution
    from deepres.detection.figures import Figures
    from deepres.report import detector, sheets
    from deepres.runtime.ranks import joined
    from deepres.workflows import evaluate_detector as work

    # Refuse wrong options before anything is loaded.
    _refuse_other_options(weights[0], other)
    wrong: Path | None = other["wrong"]
    if wrong is not None:
        sheets.refuse_used(wrong)
    setting = work.Setting(
        data=test.data,
        network=test.network,
        test_set=test_set,
        part=test.part,
        skip_bad=test.skip_bad,
        by_place=test.by_place,
        protocol=how.chosen(),
        execution=Execution(device=other["device"], precision=other["precision"]),
    )
    # All ranks share the pictures; the first one alone counts them, and tells the figures.
    with joined(setting.execution.device) as ranks:
        err = Console(stderr=True, quiet=not ranks.first)
        say = sayer(err)
        with counting("pictures tested", say, err) as tick:
            tested = work.evaluate(weights, setting, say, tick, ranks)
    if not ranks.first:
        return
    figures = Figures(tested.table)
    try:
        if how.given == {}:
            detector.write_sheet(tested)
        if wrong is not None:
            drawn = sheets.write_mistakes(wrong, tested.table, figures.outcomes, tested.picture)
            most = f", of a kind the first {sheets.MOST_DRAWN}" if drawn < figures.mistakes else ""
            say(f"mistakes: {figures.mistakes:,} in {wrong}/mistakes.csv; {drawn:,} pictures of them beside it{most}")
    finally:  # an error is shown after the figures
        if json:
            print_json(figures.record(), allow_nan=False)
        else:
            detector.print_figures(Console(), figures)


def _refuse_other_options(weights: Path, given: Mapping[str, Any]) -> None:
    if needless := [option for name, option in FOR_CLASSIFIERS.items() if given.get(name) is not None]:
        raise InputError(f"{needless[0]} is for classifiers, and {weights} is a detector; leave it out")
