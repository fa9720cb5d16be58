"""The four losses of a detector, against torchvision's on the same samples, and where their gradients go."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F
from torchvision.models.detection.roi_heads import fastrcnn_loss
from torchvision.models.detection.rpn import RegionProposalNetwork

from deepres.detection.loss import anchor_losses, region_losses
from deepres.detection.targets import Sample, sample_anchors, sample_regions
from deepres.models.detection.anchors import anchors_over, base_anchors
from deepres.models.detection.boxes import encode
from deepres.models.detection.detector import RegionOutputs
from deepres.models.detection.plan import SCALES
from detection_scenes import NONE, generator, objects, random_boxes

SIZE = (160, 208)
ANCHORS = anchors_over((10, 13), base_anchors((1.0, 2.0, 4.0), (0.5, 1.0, 2.0)), 16)

# --- losses ---


def two_images():
    """Logits, deltas and samples of anchors in two images, the second without boxes."""
    own = [objects(random_boxes(5, SIZE, 2, (20, 80))), objects()]
    samples = [sample_anchors(ANCHORS, SIZE, one, 64) for one in own]
    logits = torch.randn(2, len(ANCHORS), generator=generator(1), requires_grad=True)
    deltas = torch.randn(2, len(ANCHORS), 4, generator=generator(2), requires_grad=True)
    return logits, deltas, samples


def test_losses_of_anchors_are_torchvisions_on_the_same_samples():
    logits, deltas, samples = two_images()
    count = len(ANCHORS)
    labels, targets = [], []
    for sample in samples:
        labels.append(torch.full((count,), -1.0).index_put((sample.places,), sample.labels.float()))
        targets.append(torch.zeros(count, 4).index_put((sample.places[: len(sample.deltas)],), sample.deltas))
    sampler = SimpleNamespace(fg_bg_sampler=lambda every: ([own == 1 for own in every], [own == 0 for own in every]))
    classes, boxes = RegionProposalNetwork.compute_loss(
        sampler, logits.reshape(-1, 1), deltas.reshape(-1, 4), labels, targets
    )
    ours = anchor_losses(logits, deltas, samples)
    assert torch.allclose(ours[0], classes) and torch.allclose(ours[1], boxes)
    assert ours[1] > 0


def test_gradients_reach_sampled_logits_and_the_boxes_of_positive_anchors_alone():
    logits, deltas, samples = two_images()
    sum(anchor_losses(logits, deltas, samples)).backward()
    for image, sample in enumerate(samples):
        assert set(logits.grad[image].nonzero().flatten().tolist()) == set(sample.places.tolist())
        moved = deltas.grad[image].any(1).nonzero().flatten().tolist()
        assert set(moved) == set(sample.places[: len(sample.deltas)].tolist())


def regions_of_two_images():
    own = [objects(random_boxes(4, SIZE, 2, (20, 80)), torch.tensor([2, 0, 1, 2])), objects()]
    samples = [
        sample_regions(torch.cat([random_boxes(60, SIZE, 5, (20, 80)), one.boxes]), one, 32, 0.25, 0.0) for one in own
    ]
    count = sum(len(sample.places) for sample in samples)
    logits = torch.randn(count, 4, generator=generator(1), requires_grad=True)
    deltas = torch.randn(count, 3, 4, generator=generator(2), requires_grad=True)
    return RegionOutputs(logits, deltas), samples


def test_losses_of_regions_are_torchvisions_on_the_same_samples():
    """Its smooth L1 becomes straight at 1/9, that of Fast R-CNN at 1: of values divided by 9 it is a ninth."""
    found, samples = regions_of_two_images()
    targets = [
        F.pad(sample.deltas / torch.tensor(SCALES), (0, 0, 0, len(sample.places) - len(sample.deltas))) / 9
        for sample in samples
    ]
    theirs = F.pad(found.deltas / 9, (0, 0, 1, 0)).flatten(1)
    classes, boxes = fastrcnn_loss(found.logits, theirs, [sample.labels for sample in samples], targets)
    ours = region_losses(found, samples)
    assert torch.allclose(ours[0], classes) and torch.allclose(ours[1], 9 * boxes)
    assert ours[1] > 0


def test_gradients_reach_the_box_of_the_class_of_a_positive_region_alone():
    found, samples = regions_of_two_images()
    region_losses(found, samples)[1].backward()
    labels = torch.cat([sample.labels for sample in samples])
    expected = {(place, label - 1) for place, label in enumerate(labels.tolist()) if label > 0}
    assert {tuple(pair) for pair in found.deltas.grad.any(2).nonzero().tolist()} == expected
    assert found.logits.grad is None


def test_a_region_that_is_its_box_has_no_loss_of_boxes_for_deltas_of_zero():
    boxes = random_boxes(3, SIZE)
    sample = Sample(torch.arange(3), torch.tensor([1, 2, 3]), encode(boxes, boxes))
    _, loss = region_losses(RegionOutputs(torch.zeros(3, 4), torch.zeros(3, 3, 4)), [sample])
    assert loss.item() == pytest.approx(0, abs=1e-6)


def test_losses_of_nothing_are_zero_and_have_gradients():
    nothing = Sample(*(torch.zeros(0, dtype=torch.int64),) * 2, NONE)
    logits, deltas = torch.zeros(1, 9, requires_grad=True), torch.zeros(1, 9, 4, requires_grad=True)
    none = RegionOutputs(torch.zeros(0, 4, requires_grad=True), torch.zeros(0, 3, 4, requires_grad=True))
    losses = [*anchor_losses(logits, deltas, [nothing]), *region_losses(none, [nothing])]
    assert [loss.item() for loss in losses] == [0, 0, 0, 0]
    torch.stack(losses).sum().backward()
    assert not any(value.grad.any() for value in (logits, deltas, *none))


def test_the_start_of_training_costs_the_logarithm_of_the_number_of_classes():
    found, samples = regions_of_two_images()
    classes, _ = region_losses(RegionOutputs(found.logits * 0, found.deltas * 0), samples)
    assert classes.item() == pytest.approx(math.log(4), rel=1e-5)
