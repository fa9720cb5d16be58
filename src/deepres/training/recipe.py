"""How a network is trained, whatever the task: rate, optimizer, batches and windows of figures, as a frozen value."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, get_args

from deepres.runtime.errors import InputError

EVALUATE_AT_MOST_EVERY = 100  # in a short run, tests would else take most of the time
AVERAGE_AT_LEAST, WINDOW_AT_LEAST = 10, 10  # batches, which a short run's statistics and training errors are means of
Warmup = Literal["none", "error", "linear"]
Decay = Literal["steps", "linear", "plateau"]
Optimizer = Literal["sgd", "muon"]

SHOWN = 100  # characters
LONG, LARGE = 10**9, 1e30  # no count of steps or images is above, and no rate
ABOVE_ZERO = (0.0, LARGE)
MOST_MARKS = 1_000
Bounds = Mapping[str, tuple[float, float]]  # the least and the most of a number, or, as of rates, more than 0


def require(holds: bool, field: str, value: object, what: str) -> None:
    """Raise `InputError` that `field` must be `what`, unless it `holds`."""
    if not holds:
        raise InputError(f"{field} is {shown(value)}, but must be {what}")


def shown(value: object) -> str:
    """A value as a person is shown it: its first characters."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def require_bounds(field: str, value: Any, bounds: Bounds) -> None:
    """Raise `InputError` where a field of a recipe or a configuration is a number outside of its `bounds`."""
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
    """How a network is trained, whatever the task. The defaults are the paper's for CIFAR-10 (Sec. 4.2).

    Marks (`iterations`, `milestones`, `warmup_iterations`, `window`, `evaluate_every`) count iterations, and go along
    with their number, as do `epochs`, `bn_average` and `patience`; rates are those of v = momentum * v + lr * g. Raises
    `InputError` for a value that makes no sense.
    """

    bounds: ClassVar[Bounds] = {
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
        "warmup_error": (0, 100),
        "threshold": (0, 100),
        "weight_decay": (0, LARGE),
        **dict.fromkeys(("lr", "warmup_lr", "gamma", "kernel_lr"), ABOVE_ZERO),
    }

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
    accumulate: int = 1  # parts in which a batch goes through the network; a batch statistic is over a part
    bn_group: int = 0  # images a batch statistic is taken over; 0 is the whole batch
    bn_average: int = 0  # training images over which BN's statistics for testing are averaged at the end; 0: running
    window: int = 100  # training error and loss are means over so many iterations
    evaluate_every: int = 2_000  # iterations between two tests

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
        """The same recipe over `iterations`, all its marks moved in proportion."""
        require_bounds("iterations", iterations, self.bounds)
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
        require(not late, "milestones", list(self.milestones), f"within the {self.iterations} iterations")
        return self
