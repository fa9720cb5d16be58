"""Training of CIFAR networks on the Triton kernels: by Triton's interpreter on a processor, and on a GPU."""

import copy
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import deepres
from deepres.acceleration.on_gpu import resolve_kernels
from deepres.acceleration.on_triton import TritonCifarNet, accelerate, fits, of_kind
from deepres.runtime.errors import InputError

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
has_triton = pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton")


@has_triton
@pytest.mark.long
@pytest.mark.parametrize("case", ["residual", "plain", "odd", "overflow"])
def test_the_kernels_compute_the_networks_gradients(case, tmp_path):
    """In float32 against PyTorch in float64, to 1e-4: each parameter's gradient, and the running statistics."""
    script = Path(__file__).with_name("interpreted_triton.py")
    done = subprocess.run(
        [sys.executable, script, case],
        env=os.environ | {"TRITON_INTERPRET": "1", "DEEPRES_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("name", ["resnet20", "plain56", "resnet110"])
def test_the_kernels_are_for_the_papers_cifar_networks(name):
    assert of_kind(deepres.build(name))


@pytest.mark.parametrize("name", ["resnet20-b", "highway19", "resnet18-32px", "resnet18", "alexnet"])
def test_the_kernels_are_not_for_others(name):
    assert not of_kind(deepres.build(name))
    assert not of_kind(deepres.build("resnet20", residual_layers=3))


def test_a_network_goes_the_plain_way_where_the_kernels_cannot():
    """On a processor, and in evaluation; names and weights stay."""
    net = deepres.build("resnet8", num_classes=4)
    images = torch.randn(2, 3, 16, 16)
    before, expected = list(net.state_dict()), copy.deepcopy(net)(images)
    accelerate(net)
    assert isinstance(net, TritonCifarNet) and list(net.state_dict()) == before
    assert not fits(net, images)
    assert torch.equal(net(images), expected)
    other = deepres.build("resnet20-b")
    with pytest.raises(InputError, match="resnet20-b"):
        accelerate(other)


def resolve(kernels="auto", network="resnet20", excluding=None, say=print):
    return resolve_kernels(kernels, network, excluding, say)


@has_triton
def test_a_run_on_a_gpu_uses_the_kernels_where_they_can_run():
    assert resolve() and resolve("on", "plain56") and resolve(network="resnet110-a") and resolve("on", "resnet50")
    assert not resolve("off")
    for network, excluding in (("highway19", None), ("vgg16", None), ("resnet20", "a BN group")):
        assert not resolve("auto", network, excluding)
        with pytest.raises(InputError, match=excluding or network):
            resolve("on", network, excluding)
    with pytest.raises(InputError, match="one of auto, on, off"):
        resolve("of")


def test_where_triton_is_missing_it_says_so_and_goes_on(monkeypatch):
    monkeypatch.setattr("deepres.acceleration.on_gpu.find_spec", lambda name: None)
    said = []
    assert not resolve(say=said.append)
    assert "triton is not installed" in said[0] and "take longer" in said[0]
    with pytest.raises(InputError, match="triton is not installed"):
        resolve("on")


def cuda_network(name, seed=0):
    torch.manual_seed(seed)
    return deepres.build(name).cuda().to(memory_format=torch.channels_last)


def random_batch(count=128):
    return torch.randn(count, 3, 32, 32, device="cuda"), torch.randint(10, (count,), device="cuda")


def loss_of(net, images, labels, bf16=False):
    with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
        return F.cross_entropy(net(images), labels)


def distance(mine, other):
    pairs = [(mine[key].double(), other[key].double()) for key in other if "num_batches" not in key]
    return (sum((a - b).square().sum() for a, b in pairs) / sum(b.square().sum() for _, b in pairs)).sqrt().item()


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("name", ["resnet20", "plain20"])
def test_thirty_steps_in_fp32_are_those_of_the_plain_network(name, monkeypatch):
    """Each from the plain network's state, since any change of rounding grows: losses and weights to 1e-4."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    plain, fast = cuda_network(name), cuda_network(name)
    accelerate(fast)
    ours, theirs = (torch.optim.SGD(net.parameters(), 0.01, 0.9, weight_decay=1e-4) for net in (fast, plain))
    for _ in range(30):
        fast.load_state_dict(plain.state_dict())
        ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
        images, labels = random_batch(32)
        assert fits(fast, images)
        losses = []
        for net, optimizer in ((fast, ours), (plain, theirs)):
            optimizer.zero_grad()
            loss = loss_of(net, images, labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)
        assert distance(fast.state_dict(), plain.state_dict()) <= 1e-4


def gradients(net):
    return {name: weight.grad for name, weight in net.named_parameters()}


@pytest.mark.gpu
@needs_gpu
def test_gradients_in_bf16_are_as_near_as_those_of_the_plain_network():
    """Both against the gradients in float64."""
    exact, plain, fast = cuda_network("resnet20").double(), cuda_network("resnet20"), cuda_network("resnet20")
    accelerate(fast)
    images, labels = random_batch()
    loss_of(exact, images.double(), labels).backward()
    for net in (plain, fast):
        loss_of(net, images, labels, bf16=True).backward()
    assert distance(gradients(fast), gradients(exact)) <= 1.1 * distance(gradients(plain), gradients(exact))


@pytest.mark.gpu
@needs_gpu
def test_a_captured_pass_gives_the_bits_of_one_that_is_not():
    net = cuda_network("resnet20")
    accelerate(net)
    images, labels = random_batch()
    with torch.cuda.stream(torch.cuda.Stream()):  # as capturing asks for
        for _ in range(2):
            net.zero_grad()
            loss_of(net, images, labels, bf16=True).backward()
    torch.cuda.synchronize()
    expected = {name: grad.clone() for name, grad in gradients(net).items()}
    net.zero_grad()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss_of(net, images, labels, bf16=True).backward()
    for _ in range(2):
        graph.replay()
        for name, grad in gradients(net).items():
            assert torch.equal(grad, expected[name]), name
