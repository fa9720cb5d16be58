"""Box refinement and box voting, held to loops and to cases worked by hand."""

import pytest
import torch

from deepres.detection.refinement import likeliest, refined, voted
from deepres.models.detection.detections import suppressed
from deepres.models.detection.outputs import Detections
from random_boxes import detections
from regions_one_by_one import overlap


def predict(regions):
    """One class is the likelier the farther right a region lies; boxes of class 0 move right, of class 1 down."""
    share = (regions[:, 0] / 100).clamp(0, 1)
    scores = torch.stack([torch.full_like(share, 0.9), 0.1 * share, 0.1 * (1 - share)], 1)
    moves = torch.tensor([[10.0, 0, 10, 0], [0, 10, 0, 10]])
    return scores, regions[:, None] + moves


def test_each_round_pools_from_the_boxes_of_the_likeliest_class_and_all_predictions_are_joined():
    regions = torch.tensor([[80.0, 0, 90, 10], [0, 0, 10, 10]])
    scores, boxes = refined(predict, regions, 2)
    assert scores.shape == (6, 3) and boxes.shape == (6, 2, 4)
    wanted = torch.stack([regions, torch.tensor([[90.0, 0, 100, 10], [0, 10, 10, 20]])])
    wanted = torch.cat([*wanted, torch.tensor([[100.0, 0, 110, 10], [0, 20, 10, 30]])])
    torch.testing.assert_close(boxes, predict(wanted)[1])
    torch.testing.assert_close(scores, predict(wanted)[0])


def test_no_round_leaves_the_predictions_as_they_are():
    regions = torch.rand(5, 4) * 100
    for found, wanted in zip(refined(predict, regions, 0), predict(regions), strict=True):
        assert torch.equal(found, wanted)


def test_the_background_is_never_the_likeliest_class():
    boxes = torch.arange(8.0).view(1, 2, 4)
    assert likeliest(torch.tensor([[0.98, 0.005, 0.015]]), boxes).tolist() == [[4, 5, 6, 7]]
    assert likeliest(torch.zeros(0, 3), torch.zeros(0, 2, 4)).shape == (0, 4)


def test_a_vote_is_the_mean_of_the_neighbours_weighted_by_score_and_the_score_stays():
    # The second candidate overlaps the first by 0.8, the third by 1/3, and the fourth is of another class.
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8], [0, 5, 10, 15], [0, 0, 10, 9]])
    scores, labels = torch.tensor([0.6, 0.3, 0.5, 0.9]), torch.tensor([0, 0, 0, 1])
    found = voted(detections([[0, 0, 10, 10], [0, 0, 10, 9]], [0.6, 0.9], [0, 1]), boxes, scores, labels, 0.5)
    torch.testing.assert_close(found.boxes, torch.tensor([[0, 0, 10, (0.6 * 10 + 0.3 * 8) / 0.9], [0, 0, 10, 9]]))
    assert found.scores.tolist() == pytest.approx([0.6, 0.9]) and found.labels.tolist() == [0, 1]


def test_an_overlap_of_just_the_limit_votes():
    boxes, labels = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5]]), torch.tensor([0, 0])
    found = voted(detections([[0, 0, 10, 10]], [0.5]), boxes, torch.tensor([0.5, 0.5]), labels, 0.5)
    torch.testing.assert_close(found.boxes, torch.tensor([[0.0, 0, 10, 7.5]]))


def test_where_nothing_overlaps_voting_changes_no_bit():
    boxes = torch.rand(40, 4) * torch.tensor([7.0, 7, 3, 3])
    corners = torch.stack([torch.arange(40) * 20.0, torch.arange(40) * 11.0], 1)
    boxes = torch.cat([corners + boxes[:, :2], corners + boxes[:, :2] + boxes[:, 2:]], 1)
    scores, labels = torch.rand(40).sort(descending=True).values, torch.randint(3, (40,))
    found = voted(Detections(boxes, scores, labels), boxes, scores, labels, 0.5)
    assert torch.equal(found.boxes, boxes) and torch.equal(found.scores, scores)


def test_boxes_without_an_area_and_pictures_without_detections_pass():
    flat = detections([[3, 4, 3, 9], [0, 0, 5, 5]], [0.7, 0.6])
    found = voted(flat, flat.boxes, flat.scores, flat.labels, 0.5)
    assert torch.equal(found.boxes, flat.boxes)
    none = detections()
    assert voted(none, none.boxes, none.scores, none.labels, 0.5).boxes.shape == (0, 4)


@pytest.mark.parametrize("seed", range(20))
def test_random_votes_equal_those_of_a_loop(seed):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(60, 2, generator=generator) * 40
    boxes = torch.cat([corners, corners + 5 + torch.rand(60, 2, generator=generator) * 30], 1)
    scores, labels = torch.rand(60, generator=generator), torch.randint(3, (60,), generator=generator)
    kept = suppressed(boxes, scores, labels, 0.3, 100)
    found = voted(kept, boxes, scores, labels, 0.5)
    voters = list(zip(boxes.tolist(), scores.tolist(), labels.tolist(), strict=True))
    for box, label, new in zip(kept.boxes.tolist(), kept.labels.tolist(), found.boxes.tolist(), strict=True):
        near = [(own, score) for own, score, kind in voters if kind == label and overlap(own, box) >= 0.5]
        total = sum(score for _, score in near)
        assert new == pytest.approx([sum(own[side] * score for own, score in near) / total for side in range(4)])
