"""Mask voting: against votes on whole pictures, pixel by pixel, and on cases worked by hand."""

import numpy as np
import pytest
import torch
from PIL import Image

from deepres.models.detection.outputs import Detections
from deepres.models.segmentation.voting import voted
from deepres.runtime.masks import decoded, mask_areas
from detection_scenes import generator, random_boxes
from regions_one_by_one import overlap as iou

SIZE = (60, 80)


def found(boxes, scores, labels):
    return Detections(torch.tensor(boxes, dtype=torch.float32).view(-1, 4), torch.tensor(scores), torch.tensor(labels))


def pasted(mask, box):
    """A mask in the whole picture: resized to its rounded box, and binarised at 0.4."""
    left, top, right, bottom = (round(edge) for edge in box)
    canvas = np.zeros(SIZE, dtype=bool)
    values = Image.fromarray(mask.numpy()).transform(
        (right - left, bottom - top),
        Image.Transform.AFFINE,
        # The centre of each pixel, in positions of the mask.
        (mask.shape[1] / (right - left), 0, 0, 0, mask.shape[0] / (bottom - top), 0),
        Image.Resampling.BILINEAR,
    )
    canvas[top:bottom, left:right] = np.asarray(values) >= 0.4
    return canvas


def random_case(seed):
    """Candidates of 24 to 50 pixels in clusters, and the five best of class 1 as detections."""
    few = random_boxes(4, (40, 60), seed, (24, 40))
    boxes = (few.repeat(6, 1) + 3 * torch.randn(24, 4, generator=generator(seed))).clamp(min=0)
    boxes = torch.minimum(boxes, torch.tensor([80.0, 60, 80, 60]))
    masks = torch.rand(24, 1, 4, 4, generator=generator(seed + 1))
    masks = torch.nn.functional.interpolate(masks, (21, 21), mode="bilinear")[:, 0]
    probabilities = torch.rand(24, 4, generator=generator(seed + 2)).softmax(1)
    scores, best = probabilities[:, 2].topk(5)
    return Detections(boxes[best], scores, torch.ones(5, dtype=torch.int64)), boxes, probabilities, masks


@pytest.mark.parametrize("seed", range(4))
def test_masks_are_those_of_votes_on_whole_pictures(seed):
    detections, boxes, probabilities, masks = random_case(seed)
    ours = voted(detections, boxes, probabilities, masks, 0.5, 0.4, SIZE)
    assert ours.scores.equal(detections.scores) and ours.labels.equal(detections.labels)
    several = 0
    for place, box in enumerate(detections.boxes.tolist()):
        near = [other for other, own in enumerate(boxes.tolist()) if iou(own, box) >= 0.5]
        several += len(near) > 1
        weights = [probabilities[other, 2].item() for other in near]
        votes = sum(
            weight / sum(weights) * pasted(masks[other], boxes[other].tolist())
            for other, weight in zip(near, weights, strict=True)
        )
        # A pixel may lie just at a limit, where rounding decides.
        assert (decoded(ours.masks)[place].bool().numpy() != (votes >= 0.4)).sum() <= 3
        assert (votes >= 0.4).any()
    assert several


def test_weights_are_the_probabilities_of_the_class_of_the_detection():
    """Two candidates of one box, whose masks are its left and its right half."""
    boxes = torch.tensor([[10.0, 10, 30, 30], [10, 10, 30, 30]])
    masks = torch.zeros(2, 20, 20)
    masks[0, :, :10], masks[1, :, 10:] = 1, 1
    probabilities = torch.tensor([[0.0, 0.7, 0.3], [0.0, 0.3, 0.7]])
    ours = voted(found([[10, 10, 30, 30]] * 2, [0.7, 0.7], [0, 1]), boxes, probabilities, masks, 0.5, 0.4, SIZE)
    assert ours.boxes.tolist() == [[10, 10, 20, 30], [20, 10, 30, 30]]
    assert mask_areas(ours.masks).tolist() == [200, 200]
    # Weights of 0.5 are enough for both halves.
    even = voted(found([[10, 10, 30, 30]], [0.5], [0]), boxes, torch.full((2, 3), 0.5), masks, 0.5, 0.4, SIZE)
    assert even.boxes.tolist() == [[10, 10, 30, 30]] and mask_areas(even.masks).tolist() == [400]


def test_votes_may_reach_out_of_the_box_of_the_detection():
    boxes = torch.tensor([[10.0, 10, 30, 30], [10, 10, 42, 30]])
    ours = voted(
        found([[10, 10, 30, 30]], [0.2], [0]),
        boxes,
        torch.tensor([[0.8, 0.2], [0.2, 0.8]]),
        torch.ones(2, 21, 21),
        0.5,
        0.4,
        SIZE,
    )
    assert ours.boxes.tolist() == [[10, 10, 42, 30]] and mask_areas(ours.masks).tolist() == [32 * 20]


def test_a_candidate_alone_keeps_its_mask_and_far_ones_do_not_vote():
    boxes = torch.tensor([[10.0, 10, 30, 30], [40, 10, 60, 30], [10, 10, 20, 20]])
    masks = torch.ones(3, 21, 21)
    ours = voted(found([[10, 10, 30, 30]], [0.1], [0]), boxes, torch.full((3, 2), 0.1), masks, 0.5, 0.4, SIZE)
    assert ours.boxes.tolist() == [[10, 10, 30, 30]] and mask_areas(ours.masks).tolist() == [400]
    assert voted(
        found([[10.3, 10.3, 30.2, 29.8]], [0.1], [0]),
        torch.tensor([[10.3, 10.3, 30.2, 29.8]]),
        torch.full((1, 2), 0.1),
        masks[:1],
        1.0,  # of its IoU with itself, too, which may be rounded
        0.4,
        SIZE,
    ).boxes.tolist() == [[10, 10, 30, 30]]


def test_where_no_pixel_wins_the_box_of_the_detection_stays():
    box = [[10.2, 9.8, 30.4, 30.0]]
    ours = voted(
        found(box, [0.9], [0]), torch.tensor(box), torch.tensor([[0.1, 0.9]]), torch.zeros(1, 21, 21), 0.5, 0.4, SIZE
    )
    assert ours.boxes.tolist() == [[10, 10, 30, 30]]
    assert ours.masks.known.all() and mask_areas(ours.masks).tolist() == [0]


def test_boxes_below_a_pixel_and_at_the_border_stay_inside():
    boxes = torch.tensor([[79.6, 59.7, 80.0, 60.0], [5.1, 5.1, 5.2, 5.2], [0, 0, 80, 60]])
    probabilities = torch.tensor([[0.1, 0.9]] * 3)
    ours = voted(found(boxes.tolist(), [0.9] * 3, [0] * 3), boxes, probabilities, torch.ones(3, 21, 21), 0.5, 0.4, SIZE)
    assert ours.boxes.tolist() == [[79, 59, 80, 60], [5, 5, 6, 6], [0, 0, 80, 60]]
    assert mask_areas(ours.masks).tolist() == [1, 1, 4800]


def test_no_detections_give_no_masks():
    ours = voted(found([], [], []), torch.zeros(0, 4), torch.zeros(0, 3), torch.zeros(0, 21, 21), 0.5, 0.4, SIZE)
    assert len(ours) == 0 and ours.boxes.shape == (0, 4) and len(ours.masks) == 0
