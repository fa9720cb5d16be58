"""What this processor multiplies by itself."""

import torch

WIDE = bool(torch.cpu.get_capabilities().get("avx512_f"))


def multiplies_bf16() -> bool:
    """Whether it multiplies bf16; where it does not, bf16 is emulated, about ten times slower than fp32."""
    features = torch.cpu.get_capabilities()
    return bool(features.get("amx_bf16") or features.get("avx512_bf16"))


def int8_sums_overflow() -> bool:
    """Whether int8 convolutions add two products of 8 bits in 16, which overflow: x86 before VNNI."""
    features = torch.cpu.get_capabilities()
    return features.get("architecture") == "x86_64" and not (features.get("avx512_vnni") or features.get("avx_vnni"))
