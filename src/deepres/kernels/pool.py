"""Memory for maps that is used again: a training step asks for the same few sizes thousands of times.

The C library gives large blocks back to the system and takes fresh pages for the next ones, a quarter of the time of
a step; told to keep them, it does not find an aligned block again in a hole of its own size, and grows without end.
"""

import mmap
import weakref
from collections import OrderedDict

import numpy as np
import torch
from torch import Tensor

PAGE = 1 << 16
SLACK = 1.5  # of the most bytes in use at once, what is held at most, in use or not
# Private memory, of which other processes hold nothing after a fork, where the system knows the difference.
HOW = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}


class Pool:
    """Blocks of memory by size; what is freed is kept for the next tensor of that size.

    All that is held stays within `SLACK` times the most bytes that were in use at once.
    """

    def __init__(self) -> None:
        self.used, self.idle, self.most = 0, 0, 0  # bytes
        self.free: OrderedDict[int, list[mmap.mmap]] = OrderedDict()  # the size freed last stands last

    def maps(self, count: int, channels: int, height: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """An uninitialised tensor (count, channels, height, width), channels-last in memory."""
        size = count * channels * height * width * dtype.itemsize
        block = self._take(max(1, -(-size // PAGE)) * PAGE)
        array = np.frombuffer(block, dtype=np.uint8, count=size)
        weakref.finalize(array, self._give, block).atexit = False  # when the last tensor on it is gone
        steps = (height * width * channels, 1, width * channels, channels)
        # set_, for a view of another tensor may not be changed in place behind a function of autograd's
        storage = torch.from_numpy(array).untyped_storage()
        return torch.empty(0, dtype=dtype).set_(storage, 0, (count, channels, height, width), steps)

    def _take(self, size: int) -> mmap.mmap:
        self.used += size
        self.most = max(self.most, self.used)
        kept = self.free.get(size)
        if kept:
            self.idle -= size
            return kept.pop()
        self._shrink()
        return mmap.mmap(-1, size, **HOW)

    def _give(self, block: mmap.mmap) -> None:
        size = len(block)
        self.free.setdefault(size, []).append(block)
        self.free.move_to_end(size)
        self.used -= size
        self.idle += size
        self._shrink()

    def _shrink(self) -> None:
        """Give blocks back to the system, of the sizes first that have not been freed for the longest time."""
        while self.idle and self.used + self.idle > SLACK * self.most:
            oldest = next(other for other, blocks in self.free.items() if blocks)
            self.free[oldest].pop()
            self.idle -= oldest


POOL = Pool()
