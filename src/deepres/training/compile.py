"""Decide whether a run compiles its blocks: only where that is possible and makes the whole run shorter."""

import copy
import os
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from deepres.acceleration.compiled import compile_blocks
from deepres.models.blocks import Block
from deepres.runtime.device import autocast
from deepres.runtime.errors import InputError, Say
from deepres.training.batchnorm import group_batch_norm
from deepres.training.captured import StaticStep
from deepres.training.config import Config
from deepres.training.task import AnyTask, StaticTask

COMPILE = ("auto", "on", "off")
# Six graphs (a CIFAR net) take about a minute on two cores and save a third of a step at best.
LEAST_SECONDS = {"cpu": 180.0, "cuda": 120.0}
TIMED_STEPS = 3
REPLAYS = 10  # of a captured step that are timed together


def resolve_compile(config: Config, net: nn.Module, task: AnyTask, say: Say) -> bool:
    """Whether a run compiles its blocks; with `auto`, it does where that makes the whole run shorter.

    Training steps are timed on a copy of `net`, so that neither `net` nor the random state changes. No other value of
    `config` may be `auto`. `say` is told what was measured, or why compiling is not possible. Raises `InputError`
    for an unknown value, and for `on` where compiling is not possible.
    """
    if config.compile not in COMPILE:
        raise InputError(f"unknown value {config.compile!r} of compile; give one of {', '.join(COMPILE)}")
    # Some settings exclude compiling.
    conflict = _conflict(config, net)
    if config.compile == "off" or (config.compile == "auto" and conflict):
        return False
    if conflict:
        raise InputError(conflict)
    # Try it on a copy of the network.
    try:
        with torch.random.fork_rng(devices=[]):  # a step draws no random numbers on a GPU
            return _try_on(config, net, task, say)
    except CannotCompileError as error:
        if config.compile == "on":
            raise InputError(f"the network cannot be compiled: {error}; mend that, or give --compile off") from None
        say(f"the network cannot be compiled: {error}; going on without, which may take longer")
        return False


class CannotCompileError(Exception):
    """Compiling is not possible on this machine; the message says why."""


def _conflict(config: Config, net: nn.Module) -> str | None:
    """A sentence about the setting of `config` that excludes compiling; None where there is none."""
    if config.kernels == "on":
        return "kernels and compile cannot both be on, since both replace the blocks; turn one of them off"
    if config.memory_budget is not None:
        return "compile cannot be on with a memory budget, which counts what uncompiled blocks keep; leave one out"
    if not any(isinstance(module, Block) for module in net.modules()):
        return f"{config.network} has no blocks to compile; leave compile out"
    if config.device not in ("cpu", "cuda"):
        return f"compile can be on for --device cpu and cuda alone, not for {config.device}; leave it out"
    return None


def _try_on(config: Config, net: nn.Module, task: AnyTask, say: Say) -> bool:
    """Compile and train a copy of `net` for a few steps; with `auto`, False where compiling does not save time."""
    # A copy of the network.
    steps = config.recipe.iterations * config.recipe.accumulate
    trial = copy.deepcopy(net)
    group_batch_norm(trial, config.recipe.bn_group)
    trial.to(device=config.device, memory_format=torch.channels_last).train()  # pyright: ignore[reportCallIssue]
    # Steps without compiling; a short run cannot win back the time that compiling takes.
    eager = 0.0
    if config.compile == "auto":
        seconds, least = _timer(config, trial, task), LEAST_SECONDS[config.device]
        if steps * seconds() < least:  # the first step is the slowest: enough for a short run
            return False
        eager = min(seconds() for _ in range(TIMED_STEPS))
        if steps * eager < least:
            return False
    # The first compiled step compiles; the later ones tell the speed.
    _require_compiler(config.device)
    compile_blocks(trial)
    started = time.monotonic()
    try:
        seconds = _timer(config, trial, task)
        seconds()
    except RuntimeError as error:  # raised by the compiler and by PyTorch
        raise CannotCompileError(_cause(error)) from error
    compiling = time.monotonic() - started
    if config.compile == "on":
        return True
    compiled = min(seconds() for _ in range(TIMED_STEPS))
    pays = compiling + steps * compiled < steps * eager
    say(
        f"a step takes {compiled:.3g} s compiled and {eager:.3g} s otherwise, compiling {compiling:.0f} s: "
        f"training goes on {'compiled' if pays else 'without'}"
    )
    return pays


def _timer(config: Config, trial: nn.Module, task: AnyTask) -> Callable[[], float]:
    """A function that trains `trial` by a step on one micro-batch, without an update, and returns the seconds taken.

    On a GPU the step is captured first, as training does: eager steps would show the time that launches take.
    """
    device = config.device

    def step(batch: Any) -> None:
        part = task.split(batch, config.recipe.accumulate)[0]
        with autocast(config.precision, device):
            loss, _ = task.loss(trial, part)
        loss.backward()
        for parameter in trial.parameters():
            parameter.grad = None

    if device == "cuda" and config.capture and isinstance(task, StaticTask):
        static = StaticStep(lambda raw: step(task.ready(raw)), [*trial.parameters(), *trial.buffers()], task.raw_at(0))
        return partial(_seconds, static, static.raw, device, REPLAYS)
    return partial(_seconds, step, task.batch_at(0), device, 1)


def _seconds(step: Callable[[Any], None], batch: Any, device: str, turns: int) -> float:
    """The seconds of one of `turns` steps on `batch`."""
    started = time.monotonic()
    for _ in range(turns):
        step(batch)
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.monotonic() - started) / turns


def _require_compiler(device: str) -> None:
    """Raise `CannotCompileError` where PyTorch finds no compiler for the code that it generates."""
    if device == "cuda" and find_spec("triton") is None:
        raise CannotCompileError("triton is not installed")
    name = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")  # where PyTorch looks for it
    if device == "cpu" and shutil.which(name) is None:
        raise CannotCompileError(f"no C++ compiler was found ({name}, or CXX)")


def _cause(error: RuntimeError) -> str:
    """The first line of the compiler's output with "error:" in it, otherwise its first line."""
    lines = str(error).splitlines()
    return next((line for line in lines if "error:" in line), lines[0] if lines else type(error).__name__).strip()
