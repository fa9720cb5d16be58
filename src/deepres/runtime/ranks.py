"""Data-parallel training: several processes (ranks), started by `torchrun`, train one network together.

Each rank takes its part of every batch, as each of the paper's two GPUs took 64 of 128 images (Sec. 4.2). Gradients are
averaged over the ranks, so that all ranks always have the same weights.
"""

import gc
import os
import time
import uuid
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel as Ddp

from deepres.runtime.device import resolve_device, use_local_gpu
from deepres.runtime.ending import SIGNALS
from deepres.runtime.errors import InputError

T = TypeVar("T")
# A rank that ended is noticed at once. COMING is for one that does not start, TIMEOUT for one that hangs. The others
# wait while one rank reads ImageNet for the first time, which takes less.
COMING, TIMEOUT = timedelta(minutes=30), timedelta(hours=6)
CPU = torch.device("cpu")


class RankLostError(Exception):
    """Another rank ended or cannot be reached, so this rank cannot go on."""

    exit_code = 1


class RefusedByFirstError(Exception):
    """The first rank raised `InputError` and prints it. This rank ends with the same exit code, without a message."""

    exit_code = 2


@dataclass(frozen=True)
class Ranks:
    """The place of this process among those that train: rank `rank` of `world`, number `local` on its machine."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the first rank, which writes the files."""
        return self.rank == 0

    def part(self, batch_size: int) -> slice:
        """The contiguous part of a batch that this rank takes.

        Raises `InputError` if `batch_size` is not a multiple of the number of ranks.
        """
        if batch_size % self.world:
            raise InputError(
                f"a batch of {batch_size} images does not divide among {self.world} ranks; "
                f"give a --batch-size that is a multiple of {self.world}, or start another number of ranks"
            )
        count = batch_size // self.world
        return slice(self.rank * count, (self.rank + 1) * count)

    def wrap(self, net: nn.Module) -> nn.Module:
        """`net` with gradients that are averaged over the ranks; `net` itself for a single rank.

        All ranks start with the parameters and buffers of the first rank.
        """
        if self.world == 1:
            return net
        # A step can be captured where this is made on another stream than the default one.
        cuda = next(net.parameters()).is_cuda
        stream = torch.cuda.stream(torch.cuda.Stream()) if cuda else nullcontext()
        with (
            stream,
            warnings.catch_warnings(),
        ):  # PyTorch 2.14 renames the argument; older versions do not know the new name
            warnings.filterwarnings("ignore", "`broadcast_buffers`", FutureWarning)
            return Ddp(net, broadcast_buffers=False, gradient_as_bucket_view=True)

    def exchange(self, parallel: nn.Module, last: bool) -> AbstractContextManager[None]:
        """A context for the backward pass of one micro-batch of a network that `wrap` returned.

        Gradients add up on each rank; in the `last` micro-batch of a step they are averaged over the ranks.
        """
        return nullcontext() if last or self.world == 1 else cast(Ddp, parallel).no_sync()

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace float32 tensors, in place, by their means over the ranks, with one exchange for each device."""
        if self.world == 1:
            return
        for device in sorted({tensor.device for tensor in tensors}, key=str):
            here = [tensor for tensor in tensors if tensor.device == device]
            flat = torch.cat([tensor.flatten() for tensor in here])
            dist.all_reduce(flat)
            parts = flat.div_(self.world).split([tensor.numel() for tensor in here])
            for tensor, mean in zip(here, parts, strict=True):
                tensor.copy_(mean.view_as(tensor))

    def agree(self, figures: Sequence[Tensor], caught: Sequence[int], due: bool) -> tuple[Sequence[int], bool]:
        """Average `figures` over the ranks in place, and decide together what to do after a step.

        Returns the signals that any rank has `caught`, and whether a checkpoint is `due` on the first rank. All ranks
        get the same answer.
        """
        if self.world == 1:
            return caught, due
        flags = torch.tensor([*(float(number in caught) for number in SIGNALS), float(due and self.first)])
        self.average([*figures, flags])
        *asked, save = (flags > 0).tolist()
        return [number for number, is_asked in zip(SIGNALS, asked, strict=True) if is_asked], save

    def sum(self, counts: Sequence[int]) -> list[int]:
        """The exact sums of whole numbers over the ranks."""
        return [sum(column) for column in zip(*self.gather(list(counts)), strict=True)]

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, in their order; all ranks get the list."""
        if self.world == 1:
            return [value]
        every: list[Any] = [None] * self.world
        dist.all_gather_object(every, value)
        return every

    def barrier(self) -> None:
        """Wait until all ranks have called this."""
        self.sum([0])

    def same(self, value: int) -> bool:
        """Whether `value` is the same on all ranks; all get the same answer."""
        return len(set(self.gather(value))) == 1

    def by_first(self, action: Callable[[], T]) -> T:
        """Run `action` on the first rank only, and return its result, a plain value, on all ranks.

        If it raises `InputError`, the first rank raises that, and the others raise `RefusedByFirstError`.
        """
        if self.world == 1:
            return action()
        answer: list[Any] = [None, None]
        if self.first:
            try:
                answer[0] = action()
            except InputError as error:
                answer[1] = error
        dist.broadcast_object_list(answer, src=0, device=CPU)
        value, refusal = answer
        if refusal is not None:
            raise refusal if self.first else RefusedByFirstError("the first rank refused; it says why")
        return value

    @contextmanager
    def one_first(self) -> Generator[None]:
        """Run the body on one rank of each machine first, then on the others, which find what it has cached."""
        if self.local:
            self.barrier()
        yield
        if not self.local:
            self.barrier()


ALONE = Ranks()


def ranks() -> Ranks:
    """The place of this process, from the variables that `torchrun` sets; `ALONE` without them.

    Raises `InputError` if only some of these variables are set.
    """
    world = _number("WORLD_SIZE") if "WORLD_SIZE" in os.environ else 1
    if world == 1:
        return ALONE
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if name not in os.environ:
            raise InputError(
                f"WORLD_SIZE is {world}, but {name} is not set; start through torchrun or unset WORLD_SIZE"
            )
    return Ranks(_number("RANK"), world, _number("LOCAL_RANK"))


@contextmanager
def joined(device: str, batch_size: int = 0) -> Generator[Ranks]:
    """Join the other ranks, on this rank's own GPU where `device` resolves to cuda; leave them at the end.

    Without a `batch_size` there is no batch to share. Raises `RankLostError` if another rank ends early, and
    `InputError` for a batch that does not divide among the ranks, or if the machine has too few GPUs.
    """
    # Check the batch size and the device.
    place = ranks()
    place.part(batch_size)
    if place.world == 1:
        yield place
        return
    kind = resolve_device(device)
    if kind == "mps":
        raise InputError("several ranks cannot train on mps; give --device cpu, or start without torchrun")
    if kind == "cuda":
        use_local_gpu(place.local)
    # Connect the ranks. Counts and flags are exchanged between CPUs, so that no step waits for the GPU.
    try:
        backend = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"
        store = _own_store(place)
        dist.init_process_group(backend, store=store, rank=place.rank, world_size=place.world, timeout=TIMEOUT)
        yield place
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error) or "NCCL" in str(error):
            raise RankLostError(f"another rank ended or cannot be reached ({_line(error)})") from error
        raise
    gc.collect()  # objects that still refer to the group would keep its threads, which crash Python at exit
    dist.destroy_process_group()


def _own_store(place: Ranks) -> Store:
    """torchrun's store, with a prefix that only the ranks of this start know.

    torchrun keeps its store when it restarts the ranks, with the addresses of ranks that have died. So every rank asks
    under a new random name, which only a running first rank can answer. The first rank waits until all have its answer.
    """
    store = next(iter(rendezvous("env://", place.rank, place.world, timeout=COMING)))[0]
    session, others = uuid.uuid4().hex, range(1, place.world)
    if place.first:
        heard = [f"deepres/{session}/{rank}" for rank in others]
        end = time.monotonic() + COMING.total_seconds()
        while not store.check(heard):
            for asking in (f"deepres/asking/{rank}" for rank in others):
                if store.check([asking]):
                    store.set(f"deepres/answer/{store.get(asking).decode()}", session)
            if time.monotonic() > end:
                raise dist.DistNetworkError(f"not all of {place.world} ranks came within {COMING}")
            time.sleep(0.02)
    else:
        store.set(f"deepres/asking/{place.rank}", session)
        session = store.get(f"deepres/answer/{session}").decode()
        store.set(f"deepres/{session}/{place.rank}", "")
    return PrefixStore(session, store)


def _number(name: str) -> int:
    """The whole number in an environment variable. Raises `InputError` for anything else."""
    text = os.environ.get(name, "")
    if not (text.isdecimal() and len(text) < 10):
        raise InputError(f"the environment variable {name} is {text!r}, not a number; start through torchrun")
    return int(text)


def _line(error: BaseException) -> str:
    """The first line of an error."""
    return next(iter(str(error).splitlines()), type(error).__name__)
