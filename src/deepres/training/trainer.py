"""The trainer: the steps of the training loop, with the state that checkpoints hold."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast

import torch
from numpy import uint64
from numpy.random import SeedSequence
from torch import Tensor

from deepres.models.network import Network
from deepres.records import DIGEST, DONE, METRICS, RECORDS, TIMING, Json, Run, append_line, digest, flush, write_json
from deepres.runtime.device import autocast
from deepres.runtime.errors import InputError, reason_of
from deepres.runtime.figures import LARGER_IS_BETTER
from deepres.runtime.ranks import Ranks
from deepres.training.batchnorm import average_statistics
from deepres.training.captured import StaticStep
from deepres.training.freeze import set_training
from deepres.training.optimizer import optimizer_for
from deepres.training.recipe import Recipe
from deepres.training.resume import Progress, in_todays_form, take_records, unfit
from deepres.training.schedule import rate
from deepres.training.stop import Stopping
from deepres.training.task import AnyTask, StaticTask
from deepres.weights import checkpoint
from deepres.weights import file as weights_file
from deepres.weights.state import load_state

WARMUP_FIGURE = "train_error"  # the figure that ends the warm-up `error`


class Monitor(Protocol):
    """A progress bar, or plain lines, that show how training goes on."""

    def step(self, iteration: int, row: Mapping[str, Any]) -> None:
        """Called after each iteration; `row` holds the newest figures."""

    def say(self, message: str) -> None:
        """Show a message."""


@dataclass(frozen=True)
class Setup:
    """Where and how a network is trained: beyond rounding it does not change what is computed. Nothing is `auto`."""

    device: str = "cpu"
    precision: str = "fp32"
    kernels: bool = False  # residual blocks run on the project's own kernels
    compiled: bool = False  # blocks are compiled by PyTorch
    memory_budget: float | None = None  # GiB for activations, gradients and velocity; blocks are recomputed to keep it
    capture: bool = True  # on a GPU, the whole step is captured as a CUDA graph where the task allows it
    deterministic: bool = True  # on a GPU, algorithms that give the same bits in every run


class Trainer:
    """The steps of the training loop over one shared state."""

    def __init__(self, net: Network, recipe: Recipe, task: AnyTask, run: Run, how: Setup, ranks: Ranks):
        self.net, self.recipe, self.task, self.run, self.ranks = net, recipe, task, run, ranks
        self.device, self.precision = how.device, how.precision
        self.parallel = ranks.wrap(net)
        # The running statistics that change: those of frozen stages do not.
        changing = [module for module in net.modules() if module.training]
        buffers = [buffer for module in changing for buffer in module.buffers(recurse=False)]
        self.statistics = [buffer for buffer in buffers if buffer.is_floating_point()]
        self.optimizer = optimizer_for(net.parameters(), recipe)
        self.progress = Progress(torch.zeros(1 + len(task.figures), recipe.window, device=self.device))
        self.column = torch.zeros(1, dtype=torch.int64, device=self.device)  # of the window, for the next step
        self.folder = run.path / "checkpoints"
        self.static = False  # the step takes what it needs from tensors that stay where they are
        self.captured: StaticStep | None = None
        self.began = time.monotonic()  # the present iteration

    def at_mark(self, every: int) -> bool:
        """Whether the iteration just done is a multiple of `every`, or the last one."""
        return self.progress.iteration % every == 0 or self.progress.iteration == self.recipe.iterations

    def batch_at(self, step: int) -> Any:
        """The batch of a step, or what it follows from where steps are captured."""
        return self.task.batch_at(step) if self.captured is None else cast(StaticTask, self.task).raw_at(step)

    def capture(self, monitor: Monitor) -> None:
        """Capture the step as a CUDA graph where the task allows it; say how long that took, or why it cannot be."""
        task = self.task
        if not isinstance(task, StaticTask):
            return
        self.static = True
        changes = [*self.net.parameters(), *self.net.buffers(), *self.optimizer.velocity]
        state, started = [*changes, self.progress.window, self.column], time.monotonic()
        raw = task.raw_at(self.progress.iteration)
        try:
            self.captured = StaticStep(lambda raw: self.compute(task.ready(raw)), state, raw, self.ranks.world > 1)
        except RuntimeError as error:
            self.static = False
            cause: BaseException = error
            while cause.__context__ is not None:  # the first error, which ended the capture
                cause = cause.__context__
            monitor.say(f"the step cannot be captured as a CUDA graph: {reason_of(cause)}; going on without")
        else:
            monitor.say(
                f"the step is captured as a CUDA graph, {time.monotonic() - started:.1f} s to warm up and capture"
            )

    def train_step(self, batch: Any) -> None:
        """Forward, backward, update. The loss and the figures stay on the device until their window ends."""
        # Each rank seeds its dropout by the step and its number: else dropout would be the same on all ranks.
        if self.ranks.world > 1:
            place = (int(self.net.header.get("seed", 0)), self.progress.iteration, self.ranks.rank)
            torch.manual_seed(int(SeedSequence(place).generate_state(1, uint64)[0]) % 2**63)
        self.optimizer.set_rate(self.rate(self.progress.iteration))
        (self.compute if self.captured is None else self.captured)(batch)
        self.progress.iteration += 1

    def compute(self, batch: Any) -> None:
        """The part of a step that the device does: no value comes to the processor, so that it can be captured."""
        count, figures = self.recipe.accumulate, self.task.figures
        own = torch.zeros(1 + len(figures), device=self.device)
        # Add up gradients over the micro-batches; the ranks exchange them with the last one.
        for number, part in enumerate(self.task.split(batch, count), 1):
            with self.ranks.exchange(self.parallel, number == count):
                with autocast(self.precision, self.device):
                    loss, found = self.task.loss(self.parallel, part)
                loss = loss / count
                loss.backward()
            own += torch.stack([loss.detach(), *(found[name].detach() / count for name in figures)])
        self.optimizer.step()
        # A step that is captured exchanges all that the ranks average; others do so with their flags, see `agree`.
        if self.static:
            self.ranks.average([own, *self.statistics])
        # Put the figures into their column of the window.
        self.progress.window.index_copy_(1, self.column, own[:, None])
        self.column.add_(1).remainder_(self.recipe.window)

    def rate(self, iteration: int) -> float:
        """The learning rate of step `iteration` at the present state of warm-up and plateaus."""
        return rate(self.recipe, iteration, warm=self.progress.warm, drops=self.progress.drops)

    def agree(self, caught: Sequence[int], due: bool) -> tuple[Sequence[int], bool]:
        """Average the figures of the last step and the running statistics over the ranks; see `Ranks.agree`."""
        newest = self.progress.window[:, (self.progress.iteration - 1) % self.recipe.window]
        averaged = [] if self.static else [newest, *self.statistics]
        answer = self.ranks.agree(averaged, caught, due)
        if self.device == "cpu":  # on a GPU it would make every step wait for the device
            self.check_finite()
        return answer

    def check_finite(self) -> None:
        """Raise `InputError` where a loss of the current window is not finite."""
        last = self.progress.iteration - 1
        first = last // self.recipe.window * self.recipe.window
        bad = (~torch.isfinite(self.progress.window[0, : last - first + 1])).nonzero()
        if len(bad):
            iteration = first + int(bad[0])
            raise self.diverged(f"the loss is not finite at iteration {iteration} (rate {self.rate(iteration):g})")

    def diverged(self, what: str) -> InputError:
        """The error of a run whose loss or weights are not finite."""
        last_good = f"last good checkpoint: {checkpoint.newest(self.folder)}"
        return InputError(f"{what} of {self.run.path}; {last_good}; lower the rate or add a warm-up")

    def write_window(self) -> None:
        """Record the means over the window that ends here, and the learning rate; a low error ends the warm-up."""
        # Means over the window, which at the last iteration may be shorter.
        progress, recipe = self.progress, self.recipe
        count = progress.iteration % recipe.window or recipe.window
        self.check_finite()
        loss, *figures = (row.mean().item() for row in progress.window[:, :count].cpu().double())
        means = dict(zip(self.task.figures, figures, strict=True))
        row = {"iteration": progress.iteration, **means, "train_loss": loss}
        # The learning rate is that of the last step, before the warm-up may end.
        if self.ranks.first:
            append_line(self.run.path / METRICS, row | {"lr": self.rate(progress.iteration - 1)})
            self.write_time()
        progress.latest |= row
        progress.warm = progress.warm or row.get(WARMUP_FIGURE, math.inf) < recipe.warmup_error

    def test(self, monitor: Monitor) -> None:
        """Test the network and record the figures; at the last iteration, test it with averaged BN statistics.

        A stop during the test puts the network back as it was: a resumed run averages and tests again.
        """
        progress = self.progress
        last = progress.iteration == self.recipe.iterations
        running, random = [buffer.clone() for buffer in self.net.buffers()], self.random()
        # Test, in evaluation mode.
        try:
            if last:
                with autocast(self.precision, self.device):
                    average_statistics(self.net, self.recipe, self.task, self.ranks, monitor.say)
                self.ranks.average(self.statistics if self.recipe.bn_average else [])
            self.net.eval()
            with torch.no_grad():
                figures = dict(self.task.evaluate(self.net, last))
        except Stopping:
            for buffer, before in zip(self.net.buffers(), running, strict=True):
                buffer.copy_(before)
            self.set_random(random)
            raise
        finally:
            set_training(self.net)
        # Record the figures; they may lower the learning rate.
        progress.untested = False
        progress.latest |= figures
        if self.recipe.decay == "plateau" and self.task.watched is not None:
            value = figures[self.task.watched]
            self.note_plateau(-value if self.task.watched in LARGER_IS_BETTER else value)
        if not self.ranks.first:
            return
        append_line(self.run.path / METRICS, {"iteration": progress.iteration} | figures)
        self.write_time()

    def write_time(self) -> None:
        """Record the seconds of work up to now. A second row of an iteration stands behind its test."""
        seconds = self.progress.seconds + time.monotonic() - self.began
        append_line(self.run.path / TIMING, {"iteration": self.progress.iteration, "seconds": round(seconds, 3)})

    def note_plateau(self, error: float) -> None:
        """Count the tests since the least `error`; after `patience` of them the learning rate drops (Sec. 3.4)."""
        progress = self.progress
        if error < progress.best - self.recipe.threshold:
            progress.best, progress.tests = error, 0
            return
        progress.tests += 1
        if progress.tests == self.recipe.patience:
            progress.tests, progress.drops = 0, progress.drops + 1

    def save(self) -> None:
        """Write a checkpoint. Raises `InputError` where the loss or a weight is not finite."""
        # Never save a network that is lost.
        progress = self.progress
        self.check_finite()
        if not all(value.isfinite().all() for value in self.net.state_dict().values()):
            raise self.diverged(f"the weights are not finite after iteration {progress.iteration}")
        if not self.ranks.first:
            return
        # The rows first: a power cut must not leave a checkpoint without the rows before it.
        for name in RECORDS:
            flush(self.run.path / name)
        # Weights, state and rows.
        header = self.net.header | {"iteration": progress.iteration}
        weights = weights_file.serialise(self.net.state_dict(), self.net.mean, header)
        optimizer = {"velocity": self.optimizer.velocity, "lr": self.optimizer.lr}
        state = progress.as_state() | optimizer | self.random()
        files = [self.run.path / name for name in RECORDS]
        records = {file.name: file.read_bytes() if file.exists() else b"" for file in files}
        checkpoint.save(self.folder, progress.iteration, weights, state, records)

    def random(self) -> dict[str, Tensor]:
        """The state of the random generators that dropout draws from."""
        state = {"random": torch.get_rng_state()}
        if self.device != "cpu":
            state["device_random"] = torch.get_device_module(self.device).get_rng_state()
        return state

    def set_random(self, state: Mapping[str, Tensor]) -> None:
        """Restore a state of the random generators that `random` returned."""
        torch.set_rng_state(state["random"])
        if self.device != "cpu" and "device_random" in state:  # not in a checkpoint of a processor
            torch.get_device_module(self.device).set_rng_state(state["device_random"])

    def resume(self, monitor: Monitor) -> None:
        """Resume from the newest intact checkpoint, if there is one, and drop the rows that were recorded after it.

        Raises `InputError` where several ranks find different checkpoints.
        """
        fits = partial(unfit, net=self.net, optimizer=self.optimizer, progress=self.progress)
        saved = checkpoint.load_latest(self.folder, monitor.say, fits)
        if saved is not None:
            load_state(self.net, saved.weights.state)
            state = in_todays_form(saved.state)
            self.optimizer.restore(state.pop("lr"), state.pop("velocity"))
            self.set_random({name: state.pop(name) for name in ("random", "device_random") if name in state})
            self.progress.take(state)
            monitor.say(f"going on from iteration {self.progress.iteration}")
        self.column.fill_(self.progress.iteration % self.recipe.window)
        # All ranks start at one iteration, and the first one restores the records.
        if not self.ranks.same(self.progress.iteration):
            raise InputError(
                f"the ranks find different checkpoints in {self.run.path}; put it where all machines see it"
            )
        if self.ranks.first:
            take_records(self.run, saved, monitor.say)

    def finish(self) -> Json:
        """Write `done.json` with the final figures and return them: those of the last test, never of the best."""
        progress = self.progress
        images = progress.iteration * self.recipe.batch_size
        speed = round(images / progress.seconds, 1) if progress.seconds else None
        times = {"seconds": round(progress.seconds, 1), "images_per_second": speed}
        done = {"iteration": progress.iteration} | progress.latest | times | {DIGEST: digest(self.run.path / METRICS)}
        if self.ranks.first:
            write_json(self.run.path / DONE, done)
        self.ranks.barrier()
        return done
