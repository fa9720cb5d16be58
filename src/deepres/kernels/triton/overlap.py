"""Launches that overlap: a kernel's programs start while those of the kernel before end (Hopper and later)."""

# pyright: basic, reportUnknownParameterType=false, reportAttributeAccessIssue=false
import os
from typing import Any

import torch
import triton
import triton.language as tl


@triton.jit
def wait_for_launch_before(OVERLAP: tl.constexpr):
    """Let the next kernel's programs come, and wait until all that the kernel before has written is there."""
    if OVERLAP:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()


def overlap(device: torch.device) -> dict[str, Any]:
    """The arguments of every launch on `device`."""
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0) and OVERLAPS:
        return {"OVERLAP": True, "launch_pdl": True}
    return {"OVERLAP": False}


OVERLAPS = not os.environ.get("NO_OVERLAP")
