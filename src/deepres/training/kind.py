"""A kind of task, such as classification: what the work around the loop must know of it before training begins."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor

from deepres.data.manifest import Manifest
from deepres.models.network import Network
from deepres.records import Json
from deepres.runtime.errors import InputError, Say
from deepres.runtime.ranks import Ranks
from deepres.training.config import Config
from deepres.training.recipe import Recipe
from deepres.training.task import Batch, Task
from deepres.weights.start import Start


class Part(Protocol):
    """The training or the test pictures of a source. Those without files have an empty manifest."""

    @property
    def manifest(self) -> Manifest:
        """The names and digests of the pictures."""
        ...

    def __len__(self) -> int: ...


class Source(Protocol):
    """The data of a run. Each kind of task has its own, and says what else a part has."""

    @property
    def train(self) -> Part:
        """What the run is trained on."""
        ...

    @property
    def test(self) -> Part:
        """What the run is tested on."""
        ...


class RunTask(Task[Batch], Protocol[Batch]):
    """The task of one run, with the facts about its data that the run records."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, without a background."""
        ...

    @property
    def channels(self) -> int:
        """Channels of the images."""
        ...

    @property
    def fingerprint(self) -> str:
        """A SHA-256 in hexadecimal of all that the run learns from and is tested on."""
        ...

    @property
    def mean(self) -> Tensor | None:
        """The mean image (C, H, W) or (C, 1, 1) in 0..1, which goes with the weights."""
        ...

    @property
    def facts(self) -> Json:
        """Further facts for the header of the weights."""
        ...

    def close(self) -> None:
        """End the processes that prepare batches."""
        ...


C = TypeVar("C", bound=Config)
S = TypeVar("S", bound=Source)


OF_A_CLASSIFIER = ("image_size", "split", "in_channels")  # options of `deepres train` for classifiers alone


def refuse(changes: Mapping[str, Any], options: Sequence[str], what: str) -> None:
    """Raise `InputError` where `changes` have one of these options, which are `what`; that tells how to mend it."""
    if given := [name for name in options if changes.get(name) is not None]:
        option = given[0].replace("_", "-")
        raise InputError(f"--{option} is {what}")


def _unchanged(settings: Mapping[str, Any], changes: Mapping[str, Any], recipe: str | None) -> Mapping[str, Any]:
    return changes


@dataclass(frozen=True)
class Kind(Generic[C, S]):
    """What one kind of task adds to the house: its configurations `C`, its data `S`, its task and its networks.

    Its figures are a row of `runtime.figures.REPORTED`. All functions raise `InputError` for what makes no sense.
    """

    config: type[C]
    recipes: Mapping[str, Recipe]  # by name
    # Takes the fields of a configuration so far, and the name of a recipe if one is asked for, to the recipe.
    recipe_of: Callable[[Mapping[str, Any], str | None], Recipe]
    load_source: Callable[[C, Say, Ranks], S]
    # Refuses, before anything is written, a configuration that does not fit the data or the start weights.
    check: Callable[[C, S, Ranks, Start | None], None]
    # Takes the mean image of the start weights, too. The configuration is resolved: nothing is `auto` but `compile`.
    make_task: Callable[[C, S, Ranks, Say, Tensor | None], RunTask[Any]]
    # The network at the first step, with random values from torch's random state where no start weights give them.
    begin: Callable[[C, RunTask[Any], Start | None, Say], Network]
    images: Callable[[C], str]  # what a batch is of, in words: "whole images"
    # The fields that a run from trained weights begins with, beside `network` and `start`; takes the changes, too.
    finetuned: Callable[[Start, Mapping[str, Any]], Mapping[str, Any]]
    # Takes the recorded fields, the changes of the command line, with options of this kind, and the name of a recipe
    # (None where none is asked for) to changes of fields.
    settle: Callable[[Mapping[str, Any], Mapping[str, Any], str | None], Mapping[str, Any]] = _unchanged
    require: Callable[[C], None] = lambda config: None  # refuses fields that exclude each other for the network
    class_folders: bool = False  # whether a folder of pictures is a class, so that no run may lie among them

    @property
    def name(self) -> str:
        """The name of the task, which its records have."""
        return self.config.task


AnyKind = Kind[Any, Any]
