"""What this processor multiplies by itself, or is to be taken to: DEEPRES_BF16 lets one stand for another."""

import os

import torch

from deepres.runtime.errors import InputError

VARIABLE = "DEEPRES_BF16"
# The vectors that PyTorch uses: those of the processor, or less by ATEN_CPU_CAPABILITY.
WIDE = torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def multiplies_bf16() -> bool:
    """Whether it multiplies bf16; where it does not, bf16 is emulated, about ten times slower than fp32.

    `DEEPRES_BF16` in the environment (0 or 1) has the last word. Raises `InputError` for another value of it.
    """
    forced = os.environ.get(VARIABLE, "")
    if forced not in ("", "0", "1"):
        raise InputError(f"{VARIABLE} is {forced!r}; set it to 1 (this processor multiplies bf16), to 0, or not at all")
    if forced:
        return forced == "1"
    features = torch.cpu.get_capabilities()
    return bool(features.get("amx_bf16") or features.get("avx512_bf16"))


def int8_sums_overflow() -> bool:
    """Whether int8 convolutions add two products of 8 bits in 16, which overflow: x86 before VNNI."""
    features = torch.cpu.get_capabilities()
    return features.get("architecture") == "x86_64" and not (features.get("avx512_vnni") or features.get("avx_vnni"))
