"""Activation checkpointing changes the memory of a step, and nothing else."""

import copy

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

import deepres
from deepres.training.batchnorm import group_batch_norm
from deepres.training.memory import Footprint, Segments, choose, measure, save_memory
from deepres.training.memory import _stages as stages  # pyright: ignore[reportPrivateUsage]

IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3])


def bytes_kept(net):
    """Bytes that autograd holds at the end of the forward pass, parameters left out."""
    kept = {}
    own = {parameter.untyped_storage().data_ptr() for parameter in net.parameters()}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        scores = net(IMAGES)
    del scores
    return sum(size for size, _ in kept.values())


def trained(net, steps=2):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(steps):
        F.cross_entropy(net(IMAGES), LABELS).backward()
        optimizer.step()
        optimizer.zero_grad()
    return net.state_dict()


@pytest.mark.parametrize("name", ["resnet20", "plain20", "resnet18-c", "resnet50", "highway19"])
def test_segments_change_no_weight_and_no_statistic(name):
    """Also the count of batches: the second forward pass must leave batch normalization's records alone."""
    torch.manual_seed(0)
    net = deepres.build(name, num_classes=4)
    other = copy.deepcopy(net)
    assert save_memory(other, IMAGES, 1) > 0
    for (key, plain), segmented in zip(trained(net).items(), trained(other).values(), strict=True):
        assert torch.equal(plain, segmented), key


def test_segments_change_nothing_with_grouped_batch_normalization():
    torch.manual_seed(0)
    net = deepres.build("resnet20", num_classes=4)
    group_batch_norm(net, 2)
    other = copy.deepcopy(net)
    save_memory(other, IMAGES, 1)
    for plain, segmented in zip(trained(net).values(), trained(other).values(), strict=True):
        assert torch.equal(plain, segmented)


def test_a_large_budget_leaves_the_network_alone():
    net = deepres.build("resnet20")
    before = bytes_kept(net)
    assert save_memory(net, IMAGES, 2**40) == 0
    assert bytes_kept(net) == before


def test_a_smaller_budget_keeps_fewer_bytes():
    kept = []
    for budget in (2**40, 12 * 2**20, 6 * 2**20, 1):
        net = deepres.build("resnet56")
        save_memory(net, IMAGES, budget)
        kept.append(bytes_kept(net))
    assert kept == sorted(kept, reverse=True)
    assert kept[-1] < kept[0] / 4


def test_the_footprints_add_up_to_what_autograd_keeps():
    net = deepres.build("resnet20")
    footprints, outside = measure(net, stages(net)[1], IMAGES[:1])
    predicted = len(IMAGES) * (sum(each.saved for each in footprints) + outside)
    assert predicted == pytest.approx(bytes_kept(net), rel=0.02)


def test_measuring_leaves_the_statistics_alone():
    net = deepres.build("resnet20")
    before = copy.deepcopy(net.state_dict())
    measure(net, stages(net)[1], IMAGES[:1])
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_the_fewest_blocks_that_fit_run_twice():
    blocks = [Footprint(input=10, saved=40)] * 9
    assert choose(blocks, 360).blocks == 0
    assert choose(blocks, 359).blocks == 1
    assert choose(blocks, 150) == Segments(blocks=6, length=3, peak=140)
    assert choose(blocks, 0).peak == min(choose(blocks, budget).peak for budget in range(0, 400, 10))


def test_state_dict_names_stay():
    net = deepres.build("resnet20")
    names = list(net.state_dict())
    save_memory(net, IMAGES, 1)
    assert list(net.state_dict()) == names


def test_a_run_within_a_budget_ends_with_the_same_metrics(deepres, folder, tmp_path):
    command = ("train", "resnet8", "--data", folder, "--iterations", 12, "--batch-size", 8)
    free = deepres(*command, "--run", tmp_path / "free")
    tight = deepres(*command, "--run", tmp_path / "tight", "--memory-budget", 0.001)
    assert free.returncode == tight.returncode == 0, tight.stderr
    assert "segments run twice" in tight.stderr
    assert (tmp_path / "free/metrics.jsonl").read_bytes() == (tmp_path / "tight/metrics.jsonl").read_bytes()


def test_a_budget_of_nothing_is_refused(refused, folder, tmp_path):
    arguments = ("train", "resnet8", "--data", folder, "--run", tmp_path / "run", "--memory-budget", 0)
    assert "memory_budget" in refused(*arguments)
