"""The training loop: from a network, a recipe and batches to a run folder. It resumes with the same bits."""

import signal
import time

import torch
from torch import nn

from deepres.acceleration import on_gpu
from deepres.acceleration.compiled import compile_blocks
from deepres.acceleration.on_kernels import accelerate
from deepres.acceleration.recomputed import save_memory
from deepres.models.network import Network
from deepres.records import Json, Run
from deepres.runtime import variables
from deepres.runtime.device import keep_freed_memory
from deepres.runtime.ranks import ALONE, Ranks
from deepres.training.batchnorm import group_batch_norm
from deepres.training.freeze import set_training
from deepres.training.recipe import Recipe
from deepres.training.stop import Stopping, stops
from deepres.training.task import AnyTask
from deepres.training.trainer import Monitor, Setup, Trainer

CHECKPOINT_SECONDS = 60.0  # or DEEPRES_CHECKPOINT_SECONDS
PLAIN = Setup()


class StoppedError(Exception):
    """Training was asked to stop (SIGINT, SIGTERM, SIGHUP) and did so, after a step and with a checkpoint."""

    def __init__(self, iteration: int, signal_number: int):
        super().__init__(f"stopped after iteration {iteration}; the same command goes on from there")
        self.exit_code = 128 + signal_number


def train(
    net: Network, recipe: Recipe, task: AnyTask, run: Run, monitor: Monitor, how: Setup = PLAIN, ranks: Ranks = ALONE
) -> Json:
    """Train `net` in place to the end of `recipe`; return the final figures, which are also written as `done.json`.

    An existing run resumes from its newest intact checkpoint. It ends with the same bits as a run that was never
    interrupted, on the same machine with the same number of threads; on a GPU of the same kind (not run yet), unless
    `how.deterministic` is off. Checkpoints hold `net.mean` and `net.header` beside the weights. With several `ranks`,
    each one calls this with a task that gives its part of the batches; all end with the same weights, and the first
    rank writes. Raises `StoppedError` on SIGINT, SIGTERM or SIGHUP (to any rank), and `InputError` where the loss is
    not finite or the disk is full.
    """
    if run.done is not None:
        return run.done
    if ranks.first:
        run.path.mkdir(parents=True, exist_ok=True)
    prepare(net, recipe, how)
    if how.memory_budget is not None:
        _save_memory(net, recipe, task, how, monitor)
    # Resume from a checkpoint, if there is one, and train to the end.
    trainer = Trainer(net, recipe, task, run, how, ranks)
    trainer.resume(monitor)
    if how.device == "cuda" and how.capture:
        trainer.capture(monitor)
    with stops.collected(ranks.world == 1):
        _iterate(trainer, monitor)
    return trainer.finish()


def prepare(net: nn.Module, recipe: Recipe, how: Setup) -> None:
    """Put `net`, in place, on the device and into training mode, and on the kernels or compiled."""
    group_batch_norm(net, recipe.bn_group)
    set_training(net.to(device=how.device, memory_format=torch.channels_last))  # pyright: ignore[reportCallIssue]
    if how.device == "cuda":  # the fastest algorithms give gradients that differ in their bits from run to run
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = how.deterministic, not how.deterministic
    if how.device == "cpu" and how.memory_budget is None:
        keep_freed_memory()
    if how.kernels:
        (on_gpu.accelerate if how.device == "cuda" else accelerate)(net)
    if how.compiled:
        compile_blocks(net)


def _iterate(trainer: Trainer, monitor: Monitor) -> None:
    """Train to the last iteration; save a checkpoint from time to time, and where training is told to stop."""
    # Where training stands, and when a checkpoint was last saved.
    progress, ranks, last = trainer.progress, trainer.ranks, trainer.recipe.iterations
    saved, saved_at = time.monotonic(), progress.iteration
    often = variables.number("DEEPRES_CHECKPOINT_SECONDS", CHECKPOINT_SECONDS)
    while progress.iteration < last or progress.untested:
        trainer.began, asked, due = time.monotonic(), list[int](), False
        # One step, its figures, and a test where one is due.
        try:
            if not progress.untested:  # otherwise a stop interrupted the test of the newest iteration
                with stops.waiting(ranks.world == 1):
                    batch = trainer.batch_at(progress.iteration)
                trainer.train_step(batch)
                asked, due = trainer.agree(stops.caught, time.monotonic() - saved > often)
                if trainer.at_mark(trainer.recipe.window):
                    trainer.write_window()
                progress.untested = trainer.at_mark(trainer.recipe.evaluate_every)
            if progress.untested:
                trainer.test(monitor)
        except Stopping:
            asked = stops.caught or [signal.SIGTERM]  # another rank was told
        progress.seconds += time.monotonic() - trainer.began
        monitor.step(progress.iteration, progress.latest)
        # A checkpoint at the end, after a while, and before stopping.
        complete = progress.iteration == last and not progress.untested
        if complete or due or (asked and progress.iteration > saved_at):
            trainer.save()
            saved, saved_at = time.monotonic(), progress.iteration
        if asked and not complete:
            ranks.barrier()  # a rank that ends ends the others: the checkpoint must be written before
            raise StoppedError(progress.iteration, asked[0])


def _save_memory(net: nn.Module, recipe: Recipe, task: AnyTask, how: Setup, monitor: Monitor) -> None:
    """Recompute segments of `net` to keep to the budget; say how many, and what a step keeps in memory."""
    budget = how.memory_budget or 0.0
    images = task.largest(recipe.accumulate)
    kept = save_memory(net, images, int(budget * 2**30), how.precision, task.rehearse)
    cut = f"{kept.segments} segments run twice to save memory" if kept.segments else "no block needs to run twice"
    monitor.say(f"{cut}; a step keeps up to {kept.peak / 2**30:.3g} GiB (activations, gradients, velocity)")
    if kept.peak > budget * 2**30:
        monitor.say(f"that is above the memory budget of {budget:g} GiB, and no cut keeps less; give smaller batches")
