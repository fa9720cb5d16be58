"""The memory budget: segments are chosen by what a step takes as measured, on a GPU by its allocator."""

import copy
import gc

import pytest
import torch
from torch.nn import functional as F

from deepres.acceleration.recomputed import Kept, fitted, save_memory
from deepres.acceleration.recomputed import _peak_on_gpu as peak_on_gpu  # pyright: ignore[reportPrivateUsage]
from deepres.models.catalog import build
from deepres.runtime.device import autocast

on_gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU")]
COUNTED = {0: 1_000, 2: 800, 5: 500, 9: 300}  # bytes by number of segments


class Cuts:
    """Cuts whose steps take `beyond` bytes more than they count."""

    def __init__(self, beyond):
        self.beyond, self.trials, self.kept = beyond, 0, Kept(0, 0)

    def cut(self, room):
        fits = [segments for segments, peak in COUNTED.items() if peak <= room]
        segments = fits[0] if fits else max(COUNTED)
        self.kept = Kept(segments, COUNTED[segments])
        return self.kept

    def measured(self):
        self.trials += 1
        return self.kept.peak + self.beyond[self.kept.segments]


@pytest.mark.parametrize(
    ("budget", "beyond", "kept", "trials"),
    [
        (1_100, {0: 50}, Kept(0, 1_050), 1),
        (1_020, {0: 50, 2: 50}, Kept(2, 850), 2),
        (820, {2: 50, 5: 100}, Kept(5, 600), 2),
        (800, {2: 400, 5: 400, 9: 400}, Kept(9, 700), 2),  # the second cut leaves the 400 of the first free
        (1_000, {0: 10, 2: 300, 5: 300}, Kept(5, 800), 3),  # working memory grows with the cuts
        (10, {9: 50}, Kept(9, 350), 1),  # no cut fits
        (500, {5: 100, 9: 900}, Kept(5, 600), 2),  # the cut that counts least may take most
    ],
)
def test_the_segments_are_those_whose_steps_keep_within_the_budget_as_measured(budget, beyond, kept, trials):
    cuts = Cuts(beyond)
    assert fitted(cuts.cut, cuts.measured, budget) == kept
    assert (cuts.kept.segments, cuts.trials) == (kept.segments, trials)


def test_a_trial_leaves_statistics_and_gradients_as_they_were(monkeypatch):
    """The trial as it is made on a GPU, here with an allocator that is made up."""
    held = iter([100, 900, 100, 700])
    for name in ("memory_allocated", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda device: next(held))
    for name in ("reset_peak_memory_stats", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda *device: None)
    net, images = build("resnet20", 4), torch.rand(2, 3, 32, 32)
    save_memory(net, images, 1)
    before = copy.deepcopy(net.state_dict())
    peak = peak_on_gpu(net, images, "bf16", lambda net, images: net(images))
    assert peak == 600  # of the second pass
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert all(parameter.grad is None for parameter in net.parameters())


def step(net, images, labels):
    with autocast("fp32", images.device.type):
        loss = F.cross_entropy(net(images), labels)
    loss.backward()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.sub_(parameter.grad, alpha=0.01)
    net.zero_grad(set_to_none=True)


def example(name, batch):
    """The network on the GPU, a batch, and its labels; the same algorithms in every run."""
    torch.manual_seed(0)
    net = build(name, 10).to("cuda", memory_format=torch.channels_last)
    images = torch.rand(batch, 3, 32, 32).to("cuda", memory_format=torch.channels_last)
    return net, images, torch.arange(batch, device="cuda") % 10


@pytest.fixture
def deterministic(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


def peak(net, images, labels):
    """What the allocator holds at most in a step, beyond what it held before."""
    step(net, images, labels)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step(net, images, labels)
    return torch.cuda.max_memory_allocated() - before


@pytest.mark.parametrize("share", [pytest.param(0.5, marks=on_gpu), pytest.param(0.3, marks=on_gpu)])
def test_a_step_keeps_within_the_budget_by_the_allocator(deterministic, share):
    net, images, labels = example("resnet56", 64)
    velocity = sum(parameter.numel() * 4 for parameter in net.parameters())
    whole = save_memory(copy.deepcopy(net), images, 2**40).peak
    budget = int(share * whole)
    kept = save_memory(net, images, budget)
    assert kept.segments > 0
    assert kept.peak <= budget
    assert peak(net, images, labels) + velocity <= 1.02 * budget


@pytest.mark.parametrize("name", [pytest.param("resnet20", marks=on_gpu)])
def test_the_trials_leave_the_network_as_it_was_and_segments_change_no_weight(deterministic, name):
    net, images, labels = example(name, 16)
    other = copy.deepcopy(net)
    assert save_memory(other, images, 1).segments > 0
    for _ in range(3):
        step(net, images, labels)
        step(other, images, labels)
    for (key, plain), segmented in zip(net.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(plain, segmented), key


@pytest.mark.parametrize("name", [pytest.param("resnet20", marks=on_gpu)])
def test_a_segmented_step_is_captured_as_a_graph_with_the_same_weights(deterministic, name):
    """Nothing in the second forward pass may wait for the device."""
    net, images, labels = example(name, 16)
    save_memory(net, images, 1)
    plain, begun = copy.deepcopy(net), copy.deepcopy(net.state_dict())
    gc.collect()  # of the trials' graphs, whose stream is another one
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step(net, images, labels)
    torch.cuda.current_stream().wait_stream(stream)
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        step(net, images, labels)
    with torch.no_grad():
        for key, value in net.state_dict().items():
            value.copy_(begun[key])
    for _ in range(3):
        graph.replay()
        step(plain, images, labels)
    for (key, value), replayed in zip(plain.state_dict().items(), net.state_dict().values(), strict=True):
        assert torch.equal(value, replayed), key
