"""The training loop: from a network, a recipe and batches to a run folder, resumable at any moment, bit by bit."""

import os
import signal
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from deepres.records import Json, Run
from deepres.training.batchnorm import group_batch_norm
from deepres.training.compile import compile_blocks
from deepres.training.device import keep_freed_memory
from deepres.training.fast import accelerate
from deepres.training.freeze import set_training
from deepres.training.memory import save_memory
from deepres.training.ranks import ALONE, Ranks
from deepres.training.recipe import Recipe
from deepres.training.trainer import BatchAt, Evaluate, Monitor, Trainer

CHECKPOINT_SECONDS = float(os.environ.get("DEEPRES_CHECKPOINT_SECONDS", "60"))


class StoppedError(Exception):
    """Training was asked to stop (SIGINT, SIGTERM) and did so, after a step and with a checkpoint."""

    def __init__(self, iteration: int, signal_number: int):
        super().__init__(f"stopped after iteration {iteration}; the same command goes on from there")
        self.exit_code = 128 + signal_number


def train(
    net: nn.Module,
    recipe: Recipe,
    batch_at: BatchAt,
    evaluate: Evaluate,
    run: Run,
    monitor: Monitor,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    kernels: bool = False,
    compiled: bool = False,
    memory_budget: float | None = None,
    mean: Tensor | None = None,
    header: Mapping[str, Any] | None = None,
    ranks: Ranks = ALONE,
) -> Json:
    """Train `net` in place to the end of `recipe` and return the final figures, also written as `done.json`.

    `batch_at(i)` gives images (N, C, H, W) and labels (N,) of step i on `device`; `evaluate(net, last)` gives
    test figures in percent, over all test images where `last`. An existing run goes on from its newest whole
    checkpoint and ends with the same bits as one that was never interrupted (same machine, same threads; on GPUs, which
    were not run, by the deterministic ones of the algorithms of cuDNN).
    `mean` and `header` travel with the weights. Several `ranks` each call this with their part of the batches; all
    end with the same weights, and the first one writes. Raises `StoppedError` on SIGINT or SIGTERM (to any rank),
    and `InputError` where the loss is not finite or the disk is full.
    """
    if run.done is not None:
        return run.done
    if ranks.first:
        run.path.mkdir(parents=True, exist_ok=True)
    group_batch_norm(net, recipe.bn_group)
    set_training(net.to(device=device, memory_format=torch.channels_last))  # pyright: ignore[reportCallIssue]
    if device == "cuda":
        torch.backends.cudnn.deterministic = True  # or its gradients are other bits each time
    if device == "cpu" and memory_budget is None:
        keep_freed_memory()
    if kernels:
        accelerate(net)
    if compiled:
        compile_blocks(net)
    if memory_budget is not None:
        _save_memory(net, batch_at(0)[0].chunk(recipe.accumulate)[0], memory_budget, precision, monitor)
    trainer = Trainer(net, recipe, run, device, precision, mean, dict(header or {}), ranks)
    trainer.resume(monitor)
    progress, saved = trainer.progress, time.monotonic()
    with _stop_signals() as caught:
        while progress.iteration < recipe.iterations:
            started = time.monotonic()
            trainer.train_step(*batch_at(progress.iteration))
            stop, due = trainer.agree(caught, time.monotonic() - saved > CHECKPOINT_SECONDS)
            if trainer.at_mark(recipe.window):
                trainer.write_window()
            if progress.iteration == recipe.iterations:
                trainer.average_statistics(batch_at, monitor)
            if trainer.at_mark(recipe.evaluate_every):
                trainer.write_test(evaluate)
            progress.seconds += time.monotonic() - started
            monitor.step(progress.iteration, progress.latest)
            if stop or due or progress.iteration == recipe.iterations:
                trainer.save()
                saved = time.monotonic()
            if stop and progress.iteration < recipe.iterations:
                ranks.barrier()  # a rank that ends takes the others with it, so the checkpoint comes first
                raise StoppedError(progress.iteration, stop[0])
    return trainer.finish()


def _save_memory(net: nn.Module, images: Tensor, budget: float, precision: str, monitor: Monitor) -> None:
    """Cut the network into segments; say how many, what a step keeps then, and where that is too much."""
    kept = save_memory(net, images, int(budget * 2**30), precision)
    cut = f"{kept.segments} segments run twice to save memory" if kept.segments else "no block needs to run twice"
    monitor.say(f"{cut}; a step keeps up to {kept.peak / 2**30:.3g} GiB (activations, gradients, velocity)")
    if kept.peak > budget * 2**30:
        monitor.say(f"that is above the memory budget of {budget:g} GiB, and no cut keeps less; give smaller batches")


@contextmanager
def _stop_signals() -> Generator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying of them; a second one of a kind acts as ever."""
    caught: list[int] = []
    before = {}

    def note(number: int, _: FrameType | None) -> None:
        caught.append(number)
        signal.signal(number, before[number])

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, note)
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
