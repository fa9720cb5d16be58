"""Checks of the values in a weights file: finite floating point, and BN's batch counters."""

from collections.abc import Mapping

import torch
from torch import Tensor

from deepres.runtime.errors import InputError, Say, few
from deepres.weights.state import BN_COUNTER

CONVERTED = (torch.float16, torch.bfloat16, torch.float64)


def floats(state: Mapping[str, Tensor], say: Say) -> dict[str, Tensor]:
    """`state` converted to float32, except BN's batch counters; `say` is told if it had another precision.

    Raises `InputError` with the names of tensors of another type (8-bit values mean nothing without their scales), of
    values that are not finite, and of running variances below 0.
    """
    values = {key: value for key, value in state.items() if not key.endswith(BN_COUNTER)}
    others = {key: value.dtype for key, value in values.items() if value.dtype not in (torch.float32, *CONVERTED)}
    if others:
        kinds = few(sorted({_name(kind) for kind in others.values()}))
        raise InputError(
            f"the weights hold {kinds} ({few(others)}), which is no floating point of 16 bits or more; save them in "
            "float32 where they were made"
        )
    wrong = [key for key, value in values.items() if not value.isfinite().all()]
    if wrong:
        raise InputError(f"the weights hold values that are not finite ({few(wrong)}); give those of before")
    below = [key for key, value in values.items() if key.endswith("running_var") and (value < 0).any()]
    if below:
        raise InputError(f"the weights hold variances below 0 ({few(below)}); give other weights")
    if kinds := sorted({_name(value.dtype) for value in values.values() if value.dtype in CONVERTED}):
        say(f"the weights are of {few(kinds)}, and are converted to float32")
    return {key: value.float() if key in values else value for key, value in state.items()}


def _name(kind: torch.dtype) -> str:
    return str(kind).removeprefix("torch.")
