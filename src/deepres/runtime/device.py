"""The device and the precision in which a network is trained and tested."""

import ctypes
import os
import warnings
from contextlib import AbstractContextManager

import torch

from deepres.runtime.errors import InputError
from deepres.runtime.processor import multiplies_bf16

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16")
M_TRIM_THRESHOLD, M_MMAP_MAX, NEVER = -1, -4, -1  # of <malloc.h>


def resolve_device(device: str) -> str:
    """The device to use: for `auto` the best one of this machine, else `device` itself.

    Where it is a GPU, `without_tf32` holds from then on. Raises `InputError` for a device that this machine does not
    have.
    """
    chosen = _resolved(device)
    if chosen == "cuda":
        without_tf32()
    return chosen


def without_tf32() -> None:
    """Let convolutions on GPUs compute fp32 as fp32 in this process: PyTorch's default, TF32, rounds to 1e-3."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some versions warn of the name of the setting
        torch.backends.cudnn.allow_tf32 = False


def _resolved(device: str) -> str:
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if here[name])
    if device not in here:
        raise InputError(f"unknown device {device!r}; give one of {', '.join(DEVICES)}")
    if not here[device]:
        raise InputError(f"this machine (or its PyTorch) has no {device!r}; give --device auto or cpu")
    return device


def use_local_gpu(local: int) -> None:
    """Let `cuda` mean GPU number `local` of this machine, in this process.

    Raises `InputError` if the machine has fewer GPUs.
    """
    count = torch.cuda.device_count()
    if local >= count:
        raise InputError(f"this machine has {count} GPUs, too few for rank {local} on it; start one rank for each GPU")
    torch.cuda.set_device(local)


def resolve_precision(precision: str, device: str) -> str:
    """The precision of training: for `auto` bf16 if the hardware multiplies it, else fp32.

    Emulated bf16 is about ten times slower than fp32. Raises `InputError` for an unknown precision.
    """
    if precision != "auto":
        return precision_of_tests(precision)
    if device == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device == "cpu" and multiplies_bf16()
    return "bf16" if fast else "fp32"


def precision_of_tests(precision: str, device: str = "cpu") -> str:
    """The precision of tests: for `auto` fp32 on every device, else `precision` itself, which on a GPU may be fp16.

    In bf16 a score depends on the batch size (by up to 0.01), since sums are then taken in another order. Raises
    `InputError` for an unknown precision.
    """
    known = (*PRECISIONS, *["fp16"] * (device == "cuda"))
    if precision not in known:
        raise InputError(f"unknown precision {precision!r}; give one of {', '.join(known)}")
    return "fp32" if precision == "auto" else precision


def autocast(precision: str, device: str) -> AbstractContextManager[object]:
    """The context for the forward pass of a network in this precision."""
    return torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16")


def keep_freed_memory() -> None:
    """Let the C library (glibc) keep freed memory for later tensors, until this process ends.

    By default, glibc returns large blocks to the system and asks for new pages for the next ones. On a CPU this takes a
    tenth of the time of a training step. The kept memory becomes fragmented, so that a process may hold up to twice its
    peak use. Does nothing with other C libraries.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, NEVER)
