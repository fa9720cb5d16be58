"""Values sent from one process to another, the memory of their tensors beside the pickle.

Tensors go through files without a name (`memfd_create`), which no mount limits, and the rest through a pipe. So nothing
here needs /dev/shm, of which a container has 64 MiB.
"""

import io
import mmap
import os
import pickle
import sys
from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

ALIGNMENT = 64  # bytes, as PyTorch allocates memory


def send(pipe: Connection, value: Any) -> None:
    """Send any value that pickles; the tensors in it keep their memory order. An exception is raised by `receive`."""
    stream, buffers = io.BytesIO(), list[pickle.PickleBuffer]()
    _Pickler(stream, protocol=5, buffer_callback=buffers.append).dump(value)
    memories = [buffer.raw() for buffer in buffers]
    sizes = [memory.nbytes for memory in memories]
    pieces = [piece for memory in memories for piece in (memory, bytes(-memory.nbytes % ALIGNMENT))]
    file = _nameless_file(pieces) if pieces else None
    pipe.send((stream.getvalue(), sizes, file is not None))
    if file is not None:
        reduction.send_handle(pipe, file, None)
        os.close(file)
    elif pieces:
        pipe.send_bytes(b"".join(pieces))


def receive(pipe: Connection, pinned: bool = False) -> Any:
    """The value that `send` sent, or raise it where it is an exception. Raises `EOFError` where the pipe was closed.

    Its tensors are in memory that is shared with the file, or `pinned`: the memory that a GPU copies fastest from.
    """
    pickled, sizes, in_file = pipe.recv()
    ends = list(accumulate(size + -size % ALIGNMENT for size in sizes))
    memory: Tensor | memoryview = memoryview(b"")
    if in_file:
        file = reduction.recv_handle(pipe)
        try:
            memory = _pinned(file, ends[-1]) if pinned else memoryview(mmap.mmap(file, ends[-1]))
        finally:
            os.close(file)
    elif sizes:
        memory = memoryview(bytearray(pipe.recv_bytes()))
    pieces = [memory[start : start + size] for start, size in zip([0, *ends], sizes, strict=False)]
    value = pickle.loads(pickled, buffers=pieces)
    if isinstance(value, Exception):
        raise value
    return value


class _Pickler(pickle.Pickler):
    """Gives the memory of tensors to `buffer_callback`, without copying it into the pickle."""

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is not Tensor:
            return NotImplemented
        if not obj.numel():
            return partial(torch.empty, obj.shape, dtype=obj.dtype), ()
        # `empty_like` keeps strides only if the memory has no gaps. Then it is sent as one piece.
        dense = obj if torch.empty_like(obj, device="meta").stride() == obj.stride() else obj.clone()
        flat: Any = dense.detach().as_strided((dense.numel(),), (1,)).view(torch.uint8).numpy()
        return _tensor, (pickle.PickleBuffer(flat), dense.dtype, dense.shape, dense.stride())


def _tensor(memory: Any, dtype: torch.dtype, shape: Sequence[int], strides: Sequence[int]) -> Tensor:
    flat = memory.view(dtype) if isinstance(memory, Tensor) else torch.frombuffer(memory, dtype=dtype)
    return flat.as_strided(shape, strides)


def _pinned(file: int, size: int) -> Tensor:
    """The first `size` bytes of a file in pinned memory. Views of it keep it from being used again too early."""
    memory = torch.empty(size, dtype=torch.uint8, pin_memory=True)
    flat: Any = memory.numpy()
    rest = memoryview(flat)
    while rest:  # the system reads 2 GiB at a time at most
        rest = rest[os.preadv(file, [rest], size - len(rest)) :]
    return memory


def _nameless_file(pieces: Sequence[memoryview | bytes]) -> int | None:
    """An open file that is in no folder and holds these pieces; None where the system gives none."""
    if sys.platform != "linux":
        return None
    try:
        file = os.memfd_create("pictures")
    except OSError:
        return None
    try:
        with open(file, "wb", closefd=False) as stream:
            stream.writelines(pieces)
    except OSError:
        os.close(file)
        return None
    return file
