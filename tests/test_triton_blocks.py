"""Stages of blocks on Triton kernels train as the plain ones: by Triton's interpreter on a processor, and on a GPU."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import deepres
from deepres.acceleration.on_triton_blocks import (
    ImageNetOnTriton,
    StageOnTriton,
    accelerate_blocks,
    fits_blocks,
)
from deepres.training.batchnorm import group_batch_norm

pytest.importorskip("triton")
CHANNELS_LAST = {"memory_format": torch.channels_last}
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def interpreted():
    """What `interpreted_blocks.py` reports."""
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(HERE.parent / "src")}
    script = [sys.executable, HERE / "interpreted_blocks.py"]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.long
def test_two_steps_are_those_of_the_plain_network(interpreted):
    """Maps, gradients and running statistics against double precision: stages of all kinds, and both stems."""
    differences = {name: value for name, value in interpreted.items() if name != "plain paths"}
    assert len(differences) == 10
    assert max(differences.values()) < 1e-4, differences
    assert min(differences.values()) > 0


@pytest.mark.long
def test_what_the_kernels_do_not_compute_takes_the_plain_path_and_infinity_is_seen(interpreted):
    found = interpreted["plain paths"]
    assert "more than one value a channel" in found.pop("one value")
    assert found == {"evaluation": True, "frozen": True, "groups": True, "not finite": True}


def test_parameters_and_their_names_stay():
    net = deepres.build("resnet50", num_classes=10)
    fast = copy.deepcopy(net)
    assert fits_blocks(fast)
    accelerate_blocks(fast)
    assert type(fast) is ImageNetOnTriton
    assert sum(type(module) is StageOnTriton for module in fast.modules()) == 4
    assert list(fast.state_dict()) == list(net.state_dict())
    assert list(fast.backbone()) == list(net.backbone())


def test_a_processor_takes_the_plain_path():
    torch.manual_seed(0)
    net = deepres.build("resnet18", num_classes=10).to(**CHANNELS_LAST)
    fast = copy.deepcopy(net)
    accelerate_blocks(fast)
    images = torch.randn(2, 3, 64, 64).to(**CHANNELS_LAST)
    for name in (None, "conv1", "conv2_x", "conv4_x"):
        assert torch.equal(net.feature_map(images, name), fast.feature_map(images, name))


def test_other_blocks_and_statistics_are_left_alone():
    """Gates, batch statistics over groups, a cumulative average."""
    grouped, averaged = deepres.build("resnet18"), deepres.build("resnet18")
    group_batch_norm(grouped, 2)
    for module in averaged.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    for net in (grouped, averaged):
        assert not fits_blocks(net)
        accelerate_blocks(net)
        assert not any(isinstance(module, StageOnTriton) for module in net.modules())
        assert type(net) is not ImageNetOnTriton
    gated = deepres.build("highway19")
    accelerate_blocks(gated)
    assert type(gated.conv2_x) is nn.Sequential


def small_step(precision="fp32"):
    """A function that trains a network for a step: from its copies the gradients, running statistics and the loss."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(32, 3, 96, 96, generator=generator).cuda().to(**CHANNELS_LAST)
    labels = torch.randint(10, (32,), generator=generator).cuda()

    def step(net):
        images_ = images.to(next(net.parameters()).dtype)
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
            loss = F.cross_entropy(net(images_).double(), labels)
        loss.backward()
        found = {name: each.grad for name, each in net.named_parameters()}
        return found | {name: each for name, each in net.named_buffers() if each.is_floating_point()} | {"loss": loss}

    return step


def errors(found, expected):
    """The relative errors, each by its norm, in order of size."""
    pairs = [(found[name].double(), expected[name]) for name in expected]
    return sorted(((one - other).norm() / other.norm()).item() for one, other in pairs)


@pytest.fixture
def exact(monkeypatch):
    """Products in full float32, and deterministic convolutions."""
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("name", ["resnet50", "resnet18", "plain18"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_on_a_gpu(name, precision, exact):
    """As near to double precision as PyTorch's own operations, and the same bits twice."""
    torch.manual_seed(0)
    plain = deepres.build(name, num_classes=10).cuda().to(**CHANNELS_LAST)
    fast, again = copy.deepcopy(plain), copy.deepcopy(plain)
    accelerate_blocks(fast)
    accelerate_blocks(again)
    exactly = small_step()(copy.deepcopy(plain).double())
    step = small_step(precision)
    found, twice = step(fast), step(again)
    ours, theirs = errors(found, exactly), errors(step(plain), exactly)
    middle = len(ours) // 2
    assert ours[middle] < 10 * theirs[middle] + 1e-6, (ours, theirs)
    assert ours[-1] < 10 * theirs[-1] + 1e-6, (ours, theirs)
    assert all(torch.equal(found[name], twice[name]) for name in found)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_thirty_steps_on_a_gpu(exact):
    """The plain path's losses, to 1e-4, at a rate at which rounding does not grow."""
    torch.manual_seed(0)
    plain = deepres.build("resnet18", num_classes=10).cuda().to(**CHANNELS_LAST)
    fast, step = copy.deepcopy(plain), small_step()
    accelerate_blocks(fast)
    losses = []
    for net in (plain, fast):
        optimizer = torch.optim.SGD(net.parameters(), 2e-4, 0.9)
        losses.append([])
        for _ in range(30):
            optimizer.zero_grad()
            losses[-1].append(step(net)["loss"].item())
            optimizer.step()
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[0][-1] < losses[0][0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_step_can_be_captured(exact):
    """A replayed graph gives the gradients of the step that was captured, bit for bit."""
    torch.manual_seed(0)
    net = deepres.build("resnet50", num_classes=10).cuda().to(**CHANNELS_LAST)
    accelerate_blocks(net)
    images = torch.randn(16, 3, 64, 64, device="cuda").to(**CHANNELS_LAST)
    labels = torch.randint(10, (16,), device="cuda")

    def step():
        with torch.autocast("cuda", torch.bfloat16):
            loss = F.cross_entropy(net(images).float(), labels)
        return torch.autograd.grad(loss, list(net.parameters()))

    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        expected = step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = step()
    graph.replay()
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
