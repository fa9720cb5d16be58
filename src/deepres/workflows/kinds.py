"""The kinds of tasks by name. Each is loaded when it is asked for, so that none waits for what another one needs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pkgutil import resolve_name

from deepres.models.catalog import entry
from deepres.runtime.errors import InputError
from deepres.runtime.figures import CLASSIFICATION, DETECTION, LOCALIZATION, SEGMENTATION
from deepres.training.config import Config
from deepres.training.kind import AnyKind


@dataclass(frozen=True)
class Row:
    """Where a kind lies, as "module:attribute", and the `word` that asks for it in place of a network's name."""

    place: str
    word: str = ""


# To add a task, add a row; its figures are one of `runtime.figures.REPORTED`.
KINDS: dict[str, Row] = {
    CLASSIFICATION: Row("deepres.classification.kind:CLASSIFICATION"),
    DETECTION: Row("deepres.detection.kind:DETECTION", "detector"),
    SEGMENTATION: Row("deepres.detection.cascade.kind:SEGMENTATION", "segmenter"),
    LOCALIZATION: Row("deepres.localization.kind:LOCALIZATION", "localizer"),
}


def kind(name: str) -> AnyKind:
    """The kind of task `name`. Raises `InputError` for an unknown one."""
    if name not in KINDS:
        raise InputError(f"unknown task {name!r}; known: {', '.join(KINDS)}")
    return resolve_name(KINDS[name].place)


def kind_of(config: Config) -> AnyKind:
    """The kind of task of a configuration."""
    return kind(config.task)


def task_of(network: str) -> str:
    """The task of a network, or of the word that asks for one. Raises `InputError` for an unknown name."""
    asked = (name for name, row in KINDS.items() if row.word == network)
    return next(asked, None) or entry(network).task


def agreed(told: Mapping[str, str]) -> str:
    """The one task among those that are `told`, by who tells of it; classification where nobody does.

    Raises `InputError` where they differ.
    """
    tasks = {task: who for who, task in told.items()}
    if len(tasks) > 1:
        (one, first), (other, second) = list(tasks.items())[:2]
        raise InputError(f"{first} is of the task {one}, and {second} of {other}; leave one of them out")
    return next(iter(tasks), CLASSIFICATION)
