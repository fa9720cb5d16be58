"""Training batches on their way to the device, beside the steps that the device is at work on."""

from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

Raw = tuple[Tensor, ...]
QUEUED = 2  # steps that a GPU may have before it when the next batch is sent to it


class Ahead:
    """Makes batches for a device. Of a GPU, their work goes to a stream of its own.

    The step that takes a batch waits for it on the GPU, not the processor: while a GPU is at work on the steps before,
    the processor has gone on and has sent the next batch. It is kept from going further than `QUEUED` steps, so that
    not more than so many batches fill the memory.
    """

    def __init__(self, device: torch.device):
        self._own = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._steps: deque[torch.cuda.Event] = deque()

    def made(self, make: Callable[[], Raw]) -> Raw:
        """What `make` makes, ready for what the caller sends to the device from now on."""
        if self._own is None:
            return make()
        # Wait until the GPU has done all but the newest steps that were sent to it.
        taking = torch.cuda.current_stream(self._own.device)
        done = torch.cuda.Event(blocking=True)  # a thread that waits leaves its processor to those that decode
        done.record(taking)
        self._steps.append(done)
        if len(self._steps) > QUEUED:
            self._steps.popleft().synchronize()
        # Send the batch beside them. Its memory may be used again when the step that takes it is done.
        with torch.cuda.stream(self._own):
            batch = make()
        taking.wait_stream(self._own)
        for tensor in batch:
            tensor.record_stream(taking)
        return batch


def sent(batch: Raw, device: torch.device) -> Raw:
    """`batch` on `device`. A GPU copies it from pinned memory, so that the processor need not wait for the copy.

    What is pinned already is not moved before. PyTorch keeps pinned memory for later batches, and uses it again only
    when it was copied.
    """
    if device.type == "cpu":
        return batch
    if device.type != "cuda":
        return tuple(tensor.to(device) for tensor in batch)
    return tuple(tensor.pin_memory().to(device, non_blocking=True) for tensor in batch)
