"""The peak memory of training steps above the memory before them. Only Linux tells it for a part of a process."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from deepres.bench.job import Contestant, Job
from deepres.bench.ours import training_step
from deepres.bench.textbook import train as textbook_step
from deepres.runtime.errors import InputError

PROCESS = Path("/proc/self")
STEPS = 2  # the first one allocates gradients and velocity


def ours(job: Job) -> Contestant:
    """Our training step within the memory budget."""
    return measured(*training_step(job))


def unlimited(job: Job) -> Contestant:
    """The same step without a budget; like a training run without one, it keeps freed memory."""
    return measured(*training_step(dataclasses.replace(job, memory_budget=None)))


def textbook(job: Job) -> Contestant:
    """The training step of stock PyTorch."""
    return measured(textbook_step(job).turn, "fp32 eager, NCHW")


def measured(step: Callable[[], int], setting: str) -> Contestant:
    """A contestant that takes `step` twice; its figure `peak` is in bytes above the memory at the start."""
    if not (PROCESS / "clear_refs").exists():
        raise InputError("the peak of memory can be measured on Linux alone")
    peaks: list[int] = []

    def turn() -> int:
        (PROCESS / "clear_refs").write_text("5", encoding="ascii")  # resets VmHWM, the peak, to the present size
        start = _status("VmRSS")
        images = sum(step() for _ in range(STEPS))
        peaks.append(_status("VmHWM") - start)
        return images

    return Contestant(turn, setting, figures=lambda: {"peak": peaks[-1]})


def _status(name: str) -> int:
    """A line of /proc/self/status in bytes."""
    lines = (PROCESS / "status").read_text(encoding="utf-8", errors="replace").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
