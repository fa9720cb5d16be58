"""The part of a recipe that all tasks share: learning rate, optimizer, batches and tests, as a frozen value."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, get_args

from deepres.runtime.errors import InputError

EVALUATE_AT_MOST_EVERY = 100  # a short run is tested every 100 iterations at most: tests would take most of its time
AVERAGE_AT_LEAST, WINDOW_AT_LEAST = 10, 10  # least number of batches for BN's average and for a window of a short run
Warmup = Literal["none", "error", "linear"]
Decay = Literal["steps", "linear", "plateau"]
Optimizer = Literal["sgd", "muon"]

SHOWN = 100  # characters of a value in an error message
LONG, LARGE = 10**9, 1e30  # the largest count of steps or images, and the largest rate
ABOVE_ZERO = (0.0, LARGE)
MOST_MARKS = 1_000  # milestones, or epochs
Bounds = Mapping[str, tuple[float, float]]  # the smallest and largest value of each field; ABOVE_ZERO excludes 0


def require(holds: bool, field: str, value: object, what: str) -> None:
    """Raise `InputError`, which says that `field` must be `what`, unless the condition `holds`."""
    if not holds:
        raise InputError(f"{field} is {shown(value)}, but must be {what}")


def shown(value: object) -> str:
    """A value for an error message, cut to its first characters."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def require_bounds(field: str, value: Any, bounds: Bounds) -> None:
    """Raise `InputError` where a number of a recipe or a configuration, or one of several, is out of its `bounds`."""
    parts = value if isinstance(value, tuple) else () if value is None else (value,)
    require(len(parts) <= MOST_MARKS, field, f"{len(parts)} numbers", f"{MOST_MARKS:,} numbers at most")
    if field not in bounds:
        return
    least, most = bounds[field]
    if bounds[field] is ABOVE_ZERO:
        require(all(0 < part <= most for part in parts), field, value, f"more than 0, and {most:g} at most")
    else:
        end = f"{most:,}" if isinstance(most, int) else f"{most:g}"
        require(all(least <= part <= most for part in parts), field, value, f"from {least} to {end}")


@dataclass(frozen=True)
class Recipe:
    """How a network is trained, for any task. The defaults are the paper's for CIFAR-10 (Sec. 4.2).

    Marks (`iterations`, `milestones`, `warmup_iterations`, `window`, `evaluate_every`) count iterations. On the
    command line they all scale with `iterations`, as do `epochs`, `bn_average` and `patience`. Learning rates are those
    of v = momentum * v + lr * g. Raises `InputError` for a value that makes no sense.
    """

    bounds: ClassVar[Bounds] = {
        **dict.fromkeys(("iterations", "milestones", "epochs", "patience", "evaluate_every"), (1, LONG)),
        **dict.fromkeys(("warmup_iterations", "bn_average"), (0, LONG)),
        **dict.fromkeys(("batch_size", "accumulate"), (1, 2**20)),
        **dict.fromkeys(("warmup_error", "threshold"), (0, 100)),
        "window": (1, 10**6),
        "bn_group": (0, 2**20),
        "weight_decay": (0, LARGE),
        **dict.fromkeys(("lr", "warmup_lr", "gamma", "kernel_lr"), ABOVE_ZERO),
    }

    name: str = "cifar"
    iterations: int = 64_000
    batch_size: int = 128
    lr: float = 0.1
    decay: Decay = "steps"  # `steps`: times `gamma` at each milestone; `linear`: falls in a straight line to 0;
    # `plateau`: times `gamma` each time the test error has not fallen by `threshold` points in `patience` tests
    patience: int = 6
    threshold: float = 0.1
    milestones: tuple[int, ...] = (32_000, 48_000)
    epochs: tuple[int, ...] = ()  # milestones in passes over the training images; turned into iterations at the start
    gamma: float = 0.1
    optimizer: Optimizer = "sgd"  # `muon`: kernels of convolutions move by `kernel_lr` times their norm per step
    kernel_lr: float = 0.03
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    warmup: Warmup = "none"
    warmup_lr: float = 0.01  # `warmup=error`: the learning rate until the training error is below `warmup_error`
    warmup_error: float = 80.0  # percent, averaged over the last `window` iterations
    warmup_iterations: int = 0  # `warmup=linear`: iterations over which the learning rate rises to `lr`
    accumulate: int = 1  # micro-batches that a batch is cut into; BN statistics are of one micro-batch
    bn_group: int = 0  # images that a batch statistic is taken over; 0: the whole batch
    bn_average: int = 0  # training images that BN's average for the last test is over; 0: keep the running statistics
    window: int = 100  # iterations that the training error and loss are averaged over
    evaluate_every: int = 2_000  # iterations from one test to the next

    def __post_init__(self) -> None:
        """Check every field."""
        for name, value in vars(self).items():
            require_bounds(name, value, self.bounds)
        require(0 <= self.momentum < 1, "momentum", self.momentum, "from 0 to below 1")
        require(not self.nesterov or self.momentum > 0, "momentum", self.momentum, "more than 0 with nesterov")
        require(self.bn_group != 1, "bn_group", 1, "0 (whole batch) or at least 2 images")
        marks = self.milestones
        require(list(marks) == sorted(marks), "milestones", list(marks), "in rising order")
        require(not (marks and self.epochs), "epochs", list(self.epochs), "left out where milestones are given")
        require(self.warmup in get_args(Warmup), "warmup", self.warmup, "one of none, error, linear")
        warms, wanted = self.warmup_iterations > 0, "more than 0 with warmup=linear, and 0 without"
        require(warms == (self.warmup == "linear"), "warmup_iterations", self.warmup_iterations, wanted)
        require(self.decay in get_args(Decay), "decay", self.decay, "one of steps, linear, plateau")
        require(self.optimizer in get_args(Optimizer), "optimizer", self.optimizer, "one of sgd, muon")
        require(self.batch_size % self.accumulate == 0, "accumulate", self.accumulate, "a divisor of the batch size")

    def scaled(self, iterations: int) -> Self:
        """The same recipe over `iterations` iterations, with all its marks moved in proportion."""
        require_bounds("iterations", iterations, self.bounds)
        if iterations == self.iterations:  # keeps marks below the least values of a scaled recipe
            return self

        def scale(mark: int) -> int:
            return max(1, round(mark * iterations / self.iterations)) if mark else 0

        # Tests are not more frequent than in long runs; the patience spans the same part of the run.
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
        """The same recipe for `images` training images, with `epochs` turned into milestones."""
        if not self.epochs:
            return self
        marks = tuple(round(epoch * images / self.batch_size) for epoch in self.epochs)
        return dataclasses.replace(self, epochs=(), milestones=marks).within()

    def within(self) -> Self:
        """The recipe itself. Raises `InputError` where a milestone is later than the last iteration."""
        late = any(mark > self.iterations for mark in self.milestones)
        require(not late, "milestones", list(self.milestones), f"within the {self.iterations} iterations")
        return self
