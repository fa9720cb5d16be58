"""Our training as `deepres train` runs it, timed while it goes on: a turn is some windows of steps of one long run.

The run has the paper's recipe. It is begun once, with all that a run decides and prepares at its start, and stands
still between the turns. The time of a turn is that of whole windows, whose figures the host has read, without tests.
"""

import dataclasses
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepres.bench.inputs import TURN_SECONDS, batch_of, data_of, our_network, release
from deepres.bench.job import Contestant, Job, is_resident
from deepres.bench.turns import Turns
from deepres.classification.loss import classification_loss
from deepres.classification.recipe import ClassificationConfig, ClassificationRecipe, paper_recipe
from deepres.models.catalog import depth
from deepres.records import Json, Run
from deepres.training.compile import resolve_compile
from deepres.training.loop import train as train_loop
from deepres.training.trainer import Setup
from deepres.workflows.configure import resolve
from deepres.workflows.train import train_run

WARM_WINDOWS = 2  # of the run, before the first turn
STEP_WINDOW = 10  # steps of a window where a step takes long, as at 224 pixels


def train(job: Job) -> Contestant:
    """Steps of a run on resident images, or of the same loop on a batch in memory."""

    def work(turns: Turns) -> None:
        with tempfile.TemporaryDirectory() as folder:
            run, begun = Run(Path(folder) / "run"), time.perf_counter()
            try:
                (_resident if is_resident(job) else _on_a_batch)(job, run, turns, begun)
            except _OverError:
                return

    return Contestant(lambda: 0, "", work=work)


def config_of(job: Job, recipe: ClassificationRecipe) -> ClassificationConfig:
    """The configuration of the run; nothing but the job's own fields differs from what `deepres train` takes."""
    compiled = "auto" if job.compile else "off"
    return ClassificationConfig(
        job.network, job.data, device=job.device, precision=job.precision, compile=compiled, recipe=recipe
    )


def _resident(job: Job, run: Run, turns: Turns, begun: float) -> None:
    """`deepres train` on the data set of the job."""
    recipe = dataclasses.replace(paper_recipe(depth(job.network)), batch_size=job.batch_size)
    data = data_of(job)

    def setting() -> str:
        return f"deepres train, {_told(run.config)}"

    train_run(config_of(job, recipe), run, data, Clock(job, recipe, turns, setting, begun))


def _on_a_batch(job: Job, run: Run, turns: Turns, begun: float) -> None:
    """The training loop of `deepres train` on one batch in memory."""
    recipe = dataclasses.replace(
        paper_recipe(50), batch_size=job.batch_size, window=STEP_WINDOW, warmup="none", evaluate_every=64_000
    )
    said: list[str] = []
    config = resolve(config_of(job, recipe), run, said.append)
    net, task = our_network(job), InMemory(*batch_of(job))
    compiled = resolve_compile(config, net, task, said.append)
    how = Setup(device=config.device, precision=config.precision, kernels=config.kernels == "on", compiled=compiled)
    facts: Json = {"precision": config.precision, "kernels": config.kernels, "compile": "on" if compiled else "off"}
    monitor = Clock(job, recipe, turns, lambda: f"the loop of deepres train, {_told(facts)}", begun)
    train_loop(net, recipe, task, run, monitor, how)


def _told(config: Json) -> str:
    """What a run decided, in a few words."""
    said = {"kernels": "our kernels", "compile": "blocks compiled"}
    on = [said[name] for name in said if config.get(name) == "on"] or ["eager"]
    return ", ".join([config["precision"], *on])


class InMemory:
    """A task of the training loop: one batch of images (N, C, H, W) and labels (N,) in memory, and no test."""

    figures: tuple[str, ...] = ("train_error",)
    watched: str | None = None

    def __init__(self, images: Tensor, labels: Tensor):
        self.batch = images.contiguous(memory_format=torch.channels_last), labels
        self.nothing = torch.zeros(1, device=images.device)

    def raw_at(self, step: int) -> tuple[Tensor, ...]:
        """What the batch of a step follows from: nothing, since it is always the same."""
        return (self.nothing,)

    def ready(self, raw: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """The batch."""
        return self.batch

    def batch_at(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch of a step."""
        return self.ready(self.raw_at(step))

    def split(self, batch: tuple[Tensor, Tensor], parts: int) -> Sequence[tuple[Tensor, Tensor]]:
        """The batch as micro-batches."""
        return list(zip(*(values.chunk(parts) for values in batch), strict=True))

    def images(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """The images of a batch."""
        return batch[0]

    def largest(self, parts: int) -> Tensor:
        """The images of a micro-batch."""
        return self.split(self.batch, parts)[0][0]

    def rehearse(self, net: nn.Module, images: Tensor) -> Tensor:
        """The scores."""
        return net(images)

    def loss(self, net: nn.Module, part: tuple[Tensor, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The cross-entropy, and the training error in percent."""
        logits, loss = classification_loss(net(part[0]), part[1])
        return loss, {"train_error": 100 * (logits.detach().argmax(1) != part[1]).float().mean()}

    def evaluate(self, net: nn.Module, last: bool) -> Mapping[str, float]:
        """Nothing is tested."""
        return {}


class _OverError(Exception):
    """The contest is over, and with it the run."""


class Clock:
    """The monitor of the run: it adds up the windows of a turn, answers it, and waits for the next one."""

    def __init__(self, job: Job, recipe: ClassificationRecipe, turns: Turns, setting: Any, begun: float):
        self.job, self.recipe, self.turns, self.setting, self.begun = job, recipe, turns, setting, begun
        self.said: list[str] = []
        self.started = time.perf_counter()  # of the window under way
        self.windows = self.seconds = self.tests = 0.0
        self.measures = False

    def say(self, message: str) -> None:
        """Keep what the run says of its start."""
        self.said.append(message)

    def step(self, iteration: int, row: Mapping[str, Any]) -> None:
        """Note the time where a window ends; there, its figures were read, so that the device has done its work."""
        if iteration % self.recipe.window:
            return
        spent = time.perf_counter() - self.started
        if iteration % self.recipe.evaluate_every == 0:
            self.tests += spent
        else:
            self.windows, self.seconds = self.windows + 1, self.seconds + spent
        if not self.measures and iteration >= WARM_WINDOWS * self.recipe.window:
            self._begin()
        elif self.measures and self.windows and self.seconds >= TURN_SECONDS:
            self._end()
        self.started = time.perf_counter()

    def _begin(self) -> None:
        """Say that the run has begun, and how long that took."""
        release(self.job.device)
        start = time.perf_counter() - self.begun
        self.turns.answer({"setting": self.setting(), "facts": {"start": start, "told": "; ".join(self.said)}})
        self.measures = True
        self._wait()

    def _end(self) -> None:
        """Answer the turn."""
        images = int(self.windows) * self.recipe.window * self.recipe.batch_size
        self.turns.answer({"seconds": self.seconds, "images": images})
        self._wait()

    def _wait(self) -> None:
        self.windows = self.seconds = self.tests = 0.0
        if not self.turns.asked():
            raise _OverError
