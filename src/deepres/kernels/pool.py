"""A pool of memory for maps: a training step asks for the same few sizes thousands of times.

The C library returns large blocks to the system and gets new pages for the next ones, which takes a quarter of the time
of a step. If told to keep them, it cannot reuse a hole for an aligned block of the same size, and grows without end.
"""

import mmap
import weakref
from collections import OrderedDict

import numpy as np
import torch
from torch import Tensor

PAGE = 1 << 16
SLACK = 1.5  # the pool holds at most so many times the most bytes that were in use at once
# Private memory, where the system has it: forked processes do not share it.
HOW = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}


class Pool:
    """Blocks of memory by size; a freed block is kept for the next tensor of that size.

    All blocks together have at most `SLACK` times the most bytes that were in use at once.
    """

    def __init__(self) -> None:
        self.used, self.idle, self.most = 0, 0, 0  # bytes
        self.free: OrderedDict[int, list[mmap.mmap]] = OrderedDict()  # by size; the size that was freed last comes last

    def maps(self, count: int, channels: int, height: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """An uninitialised tensor (count, channels, height, width), channels-last in memory."""
        size = count * channels * height * width * dtype.itemsize
        block = self._take(max(1, -(-size // PAGE)) * PAGE)
        array = np.frombuffer(block, dtype=np.uint8, count=size)
        weakref.finalize(array, self._give, block).atexit = False  # when the last tensor on it is gone
        steps = (height * width * channels, 1, width * channels, channels)
        # set_ instead of a view: views may not be changed in place after a custom autograd function
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
        """Return blocks to the system, first those of sizes that were not freed for the longest time."""
        while self.idle and self.used + self.idle > SLACK * self.most:
            oldest = next(other for other, blocks in self.free.items() if blocks)
            self.free[oldest].pop()
            self.idle -= oldest


POOL = Pool()
