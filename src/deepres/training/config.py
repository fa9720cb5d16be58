"""The configuration of a whole training run, for any task, as a frozen value."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from deepres.runtime.figures import CLASSIFICATION, REPORTED, Reported
from deepres.training.recipe import ABOVE_ZERO, Bounds, Recipe, require, require_bounds

RECIPE = Recipe()


@dataclass(frozen=True)
class Config:
    """All settings that a run of any task can be repeated from. Raises `InputError` for a value that makes no sense.

    The fields from `device` to `compile` may be `auto`; a run folder records the values that were chosen for them.
    """

    task: ClassVar[str] = CLASSIFICATION  # what the network learns to do; another task gives its own name
    bounds: ClassVar[Bounds] = {"seed": (0, 2**63 - 1), "workers": (0, 1_024), "memory_budget": ABOVE_ZERO}

    network: str
    data: str
    skip_bad: bool = False  # leave out images that do not decode, and count them
    seed: int = 0  # of the start weights, the order of images, augmentation and dropout
    device: str = "auto"
    precision: str = "auto"
    kernels: str = "auto"  # the project's own kernels, on a processor or a GPU: auto, on or off
    compile: str = "auto"  # blocks compiled by PyTorch: auto, on or off
    capture: bool = True  # on a GPU, the whole training step is captured as a CUDA graph
    deterministic: bool = True  # on a GPU, algorithms that give the same bits in every run; without, the fastest ones
    memory_budget: float | None = None  # GiB for kept activations, gradients and velocity; None: no limit
    workers: int | None = None  # processes that decode pictures on disk; None: one per processor, at most sixteen
    start: str | None = None  # trained weights that the run starts from; None: random start weights
    data_path: str | None = None  # the absolute path of `data`
    start_path: str | None = None  # the absolute path of `start`
    division: Literal["hash", "place"] = "hash"  # how data without a test part is divided; `place`: the older rule
    freeze: tuple[str, ...] | None = None  # stages whose parameters and BN statistics stay fixed; `bn`: all BN
    recipe: Recipe = RECIPE

    def __post_init__(self) -> None:
        """Check the bounds of numbers, and fields that exclude each other."""
        for name, value in vars(self).items():
            require_bounds(name, value, self.bounds)
        average = self.recipe.bn_average
        require(not (self.freeze and average), "bn_average", average, "0 where stages are frozen: theirs stay")

    @property
    def title(self) -> str:
        """How the default name of a run's folder begins."""
        return self.network

    @property
    def reported(self) -> Reported:
        """The figures that a run records."""
        return REPORTED[self.task]

    def as_json(self) -> dict[str, Any]:
        """The record that `settings.from_json` reads back, with the name of the task where it is no classification."""
        task = {} if self.task == CLASSIFICATION else {"task": self.task}  # records of before have none
        return task | json.loads(json.dumps(dataclasses.asdict(self)))
