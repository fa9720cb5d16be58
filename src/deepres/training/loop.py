"""The training loop: from a network, a recipe and batches to a run folder, resumable at any moment, bit by bit."""

import math
import os
import signal
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from deepres.errors import InputError
from deepres.models import weights as weights_file
from deepres.models.convert import load_state
from deepres.records import Json, Run, append_line, cut_after, write_json
from deepres.training import checkpoint
from deepres.training.batchnorm import group_batch_norm
from deepres.training.compile import compile_blocks
from deepres.training.device import autocast, keep_freed_memory
from deepres.training.fast import accelerate
from deepres.training.loss import classification_loss
from deepres.training.memory import save_memory
from deepres.training.optimizer import SGD
from deepres.training.ranks import ALONE, Ranks
from deepres.training.recipe import Recipe
from deepres.training.schedule import rate

BatchAt = Callable[[int], tuple[Tensor, Tensor]]
Evaluate = Callable[[nn.Module, bool], Mapping[str, float]]
CHECKPOINT_SECONDS = float(os.environ.get("DEEPRES_CHECKPOINT_SECONDS", "60"))


class StoppedError(Exception):
    """Training was asked to stop (SIGINT, SIGTERM) and did so, after a step and with a checkpoint."""

    def __init__(self, iteration: int, signal_number: int):
        super().__init__(f"stopped after iteration {iteration}; the same command goes on from there")
        self.exit_code = 128 + signal_number


class Monitor(Protocol):
    """Who is told how the training goes on (a progress bar, plain lines)."""

    def step(self, iteration: int, row: Mapping[str, Any]) -> None:
        """One iteration is done; `row` holds the newest figures."""
        ...

    def say(self, message: str) -> None:
        """Something a person should know."""
        ...


@dataclass
class Progress:
    """The loop's own state: with the weights and the velocity, all that a resume needs."""

    losses: Tensor  # of the unfinished window, on the device of the network
    wrong: Tensor
    iteration: int = 0
    warm: bool = False
    seconds: float = 0.0
    latest: dict[str, float] = field(default_factory=dict[str, float])


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
    checkpoint and ends with the same bits as one that was never interrupted (same machine, same threads).
    `mean` and `header` travel with the weights. Several `ranks` each call this with their part of the batches; all
    end with the same weights, and the first one writes. Raises `StoppedError` on SIGINT or SIGTERM (to any rank),
    and `InputError` where the loss is not finite or the disk is full.
    """
    if run.done is not None:
        return run.done
    if ranks.first:
        run.path.mkdir(parents=True, exist_ok=True)
    group_batch_norm(net, recipe.bn_group)
    net.to(device=device, memory_format=torch.channels_last).train()  # pyright: ignore[reportCallIssue]
    if device == "cpu" and memory_budget is None:
        keep_freed_memory()
    if kernels:
        accelerate(net)
    if compiled:
        compile_blocks(net)
    if memory_budget is not None:
        _save_memory(net, batch_at(0)[0], memory_budget, monitor)
    trainer = _Trainer(net, recipe, run, device, precision, mean, dict(header or {}), ranks)
    trainer.resume(monitor)
    progress, saved = trainer.progress, time.monotonic()
    with _stop_signals() as caught:
        while progress.iteration < recipe.iterations:
            started = time.monotonic()
            trainer.train_step(*batch_at(progress.iteration))
            stop, due = trainer.agree(caught, time.monotonic() - saved > CHECKPOINT_SECONDS)
            if trainer.at_mark(recipe.window):
                trainer.write_window()
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


def _save_memory(net: nn.Module, images: Tensor, budget: float, monitor: Monitor) -> None:
    """Cut the network into segments, and say how many."""
    count = save_memory(net, images, int(budget * 2**30))
    monitor.say(f"{count} segments run twice to save memory" if count else "all activations fit the memory budget")


class _Trainer:
    """The steps of the loop over one shared state."""

    def __init__(
        self,
        net: nn.Module,
        recipe: Recipe,
        run: Run,
        device: str,
        precision: str,
        mean: Tensor | None,
        header: dict[str, Any],
        ranks: Ranks,
    ):
        self.net, self.recipe, self.run, self.ranks = net, recipe, run, ranks
        self.parallel = ranks.wrap(net)
        self.statistics = [buffer for buffer in net.buffers() if buffer.is_floating_point()]
        self.device, self.precision, self.mean, self.header = device, precision, mean, header
        self.optimizer = SGD(net.parameters(), recipe.momentum, recipe.weight_decay, recipe.nesterov)
        empty = torch.zeros(recipe.window, device=device)
        self.progress = Progress(losses=empty, wrong=empty.clone())
        self.folder = run.path / "checkpoints"

    def at_mark(self, every: int) -> bool:
        """Whether the iteration just done is a multiple of `every`, or the last one."""
        return self.progress.iteration % every == 0 or self.progress.iteration == self.recipe.iterations

    def train_step(self, images: Tensor, labels: Tensor) -> None:
        """Forward, backward, update; loss and error stay on the device until their window ends."""
        with autocast(self.precision, self.device):
            outputs = self.parallel(images)
        scores, loss = classification_loss(outputs, labels, self.recipe.label_smoothing)
        loss.backward()
        slot = self.progress.iteration % self.recipe.window
        self.progress.losses[slot] = loss.detach()
        self.progress.wrong[slot] = (scores.detach().argmax(1) != labels).float().mean()
        self.optimizer.step_at(rate(self.recipe, self.progress.iteration, warm=self.progress.warm))
        self.progress.iteration += 1

    def agree(self, caught: Sequence[int], due: bool) -> tuple[Sequence[int], bool]:
        """Average the step's figures and the running statistics over the ranks; see `Ranks.agree`."""
        slot = (self.progress.iteration - 1) % self.recipe.window
        figures = [self.progress.losses[slot], self.progress.wrong[slot]]
        answer = self.ranks.agree([*figures, *self.statistics], caught, due)
        if self.device == "cpu":  # elsewhere it would make every step wait for the device
            self.check_finite()
        return answer

    def check_finite(self) -> None:
        """Stop the run where a loss of the window at hand is not finite."""
        last = self.progress.iteration - 1
        first = last // self.recipe.window * self.recipe.window
        bad = (~torch.isfinite(self.progress.losses[: last - first + 1])).nonzero()
        if len(bad):
            iteration = first + int(bad[0])
            lr = rate(self.recipe, iteration, warm=self.progress.warm)
            raise InputError(
                f"the loss is not finite at iteration {iteration} (rate {lr:g}) of {self.run.path}; last good "
                f"checkpoint: {checkpoint.newest(self.folder)}; lower the rate or add a warm-up"
            )

    def write_window(self) -> None:
        """Training error and loss over the window that ends here; ends the warm-up when the error is low enough."""
        progress, recipe = self.progress, self.recipe
        count = progress.iteration % recipe.window or recipe.window
        self.check_finite()
        error = 100 * progress.wrong[:count].double().mean().item()
        loss = progress.losses[:count].double().mean().item()
        row = {"iteration": progress.iteration, "train_error": error, "train_loss": loss}
        lr = rate(recipe, progress.iteration - 1, warm=progress.warm)
        if self.ranks.first:
            append_line(self.run.path / "metrics.jsonl", row | {"lr": lr})
        progress.latest |= row
        progress.warm = progress.warm or error < recipe.warmup_error

    def write_test(self, evaluate: Evaluate) -> None:
        """Test error now."""
        progress = self.progress
        self.net.eval()
        with torch.no_grad():
            figures = dict(evaluate(self.net, progress.iteration == self.recipe.iterations))
        self.net.train()
        progress.latest |= figures
        if not self.ranks.first:
            return
        append_line(self.run.path / "metrics.jsonl", {"iteration": progress.iteration} | figures)
        timing = {"iteration": progress.iteration, "seconds": round(progress.seconds, 3)}
        append_line(self.run.path / "timing.jsonl", timing)

    def save(self) -> None:
        """Write a checkpoint of this moment."""
        progress = self.progress
        self.check_finite()
        if not self.ranks.first:
            return
        header = self.header | {"iteration": progress.iteration}
        weights = weights_file.serialise(self.net.state_dict(), self.mean, header)
        optimizer = {"velocity": self.optimizer.velocity, "lr": self.optimizer.lr}
        state = vars(progress) | optimizer | {"random": torch.get_rng_state()}
        checkpoint.save(self.folder, progress.iteration, weights, state)

    def resume(self, monitor: Monitor) -> None:
        """Go on from the newest whole checkpoint, if there is one; drop what was recorded after it."""
        saved = checkpoint.load_latest(self.folder, monitor.say)
        if saved is not None:
            load_state(self.net, saved.weights.state)
            state = dict(saved.state)
            self.optimizer.restore(state.pop("lr"), state.pop("velocity"))
            torch.set_rng_state(state.pop("random"))
            for name, value in state.items():
                setattr(self.progress, name, value.to(self.device) if isinstance(value, Tensor) else value)
            monitor.say(f"going on from iteration {self.progress.iteration}")
        if not self.ranks.same(self.progress.iteration):
            raise InputError(
                f"the ranks find different checkpoints in {self.run.path}; put it where all machines see it"
            )
        if not self.ranks.first:
            return
        for name in ("metrics.jsonl", "timing.jsonl"):
            if (self.run.path / name).exists():
                cut_after(self.run.path / name, self.progress.iteration)

    def finish(self) -> Json:
        """Write the `done` mark with the final figures: the last ones, never the best."""
        progress = self.progress
        images = progress.iteration * self.recipe.batch_size
        speed = images / progress.seconds if progress.seconds else math.nan
        done = {"iteration": progress.iteration} | progress.latest
        done |= {"seconds": round(progress.seconds, 1), "images_per_second": round(speed, 1)}
        if self.ranks.first:
            write_json(self.run.path / "done.json", done)
        self.ranks.barrier()
        return done


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
