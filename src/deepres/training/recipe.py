"""The training recipe as a frozen value, and the configuration of a whole run."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from deepres.runtime.errors import InputError

EVALUATE_AT_MOST_EVERY = 100  # in a short run, tests would else take most of the time
AVERAGE_AT_LEAST, WINDOW_AT_LEAST = 10, 10  # batches, which a short run's statistics and training errors are means of
SIDES = (256, 480)  # Sec. 3.4
Warmup = Literal["none", "error", "linear"]
Decay = Literal["steps", "linear", "plateau"]
Optimizer = Literal["sgd", "muon"]


SHOWN = 100  # characters
LONG, LARGE = 10**9, 1e30  # no count of steps or images is above, and no rate
BOUNDS: dict[str, tuple[float, float]] = {  # the least and the most of every number, whatever the others are
    "iterations": (1, LONG),
    "batch_size": (1, 2**20),
    "patience": (1, LONG),
    "window": (1, 10**6),
    "evaluate_every": (1, LONG),
    "accumulate": (1, 2**20),
    "milestones": (1, LONG),
    "epochs": (1, LONG),
    "warmup_iterations": (0, LONG),
    "bn_group": (0, 2**20),
    "bn_average": (0, LONG),
    "pad": (0, 512),
    "crop": (0, 4_096),
    "sides": (1, 16_384),
    "warmup_error": (0, 100),
    "threshold": (0, 100),
    "weight_decay": (0, LARGE),
    "colour": (0, LARGE),
    "image_size": (1, 4_096),
    "in_channels": (1, 1_024),
    "test_images": (0, LONG),
    "seed": (0, 2**63 - 1),
    "workers": (0, 1_024),
}
RATES = ("lr", "warmup_lr", "gamma", "kernel_lr", "memory_budget")  # above 0
MOST_MARKS = 1_000


def _require(holds: bool, field: str, value: object, what: str) -> None:
    if not holds:
        raise InputError(f"{field} is {shown(value)}, but must be {what}")


def shown(value: object) -> str:
    """A value as a person is shown it: its first characters."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def require_bounds(field: str, value: Any) -> None:
    """Raise `InputError` where a field of a recipe or a configuration is a number outside of what makes sense."""
    parts = value if isinstance(value, tuple) else () if value is None else (value,)
    _require(len(parts) <= MOST_MARKS, field, f"{len(parts)} numbers", f"{MOST_MARKS:,} numbers at most")
    if field in RATES:
        _require(all(0 < part <= LARGE for part in parts), field, value, f"more than 0, and {LARGE:g} at most")
    elif field in BOUNDS:
        least, most = BOUNDS[field]
        end = f"{most:,}" if isinstance(most, int) else f"{most:g}"
        _require(all(least <= part <= most for part in parts), field, value, f"from {least} to {end}")


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. The defaults are the paper's CIFAR-10 recipe (Sec. 4.2).

    Marks (`iterations`, `milestones`, `warmup_iterations`, `window`, `evaluate_every`) count iterations, and go along
    with their number, as do `epochs`, `bn_average` and `patience`; rates are those of v = momentum * v + lr * g. Raises
    `InputError` for a value that makes no sense.
    """

    name: str = "cifar"
    iterations: int = 64_000
    batch_size: int = 128
    lr: float = 0.1
    decay: Decay = "steps"  # `steps`: times `gamma` at each milestone; `linear`: in a straight line to 0 at the end;
    # `plateau`: times `gamma` where the test error has not fallen by `threshold` points in `patience` tests
    patience: int = 6
    threshold: float = 0.1
    milestones: tuple[int, ...] = (32_000, 48_000)
    epochs: tuple[int, ...] = ()  # milestones in passes over the training images: they become iterations at the start
    gamma: float = 0.1
    optimizer: Optimizer = "sgd"  # `muon` moves kernels of convolutions at `kernel_lr`, a part of their length a step
    kernel_lr: float = 0.03
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    warmup: Warmup = "none"
    warmup_lr: float = 0.01  # `error`: the rate until the training error is under `warmup_error`
    warmup_error: float = 80.0  # percent, over the last `window` iterations
    warmup_iterations: int = 0  # `linear`: the rate rises to `lr` over so many
    label_smoothing: float = 0.0  # the part of the target that is spread over all classes
    augment: bool = True  # crops and flips (and of pictures on disk, colours)
    pad: int = 4  # pixels of black on each side of a resident image, out of which it is cut anew
    alternate_flips: bool = False  # a resident image is flipped in every second epoch, and not by chance
    crop: int = 0  # pixels a side of random crops out of pictures on disk (Sec. 3.4); 0: resident images (Sec. 4.2)
    sides: tuple[int, ...] = SIDES  # with `crop`: the least and the largest shorter side of a picture
    colour: float = 0.0  # with `crop`: standard deviation of the colour augmentation
    accumulate: int = 1  # parts in which a batch goes through the network; a batch statistic is over a part
    bn_group: int = 0  # images a batch statistic is taken over; 0 is the whole batch
    bn_average: int = 0  # training images over which BN's statistics for testing are averaged at the end; 0: running
    window: int = 100  # training error and loss are means over so many iterations
    evaluate_every: int = 2_000  # iterations between two tests

    def __post_init__(self) -> None:
        """Check every field."""
        for name, value in vars(self).items():
            require_bounds(name, value)
        for field in ("momentum", "label_smoothing"):
            _require(0 <= getattr(self, field) < 1, field, getattr(self, field), "from 0 to below 1")
        _require(not self.nesterov or self.momentum > 0, "momentum", self.momentum, "more than 0 with nesterov")
        _require(self.bn_group != 1, "bn_group", 1, "0 (whole batch) or at least 2 images")
        marks = self.milestones
        _require(list(marks) == sorted(marks), "milestones", list(marks), "in rising order")
        _require(not (marks and self.epochs), "epochs", list(self.epochs), "left out where milestones are given")
        _require(self.warmup in get_args(Warmup), "warmup", self.warmup, "one of none, error, linear")
        warms, wanted = self.warmup_iterations > 0, "more than 0 with warmup=linear, and 0 without"
        _require(warms == (self.warmup == "linear"), "warmup_iterations", self.warmup_iterations, wanted)
        _require(self.decay in get_args(Decay), "decay", self.decay, "one of steps, linear, plateau")
        _require(self.optimizer in get_args(Optimizer), "optimizer", self.optimizer, "one of sgd, muon")
        fits = len(self.sides) == 2 and self.crop <= self.sides[0] <= self.sides[1]
        _require(fits, "sides", list(self.sides), f"two numbers of pixels, from the crop ({self.crop}) up")
        _require(self.batch_size % self.accumulate == 0, "accumulate", self.accumulate, "a divisor of the batch size")
        _require(not (self.alternate_flips and self.crop), "alternate_flips", True, "false where crops are taken")
        cropped, wanted = self.crop > 0, "left out where no crops are taken (crop=0)"
        _require(cropped or not self.colour, "colour", self.colour, wanted)
        _require(cropped or self.sides == SIDES, "sides", list(self.sides), wanted)
        _require(self.augment or not self.crop, "augment", False, "true where crops are taken (crop=0: whole images)")

    def scaled(self, iterations: int) -> Self:
        """The same recipe over `iterations`, all its marks moved in proportion."""
        require_bounds("iterations", iterations)
        if iterations == self.iterations:  # or marks set by hand would be brought to what a scaled recipe has at least
            return self

        def scale(mark: int) -> int:
            return max(1, round(mark * iterations / self.iterations)) if mark else 0

        every = min(iterations, max(scale(self.evaluate_every), EVALUATE_AT_MOST_EVERY))
        span = scale(self.patience * self.evaluate_every)
        return dataclasses.replace(
            self,
            iterations=iterations,
            milestones=tuple(scale(mark) for mark in self.milestones),
            epochs=tuple(scale(mark) for mark in self.epochs),
            warmup_iterations=scale(self.warmup_iterations),
            bn_average=max(scale(self.bn_average), min(self.bn_average, AVERAGE_AT_LEAST * self.batch_size)),
            window=max(scale(self.window), min(self.window, WINDOW_AT_LEAST, iterations)),
            evaluate_every=every,
            patience=max(1, round(span / every)),
        )

    def in_iterations(self, images: int) -> Self:
        """The same recipe for so many training images: `epochs` as milestones."""
        if not self.epochs:
            return self
        marks = tuple(round(epoch * images / self.batch_size) for epoch in self.epochs)
        return dataclasses.replace(self, epochs=(), milestones=marks).within()

    def within(self) -> Self:
        """The same recipe. Raises `InputError` where the rate would fall after the end."""
        late = any(mark > self.iterations for mark in self.milestones)
        _require(not late, "milestones", list(self.milestones), f"within the {self.iterations} iterations")
        return self


CIFAR = Recipe()
CIFAR_DEEP = dataclasses.replace(CIFAR, name="cifar-deep", warmup="error")  # 110 layers and deeper
# Not the paper's: made to reach, with 20 layers, the test error of the paper's recipe in less than a sixth of its time.
FAST = Recipe(
    name="fast",
    iterations=9_000,
    lr=0.2,
    decay="linear",
    milestones=(),
    optimizer="muon",
    kernel_lr=0.025,
    nesterov=True,
    weight_decay=5e-4,
    warmup="linear",
    warmup_iterations=1_350,
    label_smoothing=0.1,
    pad=2,
    alternate_flips=True,
    evaluate_every=1_000,
)
IMAGENET = Recipe(  # Sec. 3.4; patience, threshold and the number of averaged images are ours
    name="imagenet",
    iterations=600_000,
    batch_size=256,
    lr=0.1,
    decay="plateau",
    milestones=(),
    crop=224,
    colour=0.1,
    bn_average=100_000,
    evaluate_every=5_000,
)
FINETUNE = Recipe(  # not the paper's: trained weights go on, at a tenth of the rate, on images of another kind
    name="finetune",
    iterations=2_000,
    batch_size=64,
    lr=0.01,
    decay="linear",
    milestones=(),
    evaluate_every=200,
)
RECIPES = {recipe.name: recipe for recipe in (CIFAR, CIFAR_DEEP, FAST, IMAGENET, FINETUNE)}


def paper_recipe(depth: int, imagenet: bool = False) -> Recipe:
    """The paper's recipe for a network of `depth` weighted layers: that of Sec. 3.4 for `imagenet`, else of Sec. 4.2.

    There, 110 layers and more have a warm-up.
    """
    if imagenet:
        return IMAGENET
    return CIFAR_DEEP if depth >= 110 else CIFAR


@dataclass(frozen=True)
class Config:
    """All that re-creates a run. What may be `auto` (`device` to `compile`) is recorded as resolved."""

    network: str
    data: str
    split: str | None = None  # 45k/5k: a part of the training images is held out as test images
    image_size: int | None = None  # pixels a side that every image is brought to; None: as they are
    in_channels: int | None = None  # None: as many as the images have
    skip_bad: bool = False  # images that do not decode are left out, and counted
    test_images: int = 0  # the curve's test error over so many images, spread over all; 0 and the end: over all
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
    freeze: tuple[str, ...] | None = None  # stages whose parameters and BN statistics stay
    recipe: Recipe = CIFAR

    def __post_init__(self) -> None:
        """Check what no other place checks."""
        for name, value in vars(self).items():
            require_bounds(name, value)
        average = self.recipe.bn_average
        _require(not (self.freeze and average), "bn_average", average, "0 where stages are frozen: theirs stay")

    def as_json(self) -> dict[str, Any]:
        """The record that `settings.from_json` reads back."""
        return json.loads(json.dumps(dataclasses.asdict(self)))
