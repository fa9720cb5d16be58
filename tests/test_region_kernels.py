"""Pooling of regions by the kernels: the values and gradients of torchvision's roi_pool."""

import copy

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torchvision.ops import roi_pool

from deepres.acceleration.on_kernels import FastRegionPooling, accelerate
from deepres.detection.form import fast_form
from deepres.kernels.regions import fits, pool_regions
from deepres.models.catalog import build
from deepres.models.detection.images import padded
from deepres.models.detection.regions import deterministic_maxima
from deepres.runtime.device import autocast
from deepres.training.freeze import freeze, set_training
from detection_scenes import generator, objects, random_boxes, scene, small_detector, task
from small_detectors import assert_same_detections, pictures

SIZE = (19, 23)  # positions of the maps, of stride 16


def maps(count=2, channels=32, dtype=torch.float32, grid=False):
    """Random maps; on a grid of few values there are ties, of which the first wins."""
    values = torch.randn(count, channels, *SIZE, generator=generator(1))
    values = values.mul(2).round() if grid else values
    return values.to(dtype).contiguous(memory_format=torch.channels_last)


def regions(count=40):
    """Regions (R, 5) of both maps: within, across the border, beyond it, of no area, and turned inside out."""
    boxes = torch.rand(count, 4, generator=generator(2)) * 600 - 100
    inside = random_boxes(count, (SIZE[0] * 16, SIZE[1] * 16), 3, (1, 250))
    special = torch.tensor([[50.0, 60, 50, 60], [-300, -300, -200, -200], [900, 900, 1000, 1000], [0, 0, 368, 304]])
    every = torch.cat([boxes, inside, special])
    return torch.cat([(torch.arange(len(every)) % 2)[:, None].float(), every], 1)


@pytest.mark.parametrize("pool", [pool_regions, deterministic_maxima])
@pytest.mark.parametrize("size", [1, 7, 14])
@pytest.mark.parametrize("grid", [False, True])
def test_values_and_gradients_are_those_of_torchvision(pool, size, grid):
    own, other = maps(grid=grid).requires_grad_(), maps(grid=grid).requires_grad_()
    found, wanted = pool(own, regions(), size, 1 / 16), roi_pool(other, regions(), size, 1 / 16)
    assert torch.equal(found, wanted)
    weights = torch.randn(found.shape, generator=generator(4))
    found.mul(weights).sum().backward()
    wanted.mul(weights).sum().backward()
    torch.testing.assert_close(own.grad, other.grad, rtol=1e-5, atol=1e-5)


def test_in_bf16_the_maxima_are_exact_and_gradients_are_added_in_float32():
    own = maps(dtype=torch.bfloat16).requires_grad_()
    other = own.detach().float().requires_grad_()
    found, wanted = pool_regions(own, regions(), 7, 1 / 16), roi_pool(other, regions(), 7, 1 / 16)
    assert found.dtype == torch.bfloat16 and torch.equal(found.float(), wanted)
    weights = torch.randn(found.shape, generator=generator(4)).bfloat16()
    found.mul(weights).sum().backward()
    wanted.mul(weights.float()).sum().backward()
    assert torch.equal(own.grad, other.grad.bfloat16()) or (own.grad.float() - other.grad).abs().max() < 0.1
    torch.testing.assert_close(own.grad.float(), other.grad, rtol=2**-8, atol=1e-4)


def test_numbers_that_are_none_read_no_memory_of_others():
    wild = torch.tensor([[0.0, float("nan"), 0, 1e30, float("inf")], [1.0, -1e30, -1e30, 1e30, 1e30]])
    found = pool_regions(maps(), wild, 7, 1 / 16)
    assert found.isfinite().all() and found.abs().max() <= maps().abs().max()


def test_the_number_of_threads_changes_no_bit():
    found = []
    for count in (1, 2):
        threads = torch.get_num_threads()
        torch.set_num_threads(count)
        own = maps().requires_grad_()
        result = pool_regions(own, regions(), 14, 1 / 16)
        result.mul(torch.randn(result.shape, generator=generator(4))).sum().backward()
        torch.set_num_threads(threads)
        found.append((result, own.grad))
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


def test_what_the_kernels_cannot_pool_goes_to_torchvision():
    assert fits(maps(), regions()) and not fits(maps(), regions()[:0])
    assert not fits(maps().double(), regions()) and not fits(maps(channels=24), regions())
    pooling = FastRegionPooling(16, 7, "pool")
    nothing, own = [torch.zeros(0, 4)] * 2, [random_boxes(3, (300, 300)), random_boxes(2, (300, 300))]
    assert pooling(maps(), nothing).shape == (0, 32, 7, 7)
    assert torch.equal(pooling(maps(channels=24), own), pooling(maps(channels=24).double(), own))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("network", ["resnet18", "resnet8"])
def test_a_step_of_a_detector_on_the_kernels_has_the_plain_losses_and_gradients(network, precision):
    plain = small_detector(network)  # BN fixed
    fast = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    accelerate(fast)
    assert isinstance(fast.cut, FastRegionPooling)
    own, found = task(regions=24), []
    scenes = [scene(objects(random_boxes(5, (96, 128), 1)), (96, 128))]
    for net in (plain, fast):
        torch.manual_seed(0)
        with autocast(precision, "cpu"):
            loss, _ = own.loss(net, scenes)
        loss.backward()
        found.append((loss.detach(), torch.cat([parameter.grad.flatten() for parameter in net.parameters()])))
    (loss, gradient), (other, others) = found
    close = 1e-5 if precision == "fp32" else 0.02
    assert other.item() == pytest.approx(loss.item(), rel=close)
    assert (gradient - others).norm() < (1e-4 if precision == "fp32" else 0.1) * gradient.norm()


def test_bn_that_is_trained_runs_on_the_kernels_over_maps_of_changing_sizes():
    plain = small_detector("resnet18").train()
    fast = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    accelerate(fast)
    own = task(regions=16)
    for number, size in enumerate([(96, 128), (128, 96), (80, 112), (96, 128)]):
        scenes, losses = [scene(objects(random_boxes(5, size, number)), size, number)], []
        for net in (plain, fast):
            torch.manual_seed(number)
            loss, _ = own.loss(net, scenes)
            loss.backward()
            losses.append(loss.item())
        assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    statistics = [torch.cat([value.flatten().float() for value in net.buffers()]) for net in (plain, fast)]
    torch.testing.assert_close(*statistics, rtol=1e-3, atol=1e-4)


def test_the_form_that_is_tested_finds_what_the_network_finds():
    net = small_detector("resnet18")
    net.load_state_dict({k: v + 0.01 if "running" in k else v for k, v in net.state_dict().items()})
    fast, [picture] = fast_form(net), pictures((90, 140))
    assert isinstance(fast.cut, FastRegionPooling) and not isinstance(net.cut, FastRegionPooling)
    seen = padded([picture], net.mean)
    with torch.no_grad():
        plain, other = net(seen), fast(seen)
    torch.testing.assert_close(other.objectness, plain.objectness, rtol=1e-4, atol=1e-4)
    if len(plain.regions[0]) == len(other.regions[0]):
        torch.testing.assert_close(other.found.logits, plain.found.logits, rtol=1e-3, atol=1e-3)
    assert_same_detections(fast.detect([picture])[0], fast.detect([picture])[0])


@pytest.mark.parametrize("network", ["resnet50", "resnet18-a"])
def test_fixed_bn_in_the_kernels_of_convolutions_changes_neither_maps_nor_gradients(network):
    """And the maps between convolution and BN are not kept for the backward pass."""
    torch.manual_seed(0)
    plain = build(network)
    numbers = {key: value.abs() + 0.5 for key, value in plain.state_dict().items() if "bn" in key and "num" not in key}
    noise = {key: value + 0.3 * torch.rand(value.shape, generator=generator(5)) for key, value in numbers.items()}
    plain.load_state_dict(plain.state_dict() | noise)
    freeze(plain, ("bn",))
    plain, kept = plain.double(), []
    fast = copy.deepcopy(plain)
    accelerate(fast)
    images = torch.randn(2, 3, 64, 64, generator=generator(6)).double()
    for net in (plain, fast):
        set_training(net)
        saved = {}
        with saved_tensors_hooks(lambda t, saved=saved: saved.setdefault(t.data_ptr(), t), lambda t: t):
            scores = net(images)
        scores.square().mean().backward()
        kept.append(sum(each.numel() for each in saved.values() if each.dim() == 4 and len(each) == len(images)))
    for (name, one), other in zip(plain.named_parameters(), fast.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None) == (".bn." in name), name
        if one.grad is not None:
            assert (other.grad - one.grad).norm() <= 1e-8 * one.grad.norm(), name
    assert kept[1] < 0.9 * kept[0]
