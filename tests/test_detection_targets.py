"""Targets and losses of anchors and regions, against loops over the rules of the papers and against torchvision's."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.roi_heads import fastrcnn_loss
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import box_iou

from deepres.detection.loss import anchor_losses, region_losses
from deepres.detection.targets import (
    LEFT_OUT,
    NEGATIVE,
    POSITIVE,
    Sample,
    anchor_labels,
    sample_anchors,
    sample_regions,
)
from deepres.models.detection.anchors import anchors_over, base_anchors
from deepres.models.detection.boxes import decode, encode
from deepres.models.detection.detector import RegionOutputs
from deepres.models.detection.plan import SCALES
from detectors import NONE, generator, objects, random_boxes

SIZE = (160, 208)


def anchors(map_size=(10, 13)):
    return anchors_over(map_size, base_anchors((1.0, 2.0, 4.0), (0.5, 1.0, 2.0)), 16)


def iou(one, other):
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(wide, 0) * max(high, 0)
    return shared / (sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)) - shared)


def is_inside(box, size=SIZE):
    return box[0] >= 0 and box[1] >= 0 and box[2] <= size[1] and box[3] <= size[0]


def labels_by_loops(every, boxes, size=SIZE):
    """The rules of Sec. 3.1.2 of Faster R-CNN, one anchor after another."""
    inside = [place for place, box in enumerate(every) if is_inside(box, size)]
    shares = {place: [iou(every[place], box) for box in boxes] for place in inside}
    most = [max((shares[place][number] for place in inside), default=0) for number in range(len(boxes))]
    labels = []
    for place in range(len(every)):
        own = shares.get(place)
        if own is None:
            labels.append(LEFT_OUT)
        elif max(own) >= 0.7 or any(
            share > 0 and abs(share - best) < 1e-6 for share, best in zip(own, most, strict=True)
        ):
            labels.append(POSITIVE)
        else:
            labels.append(NEGATIVE if max(own) < 0.3 else LEFT_OUT)
    return labels


# --- anchors ---


@pytest.mark.parametrize("seed", range(5))
def test_labels_of_anchors_are_those_of_the_rules_one_after_another(seed):
    boxes = random_boxes(5, SIZE, seed, (10, 90))
    labels, nearest = anchor_labels(anchors(), SIZE, objects(boxes))
    every = anchors().double().tolist()
    assert labels.tolist() == labels_by_loops(every, boxes.double().tolist())
    assert {POSITIVE, NEGATIVE, LEFT_OUT} == set(labels.tolist())
    for place in (labels == POSITIVE).nonzero().flatten().tolist():
        shares = [iou(every[place], box) for box in boxes.double().tolist()]
        assert abs(shares[nearest[place]] - max(shares)) < 1e-6


def test_inside_the_border_labels_are_those_of_torchvisions_matcher():
    boxes, every = random_boxes(6, SIZE, 3, (10, 90)), anchors()
    own = torch.tensor([is_inside(box) for box in every.tolist()])
    theirs = Matcher(0.7, 0.3, allow_low_quality_matches=True)(box_iou(boxes, every[own]))
    labels, nearest = anchor_labels(every, SIZE, objects(boxes))
    expected = torch.where(theirs >= 0, POSITIVE, torch.where(theirs == -1, NEGATIVE, LEFT_OUT))
    assert torch.equal(labels[own], expected)
    assert torch.equal(nearest[own][theirs >= 0], theirs[theirs >= 0])
    assert (labels[~own] == LEFT_OUT).all()


def test_the_best_anchors_of_a_box_are_positive_however_little_they_overlap_it():
    box = torch.tensor([[30.0, 30, 36, 36]])
    labels, _ = anchor_labels(anchors(), SIZE, objects(box))
    shares = box_iou(anchors(), box).flatten()
    inside = torch.tensor([is_inside(own) for own in anchors().tolist()])
    best = shares[inside].max()
    assert best < 0.3
    assert torch.equal(labels == POSITIVE, inside & (shares == best))


def test_a_box_that_no_anchor_overlaps_makes_none_positive():
    labels, _ = anchor_labels(anchors(), SIZE, objects(torch.tensor([[500.0, 500, 600, 600]])))
    assert not (labels == POSITIVE).any() and (labels == NEGATIVE).any()


def test_without_boxes_all_anchors_inside_are_negative():
    labels, _ = anchor_labels(anchors(), SIZE, objects())
    assert labels.tolist() == [NEGATIVE if is_inside(box) else LEFT_OUT for box in anchors().tolist()]


def test_an_image_that_no_anchor_fits_into_gives_none():
    sample = sample_anchors(anchors(), (10, 10), objects(torch.tensor([[1.0, 1, 9, 9]])), 256)
    assert len(sample.places) == len(sample.labels) == len(sample.deltas) == 0


def test_anchors_in_a_crowd_are_left_out_but_for_positive_ones():
    boxes, crowd = torch.tensor([[32.0, 32, 64, 64]]), torch.tensor([[0.0, 0, 104, 160]])
    labels, _ = anchor_labels(anchors(), SIZE, objects(boxes, crowds=crowd))
    plain, _ = anchor_labels(anchors(), SIZE, objects(boxes))
    shares = torch.tensor([max(0.0, min(x2, 104) - x1) / (x2 - x1) for x1, _, x2, _ in anchors().tolist()])
    assert torch.equal(labels == POSITIVE, plain == POSITIVE)
    assert torch.equal(labels == NEGATIVE, (plain == NEGATIVE) & (shares < 0.5))
    alone, _ = anchor_labels(anchors(), SIZE, objects(crowds=crowd))
    inside = torch.tensor([is_inside(box) for box in anchors().tolist()])
    assert torch.equal(alone == NEGATIVE, inside & (shares < 0.5)) and not (alone == POSITIVE).any()


@pytest.mark.parametrize("count", [8, 64, 4000])
def test_up_to_half_of_the_sampled_anchors_are_positive_and_negatives_fill_up(count):
    boxes = random_boxes(12, SIZE, 1, (30, 60))
    labels, nearest = anchor_labels(anchors(), SIZE, objects(boxes))
    sample = sample_anchors(anchors(), SIZE, objects(boxes), count)
    positive = min(int((labels == POSITIVE).sum()), count // 2)
    negative = min(int((labels == NEGATIVE).sum()), count - positive)
    assert sample.labels.tolist() == [1] * positive + [0] * negative
    assert len(set(sample.places.tolist())) == positive + negative
    assert (labels[sample.places[:positive]] == POSITIVE).all() and (labels[sample.places[positive:]] == NEGATIVE).all()
    own = sample.places[:positive]
    assert torch.allclose(decode(sample.deltas, anchors()[own]), boxes[nearest[own]], atol=1e-3)


def test_samples_are_drawn_by_chance_and_follow_from_the_seed():
    boxes = random_boxes(12, SIZE, 1, (30, 60))

    def drawn(seed):
        torch.manual_seed(seed)
        return sample_anchors(anchors(), SIZE, objects(boxes), 16).places.tolist()

    assert drawn(1) == drawn(1) != drawn(2)


# --- regions ---


@pytest.mark.parametrize("least", [0.0, 0.1])
@pytest.mark.parametrize("seed", range(3))
def test_sampled_regions_are_those_of_the_rules_one_after_another(seed, least):
    boxes, labels = random_boxes(4, SIZE, seed, (20, 80)), torch.tensor([2, 0, 1, 2])
    regions = torch.cat([random_boxes(150, SIZE, seed + 10, (20, 80)), boxes])
    sample = sample_regions(regions, objects(boxes, labels), 5000, 1.0, least)
    expected = {}
    for place, region in enumerate(regions.double().tolist()):
        shares = [iou(region, box) for box in boxes.double().tolist()]
        if max(shares) >= 0.5:
            expected[place] = 1 + labels[shares.index(max(shares))].item()
        elif max(shares) >= least:
            expected[place] = 0
    assert dict(zip(sample.places.tolist(), sample.labels.tolist(), strict=True)) == expected
    assert 0 in expected.values() and len(set(expected.values())) > 2
    # The targets lead to the box of that class.
    own = sample.places[: len(sample.deltas)]
    found = decode(sample.deltas, regions[own])
    shares = box_iou(regions[own], boxes).max(1).indices
    assert torch.allclose(found, boxes[shares], atol=1e-3)
    assert (sample.labels[: len(own)] > 0).all() and not sample.labels[len(own) :].any()


def test_a_quarter_of_the_regions_is_positive_at_most():
    boxes = random_boxes(4, SIZE, 1, (20, 80))
    regions = torch.cat([boxes.repeat(50, 1), random_boxes(500, SIZE, 3, (5, 20))])
    sample = sample_regions(regions, objects(boxes), 128, 0.25, 0.0)
    assert len(sample.places) == 128 and int((sample.labels > 0).sum()) == len(sample.deltas) == 32


def test_regions_in_a_crowd_are_left_out_but_for_positive_ones():
    boxes, crowd = torch.tensor([[10.0, 10, 50, 50]]), torch.tensor([[0.0, 0, 100, 160]])
    regions = torch.tensor([[10.0, 10, 50, 50], [60, 60, 90, 90], [90, 60, 120, 90], [85, 0, 115, 30]])
    sample = sample_regions(regions, objects(boxes, torch.tensor([1]), crowd), 128, 0.25, 0.0)
    assert sample.places.tolist() == [0, 2] and sample.labels.tolist() == [2, 0]
    assert sample_regions(regions, objects(crowds=crowd), 128, 0.25, 0.0).places.tolist() == [2]


def test_regions_without_boxes_are_background():
    regions = random_boxes(20, SIZE)
    sample = sample_regions(regions, objects(), 128, 0.25, 0.0)
    assert sorted(sample.places.tolist()) == list(range(20)) and not sample.labels.any() and not len(sample.deltas)


@pytest.mark.parametrize("least", [0.0, 0.1])
def test_there_may_be_no_regions_at_all(least):
    sample = sample_regions(NONE, objects(), 128, 0.25, least)
    assert len(sample.places) == len(sample.labels) == len(sample.deltas) == 0


def test_an_empty_box_is_no_target():
    """A box of no width, as resizing could leave one, gives no positive and nothing that is not finite."""
    boxes = torch.tensor([[30.0, 30, 30, 60]])
    anchored = sample_anchors(anchors(), SIZE, objects(boxes), 256)
    sample = sample_regions(torch.cat([random_boxes(20, SIZE), boxes]), objects(boxes), 128, 0.25, 0.0)
    assert not anchored.labels.any() and not sample.labels.any()


# --- losses ---


def two_images():
    """Logits, deltas and samples of anchors in two images, the second without boxes."""
    own = [objects(random_boxes(5, SIZE, 2, (20, 80))), objects()]
    samples = [sample_anchors(anchors(), SIZE, one, 64) for one in own]
    logits = torch.randn(2, len(anchors()), generator=generator(1), requires_grad=True)
    deltas = torch.randn(2, len(anchors()), 4, generator=generator(2), requires_grad=True)
    return logits, deltas, samples


def test_losses_of_anchors_are_torchvisions_on_the_same_samples():
    logits, deltas, samples = two_images()
    count = len(anchors())
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
