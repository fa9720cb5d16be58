"""The steps of training over one state, which checkpoints hold."""

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from numpy import uint64
from numpy.random import SeedSequence
from torch import Tensor
from torch.optim.swa_utils import update_bn

from deepres.models.network import Network
from deepres.records import DIGEST, DONE, METRICS, RECORDS, TIMING, Json, Run, append_line, digest, flush, write_json
from deepres.runtime.device import autocast
from deepres.runtime.errors import InputError
from deepres.runtime.progress import every_so_often
from deepres.runtime.ranks import Ranks
from deepres.training.freeze import set_training
from deepres.training.optimizer import optimizer_for
from deepres.training.recipe import Recipe
from deepres.training.resume import Progress, in_todays_form, take_records, unfit
from deepres.training.schedule import rate
from deepres.training.stop import Stopping, stops
from deepres.training.task import AnyTask
from deepres.weights import checkpoint
from deepres.weights import file as weights_file
from deepres.weights.state import load_state

WARMUP_FIGURE = "train_error"  # which ends a warm-up by `error`


class Monitor(Protocol):
    """Who is told how the training goes on (a progress bar, plain lines)."""

    def step(self, iteration: int, row: Mapping[str, Any]) -> None:
        """One iteration is done; `row` holds the newest figures."""
        ...

    def say(self, message: str) -> None:
        """Something a person should know."""
        ...


@dataclass(frozen=True)
class Setup:
    """Where and how a network is trained, without changing what is: all resolved, nothing is `auto`."""

    device: str = "cpu"
    precision: str = "fp32"
    kernels: bool = False  # blocks on the project's own kernels
    compiled: bool = False  # blocks compiled by PyTorch
    memory_budget: float | None = None  # GiB of activations, gradients and velocity; above it, blocks run twice


class Trainer:
    """The steps of the loop over one shared state."""

    def __init__(self, net: Network, recipe: Recipe, task: AnyTask, run: Run, how: Setup, ranks: Ranks):
        self.net, self.recipe, self.task, self.run, self.ranks = net, recipe, task, run, ranks
        self.device, self.precision = how.device, how.precision
        self.parallel = ranks.wrap(net)
        # The statistics of frozen stages stay.
        changing = [module for module in net.modules() if module.training]
        buffers = [buffer for module in changing for buffer in module.buffers(recurse=False)]
        self.statistics = [buffer for buffer in buffers if buffer.is_floating_point()]
        self.optimizer = optimizer_for(net.parameters(), recipe)
        self.progress = Progress(torch.zeros(1 + len(task.figures), recipe.window, device=self.device))
        self.folder = run.path / "checkpoints"

    def at_mark(self, every: int) -> bool:
        """Whether the iteration just done is a multiple of `every`, or the last one."""
        return self.progress.iteration % every == 0 or self.progress.iteration == self.recipe.iterations

    def train_step(self, batch: Any) -> None:
        """Forward, backward, update; loss and figures stay on the device until their window ends."""
        if self.ranks.world > 1:  # or all ranks would drop the same values
            place = (int(self.net.header.get("seed", 0)), self.progress.iteration, self.ranks.rank)
            torch.manual_seed(int(SeedSequence(place).generate_state(1, uint64)[0]) % 2**63)
        count, own = self.recipe.accumulate, self.progress.window[:, self.progress.iteration % self.recipe.window]
        own.zero_()
        # Gradients are added up over the micro-batches, and exchanged among the ranks with the last one.
        for number, part in enumerate(self.task.split(batch, count), 1):
            with self.ranks.exchange(self.parallel, number == count):
                with autocast(self.precision, self.device):
                    loss, figures = self.task.loss(self.parallel, part)
                loss = loss / count
                loss.backward()
            own[0] += loss.detach()
            for row, name in enumerate(self.task.figures, 1):
                own[row] += figures[name].detach() / count
        self.optimizer.step_at(self.rate(self.progress.iteration))
        self.progress.iteration += 1

    def rate(self, iteration: int) -> float:
        """The learning rate of a step, as things stand."""
        return rate(self.recipe, iteration, warm=self.progress.warm, drops=self.progress.drops)

    def agree(self, caught: Sequence[int], due: bool) -> tuple[Sequence[int], bool]:
        """Average the step's figures and the running statistics over the ranks; see `Ranks.agree`."""
        newest = self.progress.window[:, (self.progress.iteration - 1) % self.recipe.window]
        answer = self.ranks.agree([newest, *self.statistics], caught, due)
        if self.device == "cpu":  # elsewhere it would make every step wait for the device
            self.check_finite()
        return answer

    def check_finite(self) -> None:
        """Stop the run where a loss of the window at hand is not finite."""
        last = self.progress.iteration - 1
        first = last // self.recipe.window * self.recipe.window
        bad = (~torch.isfinite(self.progress.window[0, : last - first + 1])).nonzero()
        if len(bad):
            iteration = first + int(bad[0])
            lr = self.rate(iteration)
            raise InputError(
                f"the loss is not finite at iteration {iteration} (rate {lr:g}) of {self.run.path}; last good "
                f"checkpoint: {checkpoint.newest(self.folder)}; lower the rate or add a warm-up"
            )

    def write_window(self) -> None:
        """Means over the window that ends here, and the rate; a low training error ends the warm-up."""
        progress, recipe = self.progress, self.recipe
        count = progress.iteration % recipe.window or recipe.window
        self.check_finite()
        loss, *figures = (row.mean().item() for row in progress.window[:, :count].cpu().double())
        row = {
            "iteration": progress.iteration,
            **dict(zip(self.task.figures, figures, strict=True)),
            "train_loss": loss,
        }
        lr = self.rate(progress.iteration - 1)
        if self.ranks.first:
            append_line(self.run.path / METRICS, row | {"lr": lr})
        progress.latest |= row
        progress.warm = progress.warm or row.get(WARMUP_FIGURE, math.inf) < recipe.warmup_error

    def test(self, monitor: Monitor) -> None:
        """The figures of a test now; at the last iteration of the network with averaged statistics.

        Where training is told to stop, all is left as it was before: what goes on from there averages and tests anew.
        """
        progress = self.progress
        last = progress.iteration == self.recipe.iterations
        running, random = [buffer.clone() for buffer in self.net.buffers()], self.random()
        try:
            if last:
                self.average_statistics(monitor)
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
        progress.untested = False
        progress.latest |= figures
        if self.recipe.decay == "plateau" and self.task.watched is not None:
            self.note_plateau(figures[self.task.watched])
        if not self.ranks.first:
            return
        append_line(self.run.path / METRICS, {"iteration": progress.iteration} | figures)
        timing = {"iteration": progress.iteration, "seconds": round(progress.seconds, 3)}
        append_line(self.run.path / TIMING, timing)

    def note_plateau(self, error: float) -> None:
        """Let the rate drop where the test error has not fallen for too many tests."""
        progress = self.progress
        if error < progress.best - self.recipe.threshold:
            progress.best, progress.tests = error, 0
            return
        progress.tests += 1
        if progress.tests == self.recipe.patience:
            progress.tests, progress.drops = 0, progress.drops + 1

    def average_statistics(self, monitor: Monitor) -> None:
        """Put a plain average over training images in place of BN's running statistics, where the recipe asks for it.

        The images are those of the steps after the last; all augmentation is on them. Sec. 3.4 is silent; the
        authors' release says so. A batch goes through in the parts over which a statistic was taken in training.
        """
        recipe, steps = self.recipe, -(-self.recipe.bn_average // self.recipe.batch_size)
        size = recipe.bn_group or recipe.batch_size // recipe.accumulate // self.ranks.world

        tick = every_so_often(monitor.say, "batches seen for the statistics of batch normalization")

        def parts() -> Generator[Tensor]:
            for step in range(recipe.iterations, recipe.iterations + steps):
                tick(step - recipe.iterations, steps)
                yield from self.task.images(self.task.batch_at(step)).split(size)

        if steps:
            # Compiled blocks would be compiled anew, since a momentum of None is a branch of its own.
            eager = torch.compiler.set_stance("force_eager")
            with stops.waiting(self.ranks.world == 1), autocast(self.precision, self.device), eager:
                update_bn(parts(), self.net)
            self.ranks.average(self.statistics)

    def save(self) -> None:
        """Write a checkpoint of this moment."""
        progress = self.progress
        self.check_finite()
        if not all(value.isfinite().all() for value in self.net.state_dict().values()):
            raise InputError(
                f"the weights are not finite after iteration {progress.iteration} of {self.run.path}; last good "
                f"checkpoint: {checkpoint.newest(self.folder)}; lower the rate or add a warm-up"
            )
        if not self.ranks.first:
            return
        for name in RECORDS:
            flush(self.run.path / name)  # or a power cut may leave a checkpoint without the rows before it
        header = self.net.header | {"iteration": progress.iteration}
        weights = weights_file.serialise(self.net.state_dict(), self.net.mean, header)
        optimizer = {"velocity": self.optimizer.velocity, "lr": self.optimizer.lr}
        state = progress.as_state() | optimizer | self.random()
        files = [self.run.path / name for name in RECORDS]
        records = {file.name: file.read_bytes() if file.exists() else b"" for file in files}
        checkpoint.save(self.folder, progress.iteration, weights, state, records)

    def random(self) -> dict[str, Tensor]:
        """The state of the generators that dropout draws from."""
        state = {"random": torch.get_rng_state()}
        if self.device != "cpu":
            state["device_random"] = torch.get_device_module(self.device).get_rng_state()
        return state

    def set_random(self, state: Mapping[str, Tensor]) -> None:
        """Let the generators go on from what `random` gave."""
        torch.set_rng_state(state["random"])
        if self.device != "cpu":
            torch.get_device_module(self.device).set_rng_state(state["device_random"])

    def resume(self, monitor: Monitor) -> None:
        """Go on from the newest whole checkpoint, if there is one; drop what was recorded after it."""
        fits = partial(unfit, net=self.net, optimizer=self.optimizer, progress=self.progress)
        saved = checkpoint.load_latest(self.folder, monitor.say, fits)
        if saved is not None:
            load_state(self.net, saved.weights.state)
            state = in_todays_form(saved.state)
            self.optimizer.restore(state.pop("lr"), state.pop("velocity"))
            self.set_random({name: state.pop(name) for name in self.random()})
            self.progress.take(state)
            monitor.say(f"going on from iteration {self.progress.iteration}")
        if not self.ranks.same(self.progress.iteration):
            raise InputError(
                f"the ranks find different checkpoints in {self.run.path}; put it where all machines see it"
            )
        if self.ranks.first:
            take_records(self.run, saved, monitor.say)

    def finish(self) -> Json:
        """Write the `done` mark with the final figures: the last ones, never the best."""
        progress = self.progress
        images = progress.iteration * self.recipe.batch_size
        speed = round(images / progress.seconds, 1) if progress.seconds else None
        done = {"iteration": progress.iteration} | progress.latest
        done |= {"seconds": round(progress.seconds, 1), "images_per_second": speed}
        done |= {DIGEST: digest(self.run.path / METRICS)}
        if self.ranks.first:
            write_json(self.run.path / DONE, done)
        self.ranks.barrier()
        return done
