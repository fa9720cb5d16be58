"""Activation checkpointing changes the memory of a step, and nothing else."""

import copy
import gc
import weakref

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

import deepres
from deepres.acceleration.recomputed import Footprint, Segments, choose, measure, save_memory
from deepres.acceleration.recomputed import _stages as stages  # pyright: ignore[reportPrivateUsage]
from deepres.runtime.device import autocast
from deepres.training.batchnorm import group_batch_norm

IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3])


def bytes_kept(net, precision="fp32"):
    """Bytes that autograd holds at the end of the forward pass, parameters left out."""
    kept = {}
    own = {parameter.untyped_storage().data_ptr() for parameter in net.parameters()}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor), autocast(precision, "cpu"):
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
    assert save_memory(other, IMAGES, 1).segments > 0
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
    assert save_memory(net, IMAGES, 2**40).segments == 0
    assert bytes_kept(net) == before


def test_a_smaller_budget_keeps_fewer_bytes():
    kept = []
    for budget in (2**40, 12 * 2**20, 6 * 2**20, 1):
        net = deepres.build("resnet56")
        save_memory(net, IMAGES, budget)
        kept.append(bytes_kept(net))
    assert kept == sorted(kept, reverse=True)
    assert kept[-1] < kept[0] / 4


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["resnet20", "resnet18-32px"])
def test_the_footprints_add_up_to_what_autograd_keeps(name, precision):
    """Also where converted parameters outweigh the maps of the few images that are measured."""
    net = deepres.build(name)
    with autocast(precision, "cpu"):
        footprints, outside, fixed = measure(net, stages(net)[1], IMAGES[:1])
    predicted = fixed + len(IMAGES) * (sum(each.saved for each in footprints) + outside)
    assert predicted == pytest.approx(bytes_kept(net, precision), rel=0.02)


def test_a_step_in_bf16_keeps_less_than_one_in_fp32():
    peaks = [save_memory(deepres.build("resnet20"), IMAGES, 2**40, precision).peak for precision in ("fp32", "bf16")]
    assert peaks[1] < 0.75 * peaks[0]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_peak_is_what_autograd_keeps_with_gradients_and_velocity(precision):
    net = deepres.build("resnet20")
    kept = save_memory(net, IMAGES, 2**40, precision)
    parameters = sum(parameter.numel() * 4 for parameter in net.parameters())
    assert kept.peak == pytest.approx(bytes_kept(net, precision) + 2 * parameters, rel=0.02)


def test_measuring_leaves_the_statistics_alone():
    net = deepres.build("resnet20")
    before = copy.deepcopy(net.state_dict())
    measure(net, stages(net)[1], IMAGES[:1])
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_measuring_holds_no_map_afterwards():
    """A map that a hook gives back to autograd as it is would hold the graph that holds it."""
    net, maps = deepres.build("resnet20"), []
    for layer in net.modules():
        layer.register_forward_hook(lambda module, inputs, output: maps.append(weakref.ref(output)))
    save_memory(net, torch.zeros(4, 3, 32, 32), 2**30)
    gc.collect()
    assert len(maps) > 100 and not any(one() is not None for one in maps)


def test_the_fewest_blocks_that_fit_run_twice():
    blocks = [Footprint(input=10, saved=40)] * 9
    assert choose(blocks, 360, [9]).blocks == 0
    assert choose(blocks, 359, [9]).blocks == 1
    assert choose(blocks, 150, [9]) == Segments(blocks=6, length=3, peak=140)
    assert choose(blocks, 0, [9]).peak == min(choose(blocks, budget, [9]).peak for budget in range(0, 400, 10))


def test_segments_begin_anew_with_a_stage_also_where_they_are_chosen():
    """Two segments of three are not to be had where the first stage ends after two blocks."""
    blocks = [Footprint(input=10, saved=40)] * 9
    assert choose(blocks, 150, [2, 7]) == Segments(blocks=6, length=2, peak=150)


def test_state_dict_names_stay():
    net = deepres.build("resnet20")
    names = list(net.state_dict())
    save_memory(net, IMAGES, 1)
    assert list(net.state_dict()) == names


def test_a_run_within_a_budget_ends_with_the_same_metrics(deepres, folder, tmp_path):
    command = ("train", "resnet8", "--data", folder, "--iterations", 12, "--batch-size", 8)
    free = deepres(*command, "--run", tmp_path / "free")
    tight = deepres(*command, "--run", tmp_path / "tight", "--memory-budget", 0.001)
    loose = deepres(*command, "--run", tmp_path / "loose", "--memory-budget", 1)
    assert free.returncode == tight.returncode == 0, tight.stderr
    assert "segments run twice to save memory; a step keeps up to " in tight.stderr
    assert "no block needs to run twice; a step keeps up to " in loose.stderr
    assert "above the memory budget of 0.001 GiB" in tight.stderr and "above the memory" not in loose.stderr
    assert (tmp_path / "free/metrics.jsonl").read_bytes() == (tmp_path / "tight/metrics.jsonl").read_bytes()


def test_a_budget_of_nothing_is_refused(refused, folder, tmp_path):
    arguments = ("train", "resnet8", "--data", folder, "--run", tmp_path / "run", "--memory-budget", 0)
    assert "memory_budget" in refused(*arguments)


def test_of_a_batch_in_parts_one_part_is_kept_at_a_time(deepres, folder, tmp_path):
    command = ("train", "resnet8", "--data", folder, "--iterations", 1, "--batch-size", 8, "--memory-budget", 1)
    said = [
        deepres(*command, "--run", tmp_path / str(parts), "--set", f"accumulate={parts}").stderr for parts in (1, 4)
    ]
    whole, part = (float(text.split("keeps up to ")[1].split(" GiB")[0]) for text in said)
    assert part < 0.5 * whole
