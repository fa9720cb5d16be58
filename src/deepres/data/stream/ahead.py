"""Training batches on their way to the device, beside the steps that the device is at work on."""

from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

Raw = tuple[Tensor, ...]
QUEUED = 2  # steps that a GPU may have before it when the next batch is sent to it


class Ahead:
    """Batches made by `make(step)`, whose work for a GPU goes to a stream of its own.

    The step that takes a batch waits for it on the GPU, not the processor: while a GPU is at work on the steps before,
    the processor has gone on and has sent the next batch. It is kept from going further than `QUEUED` steps, so that
    not more than so many batches fill the memory. On other devices `raw` is `make`.
    """

    def __init__(self, make: Callable[[int], Raw], device: torch.device):
        self._make = make
        self._own = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._steps: deque[torch.cuda.Event] = deque()

    def raw(self, step: int) -> Raw:
        """What `make(step)` makes, ready for what the caller sends to the device from now on."""
        if self._own is None:
            return self._make(step)
        # Wait until the GPU has done all but the newest steps that were sent to it.
        taking = torch.cuda.current_stream(self._own.device)
        done = torch.cuda.Event(blocking=True)  # a thread that waits leaves its processor to those that decode
        done.record(taking)
        self._steps.append(done)
        if len(self._steps) > QUEUED:
            self._steps.popleft().synchronize()
        # Send the batch beside them. Its memory may be used again when the step that takes it is done.
        with torch.cuda.stream(self._own):
            made = self._make(step)
        taking.wait_stream(self._own)
        for tensor in made:
            tensor.record_stream(taking)
        return made


def sent(batch: Raw, device: torch.device) -> Raw:
    """`batch` on `device`. A GPU copies it from pinned memory, so that the processor need not wait for the copy.

    PyTorch keeps pinned memory for later batches, and uses it again only when it was copied.
    """
    if device.type == "cpu":
        return batch
    if device.type != "cuda":
        return tuple(tensor.to(device) for tensor in batch)
    return tuple(tensor.pin_memory().to(device, non_blocking=True) for tensor in batch)
