"""Memory for maps that is used again: a training step asks for the same few sizes thousands of times.

The C library gives large blocks back to the system and takes fresh pages for the next ones, a quarter of the time of
a step; told to keep them, it does not find an aligned block again in a hole of its own size, and grows without end.
"""

import mmap
import os
import weakref
from collections import OrderedDict

import numpy as np
import torch
from torch import Tensor

SHARE = 4  # of the machine's memory, what is kept at most that nobody uses
PAGE = 1 << 16


class Pool:
    """Blocks of memory by size; what is freed is kept for the next tensor of that size, up to `limit` bytes."""

    def __init__(self, limit: int):
        self.limit, self.idle = limit, 0
        self.free: OrderedDict[int, list[mmap.mmap]] = OrderedDict()  # the size freed last stands last

    def maps(self, count: int, channels: int, height: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """An uninitialised tensor (count, channels, height, width), channels-last in memory."""
        size = count * channels * height * width * dtype.itemsize
        block = self._take(-(-size // PAGE) * PAGE)
        array = np.frombuffer(block, dtype=np.uint8, count=size)
        weakref.finalize(array, self._give, block).atexit = False  # when the last tensor on it is gone
        steps = (height * width * channels, 1, width * channels, channels)
        # set_, for a view of another tensor may not be changed in place behind a function of autograd's
        storage = torch.from_numpy(array).untyped_storage()
        return torch.empty(0, dtype=dtype).set_(storage, 0, (count, channels, height, width), steps)

    def _take(self, size: int) -> mmap.mmap:
        kept = self.free.get(size)
        if kept:
            self.idle -= size
            return kept.pop()
        return mmap.mmap(-1, max(size, PAGE))

    def _give(self, block: mmap.mmap) -> None:
        size = len(block)
        self.free.setdefault(size, []).append(block)
        self.free.move_to_end(size)
        self.idle += size
        while self.idle > self.limit:  # the sizes that were not freed for longest go back to the system
            oldest = next(other for other, blocks in self.free.items() if blocks)
            self.free[oldest].pop()
            self.idle -= oldest


POOL = Pool(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // SHARE)
