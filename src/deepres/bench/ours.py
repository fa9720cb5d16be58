"""Our own side: an epoch as `deepres train` runs it, or training steps on a batch in memory."""

import dataclasses
import tempfile
from collections.abc import Callable, Mapping
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepres.acceleration.on_kernels import accelerate, resolve_kernels
from deepres.acceleration.recomputed import save_memory
from deepres.bench.inputs import batch_of, data_of, our_network
from deepres.bench.job import Contestant, Job, is_epoch
from deepres.classification.loss import classification_loss
from deepres.classification.recipe import FAST, ClassificationConfig, ClassificationRecipe, paper_recipe
from deepres.data.augment import CropFlip
from deepres.data.order import Order
from deepres.data.resident_batches import Batches
from deepres.models.catalog import depth
from deepres.records import Run
from deepres.runtime.device import autocast, keep_freed_memory
from deepres.runtime.errors import InputError, silent
from deepres.training.optimizer import SGD
from deepres.workflows.train import train_run


class Silent:
    """A monitor that shows nothing."""

    def step(self, iteration: int, row: Mapping[str, Any]) -> None:
        """Show nothing."""

    def say(self, message: str) -> None:
        """Say nothing."""


def train(job: Job) -> Contestant:
    """An epoch with the test after it, in a run folder with its checkpoint, or a step on a batch in memory."""
    return _epoch(job, paper_recipe(depth(job.network))) if is_epoch(job) else Contestant(*training_step(job))


def fast(job: Job) -> Contestant:
    """An epoch by our recipe `fast`, which shows what its iterations cost beside those of the paper's recipe."""
    if not is_epoch(job):
        raise InputError(f"the recipe fast takes part in epochs alone (of resnet20, for example), not in {job.network}")
    return _epoch(job, FAST)


def _epoch(job: Job, recipe: ClassificationRecipe) -> Contestant:
    """A run of `recipe` over one epoch."""
    # The recipe for so many steps, with one test at the end.
    data = data_of(job)
    steps = -(-len(data.train) // job.batch_size)
    recipe = dataclasses.replace(recipe, batch_size=job.batch_size).scaled(steps)
    recipe = dataclasses.replace(recipe, window=min(100, steps), evaluate_every=steps, milestones=())
    # Blocks run on our kernels where they can, otherwise compiled.
    kernels, runs_on = _kernels()
    compiled = "off" if kernels or not job.compile else "on"
    config = ClassificationConfig(job.network, job.data, precision=job.precision, compile=compiled, recipe=recipe)

    def epoch() -> int:
        with tempfile.TemporaryDirectory() as folder:
            train_run(config, Run(Path(folder) / "run"), data, Silent())
        return steps * job.batch_size

    named = ", recipe fast" if recipe.name == FAST.name else ""
    return Contestant(epoch, f"deepres train, {job.precision}, {'compiled' if compiled == 'on' else runs_on}{named}")


def _kernels() -> tuple[bool, str]:
    """Whether this machine runs our kernels, and what blocks run on."""
    kernels = resolve_kernels("auto", "cpu", 0, silent)
    return kernels, "kernels" if kernels else "eager"


def training_step(job: Job) -> tuple[Callable[[], int], str]:
    """A step on a batch in memory, within the memory budget of the job if it has one, and what it runs on."""
    images, labels = batch_of(job)
    images = images.contiguous(memory_format=torch.channels_last)
    step, setting = make_step(job, images)
    return lambda: step(images, labels), setting


def make_step(job: Job, images: Tensor) -> tuple[Callable[[Tensor, Tensor], int], str]:
    """A function that takes a training step on a batch of the shape of `images`, and what it runs on."""
    # Prepare the network for our kernels and the memory budget.
    net = our_network(job).train().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    kernels, runs_on = _kernels()
    if kernels:
        accelerate(net)
    if job.memory_budget is None:
        keep_freed_memory()
    else:
        segments = save_memory(net, images, int(job.memory_budget * 2**30), job.precision).segments
        runs_on += f", a budget of {job.memory_budget:g} GiB ({segments} segments)"
    optimizer = SGD(net.parameters(), 0.9, 1e-4)

    def step(images: Tensor, labels: Tensor) -> int:
        with autocast(job.precision, "cpu"):
            outputs = net(images)
        _, loss = classification_loss(outputs, labels)
        loss.backward()
        optimizer.step_at(0.1)
        return len(images)

    return step, f"{job.precision}, channels-last, {runs_on}"


def load_batches(job: Job) -> Contestant:
    """The batches of an epoch, each new turn the next ones."""
    data = data_of(job)
    batches = Batches(data.train, data.mean(), Order(0, job.batch_size), torch.device("cpu"), CropFlip())
    steps, numbers = -(-len(data.train) // job.batch_size), count()

    def epoch() -> int:
        for step in islice(numbers, steps):
            batches.batch(step)
        return steps * job.batch_size

    return Contestant(epoch, "whole batches out of the resident set")
