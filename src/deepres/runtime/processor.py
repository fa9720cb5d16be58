"""Which number formats this CPU multiplies in hardware. The variable DEEPRES_BF16 overrides the answer for bf16."""

import os

import torch

from deepres.runtime.errors import InputError

VARIABLE = "DEEPRES_BF16"
# Whether PyTorch uses vectors of 512 bits: the CPU has them, and ATEN_CPU_CAPABILITY does not forbid them.
WIDE = torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def multiplies_bf16() -> bool:
    """Whether this CPU multiplies bf16. Otherwise bf16 is emulated, about ten times slower than fp32.

    The variable `DEEPRES_BF16` (0 or 1) overrides the answer. Raises `InputError` if it has another value.
    """
    forced = os.environ.get(VARIABLE, "")
    if forced not in ("", "0", "1"):
        raise InputError(f"{VARIABLE} is {forced!r}; set it to 1 (this processor multiplies bf16), to 0, or not at all")
    if forced:
        return forced == "1"
    features = torch.cpu.get_capabilities()
    return bool(features.get("amx_bf16") or features.get("avx512_bf16"))


def int8_sums_overflow() -> bool:
    """Whether int8 convolutions add two 8-bit products in 16 bits, which can overflow, as on x86 CPUs without VNNI."""
    features = torch.cpu.get_capabilities()
    return features.get("architecture") == "x86_64" and not (features.get("avx512_vnni") or features.get("avx_vnni"))
