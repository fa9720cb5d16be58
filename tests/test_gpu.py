"""Training on a GPU: the same training as on a processor, exact resume, and checkpoints that move between both.

`make gpu` runs these tests. DEEPRES_TESTED_DEVICE=cpu runs them on a processor, to check the tests themselves.
"""

import dataclasses
import os

import pytest
import torch

from deepres.bench.steady import InMemory
from deepres.models.catalog import build
from deepres.records import Run
from deepres.training.loop import StoppedError, train
from deepres.training.recipe import Recipe
from deepres.training.stop import stops
from deepres.training.trainer import Setup
from deepres.weights import file as weights_file
from runs import last_weights

pytestmark = pytest.mark.gpu
DEVICE = os.environ.get("DEEPRES_TESTED_DEVICE", "cuda")
STEPS = 30
RECIPE = Recipe(iterations=STEPS, batch_size=64, lr=0.05, milestones=(20,), window=1, evaluate_every=STEPS)


class Silent:
    def __init__(self, stop_at=None):
        self.stop_at = stop_at

    def step(self, iteration, row):
        if iteration == self.stop_at:
            stops.caught.append(2)

    def say(self, message):
        pass


class Learned(InMemory):
    """One batch, whose test is the training error in evaluation mode."""

    def evaluate(self, net, last):
        images, labels = self.batch
        return {"test_error": 100 * (net(images).argmax(1) != labels).float().mean().item()}


def task(device):
    """Images of ten classes that can be learned: each class has a pattern of its own, under noise."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(64) % 10
    patterns = torch.randn(10, 3, 32, 32, generator=generator)
    images = patterns[labels] + torch.randn(64, 3, 32, 32, generator=generator)
    return Learned(images.to(device), labels.to(device))


def run_on(device, place, recipe=RECIPE, stop_at=None, **how):
    """A run of resnet20 from the same start weights; the figures of every step, and the weights at the end."""
    torch.manual_seed(0)
    run = Run(place)
    train(build("resnet20"), recipe, task(device), run, Silent(stop_at), Setup(device=device, **how))
    return run


def losses(run):
    return torch.tensor(run.curve("train_loss")[1], dtype=torch.float64)


def weights(run):
    return weights_file.read_file(last_weights(run.path)).state


def test_thirty_steps_in_fp32_are_those_of_the_processor(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    here, there = run_on("cpu", tmp_path / "cpu"), run_on(DEVICE, tmp_path / "gpu")
    assert torch.allclose(losses(there)[:10], losses(here)[:10], rtol=1e-3), (losses(here), losses(there))
    assert losses(there)[-1] < 0.5 * losses(there)[0]
    assert torch.allclose(losses(there), losses(here), rtol=0.1, atol=0.02), (losses(here), losses(there))


def test_bf16_learns_as_fp32_does(tmp_path):
    exact, rounded = run_on(DEVICE, tmp_path / "fp32"), run_on(DEVICE, tmp_path / "bf16", precision="bf16")
    assert torch.allclose(losses(rounded)[:5], losses(exact)[:5], rtol=0.05)
    assert losses(rounded)[-1] < 0.5 * losses(rounded)[0]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_that_stopped_goes_on_to_the_same_bits(tmp_path, precision):
    whole = run_on(DEVICE, tmp_path / "whole", precision=precision)
    with pytest.raises(StoppedError):
        run_on(DEVICE, tmp_path / "stopped", stop_at=11, precision=precision)
    stopped = run_on(DEVICE, tmp_path / "stopped", precision=precision)
    assert (stopped.path / "metrics.jsonl").read_bytes() == (whole.path / "metrics.jsonl").read_bytes()
    after, wanted = weights(stopped), weights(whole)
    assert all(after[name].equal(wanted[name]) for name in wanted)


@pytest.mark.parametrize(("first", "second"), [("cpu", DEVICE), (DEVICE, "cpu")])
def test_a_checkpoint_of_one_device_goes_on_on_the_other(tmp_path, first, second):
    with pytest.raises(StoppedError):
        run_on(first, tmp_path / "run", stop_at=STEPS // 2)
    moved, whole = run_on(second, tmp_path / "run"), run_on(second, tmp_path / "whole")
    assert moved.done["iteration"] == STEPS
    assert torch.allclose(losses(moved), losses(whole), rtol=0.1, atol=0.02), (losses(moved), losses(whole))


def test_a_loss_that_is_not_finite_is_found(tmp_path):
    from deepres.runtime.errors import InputError

    wild = dataclasses.replace(RECIPE, lr=1e6)
    with pytest.raises(InputError, match="not finite"):
        run_on(DEVICE, tmp_path / "run", wild)
