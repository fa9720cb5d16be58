"""The configuration of a whole run, of any task, as a frozen value."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from deepres.training.recipe import ABOVE_ZERO, Bounds, Recipe, require, require_bounds

RECIPE = Recipe()


@dataclass(frozen=True)
class Config:
    """All that re-creates a run of any task. What may be `auto` (`device` to `compile`) is recorded as resolved.

    Raises `InputError` for a value that makes no sense.
    """

    bounds: ClassVar[Bounds] = {"seed": (0, 2**63 - 1), "workers": (0, 1_024), "memory_budget": ABOVE_ZERO}

    network: str
    data: str
    skip_bad: bool = False  # images that do not decode are left out, and counted
    seed: int = 0  # of weights, order, augmentation and dropout
    device: str = "auto"
    precision: str = "auto"
    kernels: str = "auto"  # the residual block's own kernels: auto, on, off
    compile: str = "auto"  # blocks compiled by PyTorch: auto, on, off
    memory_budget: float | None = None  # GiB: activations kept, gradients and velocity; None: no limit
    workers: int | None = None  # processes that decode pictures on disk; None: one a processor, eight at most
    start: str | None = None  # the trained weights that the run begins with; None: start values
    data_path: str | None = None  # where `data` was found, from whichever folder
    start_path: str | None = None  # where `start` was
    division: Literal["hash", "place"] = "hash"  # what divides data without a test part; `place`: as runs of before
    freeze: tuple[str, ...] | None = None  # stages whose parameters and BN statistics stay; `bn`: all BN
    recipe: Recipe = RECIPE

    def __post_init__(self) -> None:
        """Check what no other place checks."""
        for name, value in vars(self).items():
            require_bounds(name, value, self.bounds)
        average = self.recipe.bn_average
        require(not (self.freeze and average), "bn_average", average, "0 where stages are frozen: theirs stay")

    def as_json(self) -> dict[str, Any]:
        """The record that `settings.from_json` reads back."""
        return json.loads(json.dumps(dataclasses.asdict(self)))
