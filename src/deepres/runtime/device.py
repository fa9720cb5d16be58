"""Where and in which precision a network is trained, and tested."""

import ctypes
import os
from contextlib import AbstractContextManager

import torch

from deepres.runtime.errors import InputError
from deepres.runtime.processor import multiplies_bf16

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16")
M_TRIM_THRESHOLD, M_MMAP_MAX, NEVER = -1, -4, -1  # of <malloc.h>


def resolve_device(device: str) -> str:
    """`auto` to the best device here; raises `InputError` for one that this machine lacks."""
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if here[name])
    if device not in here:
        raise InputError(f"unknown device {device!r}; give one of {', '.join(DEVICES)}")
    if not here[device]:
        raise InputError(f"this machine (or its PyTorch) has no {device!r}; give --device auto or cpu")
    return device


def use_local_gpu(local: int) -> None:
    """Make GPU number `local` of this machine the one that `cuda` means in this process.

    Raises `InputError` where there are not as many.
    """
    count = torch.cuda.device_count()
    if local >= count:
        raise InputError(f"this machine has {count} GPUs, too few for rank {local} on it; start one rank for each GPU")
    torch.cuda.set_device(local)


def resolve_precision(precision: str, device: str) -> str:
    """`auto` to bf16 where the hardware multiplies it, else to fp32: emulated bf16 is about ten times slower."""
    if precision != "auto":
        return precision_of_tests(precision)
    if device == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device == "cpu" and multiplies_bf16()
    return "bf16" if fast else "fp32"


def precision_of_tests(precision: str) -> str:
    """`auto` to fp32, on every device.

    In bf16 a score moves by 0.01 with the number of images beside it, whose sums are taken in another order.
    """
    if precision not in PRECISIONS:
        raise InputError(f"unknown precision {precision!r}; give one of {', '.join(PRECISIONS)}")
    return "fp32" if precision == "auto" else precision


def autocast(precision: str, device: str) -> AbstractContextManager[object]:
    """The context in which the network runs forward."""
    return torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16")


def keep_freed_memory() -> None:
    """Let the C library (glibc) keep freed memory for the next tensor, for the life of this process.

    By default it gives large blocks back and takes fresh pages for the next ones, a tenth of the time of a training
    step on a processor. Kept memory falls into pieces, so that a process may hold up to twice the most that it ever
    used. Elsewhere than on glibc nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, NEVER)
