"""The interface of a task (classification, or detection): batches, a loss, figures and a test."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from torch import Tensor, nn

Batch = TypeVar("Batch")


class Task(Protocol[Batch]):
    """A training task. The loop, checkpoints, ranks, records, compilation and the memory budget use nothing else."""

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of the figures of a step, besides the loss; their means over a window of steps are recorded."""
        ...

    @property
    def watched(self) -> str | None:
        """The test figure, in percent, that the decay `plateau` watches; None where there is none."""
        ...

    def batch_at(self, step: int) -> Batch:
        """This rank's part of the batch of a step, on the device: a pure function of (seed, step)."""
        ...

    def split(self, batch: Batch, parts: int) -> Sequence[Batch]:
        """`batch` cut into `parts` micro-batches of equal size."""
        ...

    def images(self, batch: Batch) -> Tensor:
        """The images (N, C, H, W) of a batch, to average BN statistics over."""
        ...

    def largest(self, parts: int) -> Tensor:
        """Images (N, C, H, W) as large as those of any micro-batch, of which a batch has `parts`."""
        ...

    def rehearse(self, net: nn.Module, images: Tensor) -> Tensor:
        """A forward pass that keeps as much for the backward pass as `loss` of any micro-batch of such images.

        The budget of memory is kept by it. Returns outputs whose sum depends on all parameters that are trained.
        """
        ...

    def loss(self, net: nn.Module, part: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The mean loss of a micro-batch and its `figures` by name, all as scalar tensors."""
        ...

    def evaluate(self, net: nn.Module, last: bool) -> Mapping[str, float]:
        """The test figures of `net`, which is in evaluation mode; over all test images where `last`.

        Every rank gets the same figures. Raises `Stopping` on all ranks where one is told to stop.
        """
        ...


@runtime_checkable
class StaticTask(Protocol):
    """A task whose batches follow, by operations of the device alone, from tensors of the same shapes in every step.

    Its whole step can be captured as a CUDA graph. `batch_at(step)` is `ready(raw_at(step))`.
    """

    def raw_at(self, step: int) -> tuple[Tensor, ...]:
        """What the batch of a step follows from, on the device: its shapes and types are those of every step."""
        ...

    def ready(self, raw: tuple[Tensor, ...]) -> Any:
        """The batch that follows from what `raw_at` gave: no value comes to the processor."""
        ...


AnyTask = Task[Any]
