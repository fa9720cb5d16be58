"""Launches that overlap: on Hopper and later a kernel's programs start while those of the kernel before end.

What nothing waits for runs beside the other kernels, on a stream of its own.
"""

# pyright: basic, reportUnknownParameterType=false, reportAttributeAccessIssue=false
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
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


@contextmanager
def beside(device: torch.device) -> Iterator[None]:
    """Launches inside come behind all launches so far, and beside those that follow, up to `join`."""
    if device.type != "cuda" or not BESIDE:
        yield
        return
    side = _side(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        yield


def join(device: torch.device) -> None:
    """What follows comes behind the launches of `beside`."""
    if device.type == "cuda" and BESIDE:
        torch.cuda.current_stream(device).wait_stream(_side(device))


@cache
def _side(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


BESIDE = True
