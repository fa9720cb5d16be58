"""What the loop knows of a task: batches, a loss, figures and a test. Classification is one, detection another."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn

Batch = TypeVar("Batch")


class Task(Protocol[Batch]):
    """What is trained: the loop, checkpoints, ranks, records, resume, compilation and memory know this alone."""

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of the figures of a step beside its loss, whose means over a window of steps are recorded."""
        ...

    @property
    def watched(self) -> str | None:
        """The figure of the test that a `plateau` watches, in percent; None where there is none."""
        ...

    def batch_at(self, step: int) -> Batch:
        """The batch of a step (of this rank), on the device: a pure function of (seed, step)."""
        ...

    def split(self, batch: Batch, parts: int) -> Sequence[Batch]:
        """`batch` in so many micro-batches of one size."""
        ...

    def images(self, batch: Batch) -> Tensor:
        """The images (N, C, H, W) of a batch, for averages of BN's statistics and for the memory budget."""
        ...

    def loss(self, net: nn.Module, part: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The mean loss of a micro-batch, and its `figures`, all of them scalars."""
        ...

    def evaluate(self, net: nn.Module, last: bool) -> Mapping[str, float]:
        """The figures of a test of `net`, which is in evaluation mode; over all test images where `last`.

        Every rank is given the same figures. Raises `Stopping` on all ranks where one is told to stop.
        """
        ...


AnyTask = Task[Any]
