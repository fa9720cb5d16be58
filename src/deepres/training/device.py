"""Where and in which precision a network is trained."""

from contextlib import AbstractContextManager

import torch

from deepres.errors import InputError

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16")


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


def resolve_precision(precision: str, device: str) -> str:
    """`auto` to bf16 where the hardware multiplies it, else to fp32: emulated bf16 is about ten times slower."""
    if precision not in PRECISIONS:
        raise InputError(f"unknown precision {precision!r}; give one of {', '.join(PRECISIONS)}")
    if precision != "auto":
        return precision
    if device == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        features = torch.cpu.get_capabilities()
        fast = device == "cpu" and bool(features.get("amx_bf16") or features.get("avx512_bf16"))
    return "bf16" if fast else "fp32"


def autocast(precision: str, device: str) -> AbstractContextManager[object]:
    """The context in which the network runs forward."""
    return torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16")
