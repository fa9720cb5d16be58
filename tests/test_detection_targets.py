"""Targets of anchors and regions, against loops over the rules of the papers and against torchvision's matcher."""

import pytest
import torch
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from deepres.detection.targets import (
    LEFT_OUT,
    NEGATIVE,
    POSITIVE,
    anchor_labels,
    sample_anchors,
    sample_regions,
)
from deepres.models.detection.anchors import anchors_over, base_anchors
from deepres.models.detection.boxes import decode
from detection_scenes import NONE, objects, random_boxes

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
