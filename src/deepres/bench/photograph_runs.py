"""Our training on pictures on disk as `deepres train` runs it on a GPU, and how long the GPU waits for pictures.

A turn is a run of its own: some windows of steps that set up, then those that count, then some on one batch that stays
in memory, which tell the speed that no reading could exceed.
"""

import dataclasses
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from deepres.bench.inputs import our_network
from deepres.bench.job import Contestant, Job
from deepres.classification.recipe import IMAGENET, ClassificationConfig
from deepres.classification.task import classification_task
from deepres.data.stream.index import open_index
from deepres.data.stream.loader import default_workers
from deepres.data.stream.photographs import Decode, Photographs
from deepres.records import Run
from deepres.runtime.errors import silent
from deepres.runtime.ranks import ALONE
from deepres.training.compile import resolve_compile
from deepres.training.loop import train
from deepres.training.trainer import Setup
from deepres.workflows.configure import resolve

WINDOW = 10  # steps
WARM, RESIDENT = 2, 3  # windows before those that count, and after them
TURN_SECONDS = 5.0

Raw = tuple[Tensor, ...]


def run(job: Job, decode: Decode) -> Contestant:
    """Steps of a run of `deepres train` by the recipe `imagenet`, JPEG files being decoded by `decode`."""
    # What the run decides at its start, once.
    recipe = dataclasses.replace(IMAGENET, batch_size=job.batch_size, window=WINDOW)
    compiled = "auto" if job.compile else "off"
    config = ClassificationConfig(
        job.network,
        job.data,
        device=job.device,
        precision=job.precision,
        compile=compiled,
        decode=decode,
        recipe=recipe,
    )
    with tempfile.TemporaryDirectory() as folder:
        config = resolve(config, Run(Path(folder) / "run"), silent)
    task = classification_task(config, open_index(job.data, silent), ALONE, silent)
    compiles = resolve_compile(config, our_network(job), task, silent)
    how = Setup(config.device, config.precision, config.kernels == "on", compiles, job.memory_budget)
    figures: dict[str, float] = {}

    def turn() -> int:
        watched = Watched(cast(Photographs, task.batches), torch.device(job.device))
        clock = _Clock(watched, job.batch_size)
        with tempfile.TemporaryDirectory() as folder:
            try:
                train(
                    our_network(job), recipe, dataclasses.replace(task, batches=watched), Run(Path(folder)), clock, how
                )
            except _OverError:
                pass
            finally:
                watched.close()
        figures.update(clock.figures())
        return clock.images

    decoder = "nvJPEG" if decode == "gpu" else "the processor"
    setting = f"deepres train, {config.precision}, {'compiled' if compiles else 'not compiled'}, JPEG files decoded by "
    return Contestant(turn, f"{setting}{decoder}, {default_workers()} workers", figures=lambda: figures)


class Watched:
    """Training batches, and the seconds that a device waited for them.

    Of a GPU it is the time from the end of a step to the moment when the next batch lies in its memory. After `hold`,
    the newest batch is given again and again.
    """

    def __init__(self, batches: Photographs, device: torch.device):
        self._batches, self._on_gpu = batches, device.type == "cuda"
        self._marks: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._newest: Raw = ()
        self._held = False
        self._seconds = 0.0

    def raw(self, step: int) -> Raw:
        """What the batch of a step follows from."""
        if self._held:
            return self._newest
        start, before = time.perf_counter(), self._mark()
        self._newest = self._batches.raw(step)
        after = self._mark()
        if before is None or after is None:
            self._seconds += time.perf_counter() - start
        else:
            self._marks.append((before, after))
        return self._newest

    def ready(self, raw: Raw) -> tuple[Tensor, Tensor]:
        """The batch that follows from `raw`."""
        return self._batches.ready(raw)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch of a step."""
        return self.ready(self.raw(step))

    def hold(self) -> None:
        """Keep to the newest batch."""
        self._held = True

    def waited(self) -> float:
        """Seconds since the last call, once the device has done its work."""
        seconds = self._seconds + sum(before.elapsed_time(after) for before, after in self._marks) / 1000
        self._marks, self._seconds = [], 0.0
        return seconds

    def close(self) -> None:
        """End the worker processes."""
        self._batches.close()

    def _mark(self) -> torch.cuda.Event | None:
        if not self._on_gpu:
            return None
        mark = torch.cuda.Event(enable_timing=True)
        mark.record()
        return mark


class _OverError(Exception):
    """The turn is over, and with it its run."""


class _Clock:
    """The monitor of a run, which times its windows and ends it. Where a window ends, its figures have been read."""

    def __init__(self, watched: Watched, batch_size: int):
        self.watched, self.size = watched, batch_size
        self.started, self.windows = time.perf_counter(), 0
        self.seconds = self.waited = self.resident = 0.0
        self.counted = self.held = 0  # windows

    @property
    def images(self) -> int:
        """The images of the windows that count."""
        return self.counted * WINDOW * self.size

    def say(self, message: str) -> None:
        """Say nothing."""

    def step(self, iteration: int, row: Mapping[str, Any]) -> None:
        """Add up the window that ends with this step."""
        if iteration % WINDOW:
            return
        spent, waited = time.perf_counter() - self.started, self.watched.waited()
        self.windows += 1
        if self.seconds >= TURN_SECONDS:
            self._resident(spent)
        elif self.windows > WARM:
            self.counted, self.seconds, self.waited = self.counted + 1, self.seconds + spent, self.waited + waited
            if self.seconds >= TURN_SECONDS:
                self.watched.hold()
        self.started = time.perf_counter()

    def figures(self) -> dict[str, float]:
        """Seconds of the windows that count, those of waiting in them, and images a second of a batch in memory."""
        speed = RESIDENT * WINDOW * self.size / self.resident
        return {"seconds": self.seconds, "waited": self.waited, "resident": speed}

    def _resident(self, spent: float) -> None:
        self.resident, self.held = self.resident + spent, self.held + 1
        if self.held == RESIDENT:
            raise _OverError
