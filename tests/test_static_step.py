"""A step on static tensors, which a GPU replays as a CUDA graph: the same training as step by step."""

import dataclasses

import pytest
import torch

import deepres
from deepres.classification.recipe import CIFAR, FAST, ClassificationConfig
from deepres.classification.task import classification_task
from deepres.data.sources import load_data_set
from deepres.records import Run
from deepres.runtime.errors import silent
from deepres.runtime.ranks import ALONE
from deepres.training.captured import StaticStep
from deepres.training.loop import prepare
from deepres.training.trainer import Setup, Trainer
from tasks import Told

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
STEPS = 30


def trainer(folder, tmp_path, device, recipe, network="resnet8", how=None):
    """A trainer before its first step; the rate changes and a window ends within 30 steps."""
    recipe = dataclasses.replace(recipe, batch_size=16, window=7, bn_average=0).scaled(recipe.iterations)
    recipe = dataclasses.replace(recipe, iterations=60, milestones=(11, 23) if recipe.decay == "steps" else ())
    config = ClassificationConfig(network, str(folder), device=device, precision="fp32", recipe=recipe)
    task = classification_task(config, load_data_set(str(folder)), ALONE, silent)
    torch.manual_seed(0)
    net = deepres.build(network, num_classes=len(task.classes))
    how = how or Setup(device)
    prepare(net, recipe, how)
    return Trainer(net, recipe, task, Run(tmp_path), how, ALONE)


def train(own, steps=STEPS):
    """The losses of `steps` steps, by windows; the last one is unfinished."""
    losses = []
    for _ in range(steps):
        own.train_step(own.batch_at(own.progress.iteration))
        losses.append(own.progress.window[0, (own.progress.iteration - 1) % own.recipe.window].item())
    return losses


def state(own):
    return [tensor.cpu() for tensor in (*own.net.state_dict().values(), *own.optimizer.velocity, own.progress.window)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("recipe", [CIFAR, dataclasses.replace(CIFAR, accumulate=2), FAST], ids=str)
def test_static_steps_are_the_plain_ones(folder, tmp_path, device, recipe):
    """Warm-up, rates, windows, and the optimizers; on a GPU the algorithms may sum in another order."""
    plain, static = (trainer(folder, tmp_path, device, recipe) for _ in range(2))
    static.capture(Told())
    assert static.captured is not None and (static.captured.graph is not None) == (device == "cuda")
    assert train(static) == pytest.approx(train(plain), rel=1e-4)
    for own, other in zip(state(static), state(plain), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-4 if device == "cuda" else 0)


@pytest.mark.parametrize("device", DEVICES)
def test_capturing_changes_neither_the_network_nor_the_random_numbers(folder, tmp_path, device):
    own = trainer(folder, tmp_path, device, CIFAR)
    before, random = state(own), own.random()
    own.capture(Told())
    assert all(torch.equal(*pair) for pair in zip(before, state(own), strict=True))
    assert all(torch.equal(random[name], value) for name, value in own.random().items())


def test_a_step_takes_what_it_is_given_and_not_what_it_was_made_with():
    total = torch.zeros(2)

    def add(raw):
        total.add_(raw[0])

    step = StaticStep(add, [total], (torch.ones(2),))
    for value in (3.0, 4.0):
        step((torch.full((2,), value),))
    assert total.tolist() == [7.0, 7.0]


@pytest.mark.gpu
def test_a_step_that_asks_the_gpu_for_a_value_goes_on_uncaptured(folder, tmp_path):
    own, heard = trainer(folder, tmp_path, "cuda", CIFAR), Told()
    plain = own.task.loss

    def asking(net, part):
        loss, figures = plain(net, part)
        return loss + min(0.0, loss.item()), figures

    object.__setattr__(own.task, "loss", asking)
    own.capture(heard)
    assert own.captured is None and "cannot be captured as a CUDA graph" in heard.said[0]
    assert all(torch.isfinite(torch.tensor(train(own, 3))))
