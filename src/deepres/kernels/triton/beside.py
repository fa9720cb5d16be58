"""What nothing waits for runs beside the other kernels, on a stream of its own."""

from collections.abc import Generator
from contextlib import contextmanager
from functools import cache

import torch


@contextmanager
def beside(device: torch.device) -> Generator[None]:
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
