"""The memory of a detector's training step: what is counted, what checkpointing changes, and for which images."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from deepres.acceleration.recomputed import save_memory
from deepres.detection.scenes import Augmentation, largest
from deepres.runtime.device import autocast
from deepres.training.freeze import freeze, set_training
from detection_scenes import objects, random_boxes, scene, small_detector, task

SIZE = (96, 128)
SCENES = [scene(objects(random_boxes(6, SIZE, seed)), SIZE, seed) for seed in (1, 2)]
IMAGES = torch.zeros(2, 3, *SIZE)


def detector(network="resnet18", frozen=("bn",), **plan):
    net = small_detector(network, **plan)
    freeze(net, frozen)
    set_training(net)
    return net


def bytes_kept(net, own, precision="fp32"):
    """Bytes that autograd holds at the end of the forward pass of a step, parameters left out."""
    kept, parameters = {}, {parameter.untyped_storage().data_ptr() for parameter in net.parameters()}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor), autocast(precision, "cpu"):
        loss, _ = own.loss(net, SCENES)
    del loss
    return sum(size for size, _ in kept.values())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("frozen", [("bn",), ()])
def test_what_is_counted_is_what_a_step_keeps_with_the_regions_that_are_sampled(frozen, precision):
    net, own = detector(frozen=frozen), task(regions=48, proposals=200)
    parameters = sum(parameter.numel() * 4 for parameter in net.parameters())
    counted = save_memory(net, IMAGES, 2**40, precision, own.rehearse).peak - 2 * parameters
    assert counted == pytest.approx(bytes_kept(net, own, precision), rel=0.03)


def test_regions_count_as_much_as_there_are():
    peaks = [save_memory(detector(), IMAGES, 2**40, run=task(regions=count).rehearse).peak for count in (16, 32, 64)]
    assert peaks[2] - peaks[1] == pytest.approx(2 * (peaks[1] - peaks[0]), rel=0.05)


@pytest.mark.parametrize("network", ["resnet18", "resnet50"])
@pytest.mark.parametrize("plan", [{}, {"context": True, "pooling": "align"}])
def test_blocks_that_run_twice_change_no_loss_and_no_gradient(network, plan):
    net, own = detector(network, (), **plan), task()
    other = copy.deepcopy(net)
    assert save_memory(other, IMAGES, 1, run=own.rehearse).segments > 1
    found = []
    for each in (net, other):
        torch.manual_seed(0)
        loss, _ = own.loss(each, SCENES)
        loss.backward()
        found.append([loss, *(parameter.grad for parameter in each.parameters()), *each.buffers()])
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


def test_a_smaller_budget_keeps_fewer_bytes_of_both_parts_of_the_backbone():
    own, kept = task(), []
    whole = save_memory(detector("resnet20"), IMAGES, 2**40, run=own.rehearse).peak
    for share in (1.0, 0.8, 0.6, 0.0):
        net = detector("resnet20")
        peak = save_memory(net, IMAGES, int(share * whole), run=own.rehearse).peak
        assert share == 0.0 or peak <= share * whole
        kept.append(bytes_kept(net, own))
    assert kept == sorted(kept, reverse=True)
    assert kept[-1] < kept[0] / 2


def test_where_the_rpn_alone_is_trained_no_regions_are_counted():
    rpn, both = (save_memory(detector(), IMAGES, 2**40, run=task(part=part).rehearse).peak for part in ("rpn", "both"))
    assert rpn < both


def test_the_largest_batch_holds_the_largest_picture_at_the_largest_side():
    index = SimpleNamespace(sizes=torch.tensor([[640, 480], [300, 500], [500, 300], [400, 400]]))  # width, height
    how = Augmentation((320, 400, 480), 800, True, 0.0, False)
    assert largest(index, how, 1) in ((480, 800), (800, 480))
    assert largest(index, how, 2) == (800, 800)  # the last batch of an epoch may have both
