"""Anchors, boxes, proposals, pooled regions and suppression, against the authors' code, torchvision and loops."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import box_iou, nms

from deepres.models.detection.anchors import anchors_over, base_anchors
from deepres.models.detection.boxes import clip, decode, encode, overlaps
from deepres.models.detection.detections import best, by_class
from deepres.models.detection.images import fitted, fitted_size, padded
from deepres.models.detection.plan import SCALES, DetectorPlan
from deepres.models.detection.proposals import TEST, TRAINING, select
from deepres.models.detection.regions import pooled
from deepres.runtime.errors import InputError
from detection_scenes import generator, random_boxes

# generate_anchors.py of py-faster-rcnn prints these, with ends that belong to the box.
AUTHORS = [
    [-84, -40, 99, 55],
    [-176, -88, 191, 103],
    [-360, -184, 375, 199],
    [-56, -56, 71, 71],
    [-120, -120, 135, 135],
    [-248, -248, 263, 263],
    [-36, -80, 51, 95],
    [-80, -168, 95, 183],
    [-168, -344, 183, 359],
]

# --- anchors ---


def test_the_nine_anchors_are_those_of_the_authors_code():
    plan = DetectorPlan()
    ours = base_anchors(plan.anchor_scales, plan.anchor_ratios)
    assert (ours - torch.tensor([0, 0, 1, 1])).tolist() == AUTHORS


def test_the_anchors_of_a_position_stand_together_row_by_row():
    base = base_anchors((8, 16), (1.0,))
    every = anchors_over((3, 5), base, 16).view(3, 5, 2, 4)
    for row in range(3):
        for column in range(5):
            assert torch.equal(every[row, column], base + torch.tensor([column, row, column, row]) * 16)


# --- boxes ---


def test_decoding_is_the_reverse_of_encoding():
    boxes, anchors = random_boxes(200, (600, 1000), 1), random_boxes(200, (600, 1000), 2, (16, 500))
    assert torch.allclose(decode(encode(boxes, anchors), anchors), boxes, atol=1e-3)


def test_encoding_and_decoding_are_torchvisions():
    theirs = BoxCoder(tuple(1 / scale for scale in SCALES))
    boxes, anchors = random_boxes(50, (600, 1000), 1), random_boxes(50, (600, 1000), 2)
    ours = encode(boxes, anchors)
    assert torch.allclose(ours / torch.tensor(SCALES), theirs.encode_single(boxes, anchors), atol=1e-4)
    deltas = torch.randn(50, 4, 4, generator=generator()) * 5
    expected = theirs.decode_single(deltas.view(50, 16), anchors).view(50, 4, 4)
    assert torch.allclose(decode(deltas * torch.tensor(SCALES), anchors), expected, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("size", [1e4, 1e30, torch.finfo(torch.float32).max])
def test_a_huge_regression_gives_a_finite_box_inside_of_the_image(size):
    anchors = random_boxes(4, (600, 1000))
    for sign in (1, -1):
        boxes = clip(decode(torch.full((4, 4), sign * size), anchors), (600, 1000))
        assert boxes.isfinite().all() and (boxes >= 0).all() and (boxes[:, 2:] >= boxes[:, :2]).all()


def test_a_change_of_size_is_bounded():
    anchor = torch.tensor([[100.0, 100, 116, 116]])
    grown = decode(torch.tensor([[0.0, 0, 50, 50]]), anchor)
    assert torch.allclose(grown[:, 2:] - grown[:, :2], torch.full((1, 2), 1000.0))


def test_boxes_are_cut_off_at_the_border_of_height_and_width():
    assert clip(torch.tensor([[-5.0, -6, 2000, 3000]]), (600, 1000)).tolist() == [[0, 0, 1000, 600]]


def test_the_share_of_a_box_in_another_is_of_its_own_area():
    boxes, crowds = torch.tensor([[0.0, 0, 10, 10], [5, 5, 5, 5]]), torch.tensor([[5.0, 0, 100, 100], [50, 50, 60, 60]])
    assert overlaps(boxes, crowds).tolist() == [[0.5, 0], [0, 0]]


# --- images ---


@pytest.mark.parametrize(
    ("size", "expected"),
    [((375, 500), (600, 800)), ((500, 333), (901, 600)), ((200, 800), (250, 1000)), ((1, 5000), (1, 1000))],
)
def test_the_shorter_side_is_600_unless_the_longer_one_were_above_1000(size, expected):
    assert fitted_size(size, 600, 1000) == expected
    assert fitted(torch.zeros(3, *size, dtype=torch.uint8), 600, 1000).shape[1:] == expected


def test_padding_is_zero_behind_the_subtracted_mean():
    images = [torch.full((3, 4, 6), 255, dtype=torch.uint8), torch.zeros(3, 5, 2, dtype=torch.uint8)]
    mean = torch.tensor([0.1, 0.2, 0.3])[:, None, None]
    batch = padded(images, mean)
    assert batch.shape == (2, 3, 5, 6)
    assert torch.allclose(batch[0, :, :4], (1 - mean).expand(3, 4, 6)) and not batch[0, :, 4:].any()
    assert torch.allclose(batch[1, :, :, :2], -mean.expand(3, 5, 2)) and not batch[1, :, :, 2:].any()


# --- proposals ---


def proposed(size, map_size, seed=0, how=TEST, stride=16):
    """Proposals, and the logits, deltas and anchors that they come from."""
    anchors = anchors_over(map_size, base_anchors((2, 4, 8), (0.5, 1, 2)), stride)
    logits = torch.randn(len(anchors), generator=generator(seed))
    deltas = torch.randn(len(anchors), 4, generator=generator(seed + 1)) * 0.3
    return select(logits, deltas, anchors, size, how), logits, deltas, anchors


def test_proposals_are_those_of_the_steps_of_the_paper_one_after_another():
    how = replace(TEST, before=300, after=40, smallest=20)
    (boxes, scores), logits, deltas, anchors = proposed((200, 300), (13, 19), how=how)
    order = sorted(range(len(logits)), key=lambda place: -logits[place].item())[:300]
    kept = []
    for place in order:
        own = clip(decode(deltas[place][None], anchors[place][None]), (200, 300))
        if (own[:, 2:] - own[:, :2]).min() < 20:
            continue
        if not kept or box_iou(own, torch.cat([box for box, _ in kept])).max() <= 0.7:
            kept.append((own, logits[place]))
    assert torch.equal(boxes, torch.cat([box for box, _ in kept[:40]]))
    assert torch.equal(scores, torch.stack([score for _, score in kept[:40]]))


def test_the_numbers_of_proposals_are_those_of_the_authors_code():
    assert (TRAINING.before, TRAINING.after, TEST.before, TEST.after) == (12_000, 2_000, 6_000, 300)
    assert TRAINING.overlap == TEST.overlap == 0.7 and TRAINING.smallest == TEST.smallest == 16


def test_no_proposal_comes_from_the_padding_of_a_batch():
    """An image of 200x300 has a map of 13x19, a part of the 20x25 of its batch, and boxes come from that part alone."""
    (own, scores), logits, deltas, _ = proposed((200, 300), (13, 19))
    batch = anchors_over((20, 25), base_anchors((2, 4, 8), (0.5, 1, 2)), 16)
    many, moves = torch.full((20, 25, 9), 100.0), torch.zeros(20, 25, 9, 4)
    many[:13, :19], moves[:13, :19] = logits.view(13, 19, 9), deltas.view(13, 19, 9, 4)
    found, values = select(many.flatten(), moves.view(-1, 4), batch, (200, 300), TEST)
    assert torch.equal(found, own) and torch.equal(values, scores)


def test_every_position_of_the_map_of_a_single_image_is_proposed():
    """600 pixels have 38 positions (conv4_x): the last one begins at 592, and its anchors are centred at 600."""
    anchors = anchors_over((38, 50), base_anchors((8,), (1,)), 16)
    logits = torch.zeros(38, 50)
    logits[37, 20] = 5
    boxes, _ = select(logits.flatten(), torch.zeros(len(anchors), 4), anchors, (600, 800), replace(TEST, after=1))
    assert boxes.tolist() == [[264, 536, 392, 600]]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_not_proposed(value):
    anchors = anchors_over((4, 4), base_anchors((1,), (1,)), 16)
    deltas, logits = torch.zeros(16, 4), torch.arange(16.0)
    deltas[3], logits[5] = value, value
    boxes, scores = select(logits, deltas, anchors, (64, 64), replace(TEST, smallest=0))
    assert boxes.isfinite().all() and scores.isfinite().all() and len(boxes) >= 14
    assert ((boxes[:, 2:] - boxes[:, :2]) > 0).all()


def test_there_may_be_no_proposals_at_all():
    (boxes, scores), *_ = proposed((200, 300), (13, 19), how=replace(TEST, smallest=5000))
    assert boxes.shape == (0, 4) and scores.shape == (0,)


# --- pooled regions ---


def caffe_pool(maps, region, stride, size):
    """The loop of the authors' layer for one region whose ends belong to it, (C, size, size)."""
    left, top, right, bottom = (math.floor(value / stride + 0.5) for value in region)

    def bin_of(place, first, last, most):
        step = max(last - first + 1, 1) / size
        ends = math.floor(place * step) + first, math.ceil((place + 1) * step) + first
        return slice(*(min(max(end, 0), most) for end in ends))

    found = torch.zeros(maps.shape[0], size, size)
    for y in range(size):
        for x in range(size):
            part = maps[:, bin_of(y, top, bottom, maps.shape[1]), bin_of(x, left, right, maps.shape[2])].flatten(1)
            found[:, y, x] = part.max(1).values if part.shape[1] else 0
    return found


def test_pooled_regions_are_those_of_the_authors_layer():
    maps = torch.randn(2, 3, 12, 20, generator=generator())
    regions = [random_boxes(12, (192, 320), seed, (4, 180)).round() for seed in (3, 4)]
    found = pooled(maps, regions, 16, 7, "pool").split([12, 12])
    for image in range(2):
        for own, (left, top, right, bottom) in zip(found[image], regions[image].tolist(), strict=True):
            assert torch.equal(own, caffe_pool(maps[image], (left, top, right - 1, bottom - 1), 16, 7))


def test_an_aligned_region_of_the_size_of_its_bins_is_the_map_itself():
    maps = torch.randn(1, 4, 14, 14, generator=generator())
    whole = [torch.tensor([[0.0, 0, 14 * 16, 14 * 16]])]
    assert torch.allclose(pooled(maps, whole, 16, 14, "align"), maps, atol=1e-6)


def test_an_aligned_region_between_the_positions_is_bilinear():
    maps = torch.randn(1, 2, 20, 24, generator=generator())
    left, top, size = 3.3, 5.7, 7
    own = pooled(maps, [torch.tensor([[left, top, left + size, top + size]]) * 16], 16, size, "align")
    x, y = torch.arange(size) + left + 0.5, torch.arange(size) + top + 0.5
    grid = torch.stack(torch.meshgrid(2 * x / 24 - 1, 2 * y / 20 - 1, indexing="xy"), -1)[None]
    assert torch.allclose(own, F.grid_sample(maps, grid, align_corners=False), atol=1e-4)


@pytest.mark.parametrize("pooling", ["pool", "align"])
def test_regions_may_be_missing_in_one_image_or_all(pooling):
    maps = torch.randn(2, 3, 6, 6, generator=generator(), requires_grad=True)
    one = torch.tensor([[0.0, 0, 40, 40]])
    found = pooled(maps, [torch.zeros(0, 4), one], 16, 7, pooling)
    assert torch.equal(found, pooled(maps[1:], [one], 16, 7, pooling))
    nothing = pooled(maps, [torch.zeros(0, 4)] * 2, 16, 7, pooling)
    assert nothing.shape == (0, 3, 7, 7)
    nothing.sum().backward()
    assert not maps.grad.any()


def test_coordinates_are_not_rounded_to_bf16():
    maps = torch.randn(1, 3, 40, 64, generator=generator()).bfloat16()
    regions = [random_boxes(20, (640, 1024), 5, (30, 400))]
    for pooling in ("pool", "align"):
        assert torch.equal(pooled(maps, regions, 16, 7, pooling), pooled(maps.float(), regions, 16, 7, pooling))


# --- suppression ---


@pytest.mark.parametrize(("dtype", "sides"), [(torch.float32, (2, 4)), (torch.bfloat16, (100, 300))])
def test_suppression_over_80_classes_is_that_of_each_class_alone(dtype, sides):
    """Boxes at 1000 pixels: moved apart in fp32, or compared in bf16, others would be kept."""
    # Pairs that overlap by little more or less than the limit.
    limit, count = 1 / math.pi, 6000
    ones = random_boxes(count // 2, (900, 900), 1, sides)
    shifts = (0.4 + torch.rand(count // 2, 1, generator=generator(4)) * 0.2) * (ones[:, 2:3] - ones[:, :1])
    boxes = torch.cat([ones, ones + shifts * torch.tensor([1, 0, 1, 0])]).to(dtype)
    labels = torch.randint(80, (count // 2,), generator=generator(3)).repeat(2)
    scores = torch.rand(count, generator=generator(2)).to(dtype)
    kept = by_class(boxes, scores, labels, limit, count)
    expected = torch.zeros(count, dtype=torch.bool)
    for label in range(80):
        own = (labels == label).nonzero().flatten()
        expected[own[nms(boxes[own].float(), scores[own].float(), limit)]] = True
    assert set(kept.tolist()) == set(expected.nonzero().flatten().tolist())
    assert (scores[kept].diff() <= 0).all()
    assert torch.equal(by_class(boxes, scores, labels, limit, 25), kept[:25])


def test_boxes_beyond_the_border_do_not_reach_another_class():
    boxes = torch.tensor([[-500.0, 0, -400, 100], [0, 0, 100, 100], [500, 0, 601, 100]])
    everything = [(box, label) for box in range(3) for label in range(6)]
    boxes, labels = boxes[[box for box, _ in everything]], torch.tensor([label for _, label in everything])
    assert len(by_class(boxes, torch.ones(18), labels, 0.0, 100)) == 18


def test_detections_pass_threshold_suppression_and_number():
    probabilities = torch.tensor([[0.1, 0.6, 0.3], [0.2, 0.7, 0.1], [0.9, 0.04, 0.06], [0.3, 0.0, 0.7]])
    own = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [30, 30, 40, 40], [0, 0, 0, 10]])
    boxes = own[:, None].repeat(1, 2, 1)
    found = best(probabilities, boxes, 0.05, 0.3, 100)
    # The first box of class 0 is suppressed by the second; class 1 keeps its own; the last box has no area.
    assert found.labels.tolist() == [0, 1, 1]
    assert torch.equal(found.boxes, own[[1, 0, 2]]) and torch.equal(found.scores, torch.tensor([0.7, 0.3, 0.06]))
    assert best(probabilities, boxes, 0.05, 0.3, 2).labels.tolist() == [0, 1]
    nothing = best(probabilities, boxes, 0.99, 0.3, 100)
    assert len(nothing) == 0 and nothing.boxes.shape == (0, 4)


# --- the plan ---


@pytest.mark.parametrize(
    ("field", "value"),
    [("anchor_scales", ()), ("anchor_ratios", (math.nan,)), ("side", 5), ("nms", math.nan), ("pooling", "max")],
)
def test_a_plan_without_sense_is_refused(field, value):
    with pytest.raises(InputError, match=field):
        DetectorPlan.of({field: value})
