"""Localizers on pictures: where the boxes of a class are, of one or several networks, and an R-CNN stage."""

import pytest
import torch
from torchvision.ops import box_iou

from deepres.classification.views import Protocol as Views
from deepres.data.boxes.opening import open_boxes
from deepres.localization.error import centre_box, error_of, is_right
from deepres.localization.located_table import LocatedTable, read_located, write_located
from deepres.localization.protocol import Protocol
from deepres.localization.tester import Localizers, best, candidates, proposals, rescored
from deepres.models.catalog import build
from deepres.models.localization.localizer import Localizer
from deepres.runtime.errors import InputError
from one_object import write_pictures

DENSE = Protocol(Views("dense", (48, 64)))


def network(stage: str = "rpn", seed: int = 0) -> Localizer:
    torch.manual_seed(seed)
    plan = {"stage": stage, "crop": 48, "channels": 8, "anchor_scales": (1.0, 2.0)}
    net = build("localizer-resnet8", 5, localizer=plan)
    assert isinstance(net, Localizer)
    net.mean = torch.full((3, 48, 48), 0.5)
    with torch.no_grad():
        net.box.weight.mul_(20)
    return net.eval()


PICTURE = torch.randint(0, 256, (3, 60, 80), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("protocol", [Protocol(), DENSE])
def test_boxes_lie_in_the_picture_and_belong_to_the_asked_classes(protocol):
    net = network()
    both = Localizers([net]).locate(PICTURE, torch.tensor([3, 1]), protocol)
    assert both.boxes.shape == (2, 4)
    assert (both.boxes >= 0).all() and (both.boxes[:, [0, 2]] <= 80).all() and (both.boxes[:, [1, 3]] <= 60).all()
    alone = Localizers([net]).locate(PICTURE, torch.tensor([1]), protocol)
    torch.testing.assert_close(both.boxes[1], alone.boxes[0])
    torch.testing.assert_close(both.scores[1], alone.scores[0])


def test_the_dense_test_takes_the_best_of_all_its_views():
    net, label = network(), torch.tensor([2])
    found = Localizers([net]).locate(PICTURE, label, DENSE)
    each = [Localizers([net]).locate(PICTURE, label, Protocol(Views("dense", (side,)))) for side in (48, 64)]
    assert found.scores[0] == max(own.scores[0] for own in each)


def test_an_ensemble_has_the_boxes_of_all_its_networks():
    one, other = network(seed=0), network(seed=1)
    both = candidates([one, other], PICTURE, torch.tensor([2]), Protocol())[0]
    parts = [candidates([net], PICTURE, torch.tensor([2]), Protocol())[0] for net in (one, other)]
    assert torch.equal(both, torch.cat(parts, 1))


def test_proposals_are_the_best_boxes_that_overlap_little():
    boxes, scores = candidates([network()], PICTURE, torch.tensor([0]), DENSE)
    found, own = proposals(boxes[0], scores[0], Protocol(proposals=20))
    assert len(found) == 20
    assert own.tolist() == sorted(own.tolist(), reverse=True)
    assert own[0] == scores.max()
    overlap = box_iou(found, found).fill_diagonal_(0)
    assert overlap.max() <= 0.7


def test_an_empty_box_is_proposed_where_there_is_no_other():
    boxes, scores = torch.tensor([[5.0, 5, 5, 9], [7, 7, 7, 7]]), torch.tensor([0.2, 0.9])
    assert proposals(boxes, scores, Protocol())[0].tolist() == [[7, 7, 7, 7]]


def test_an_rcnn_stage_gives_regions_new_scores_and_boxes():
    rpn, stage = network(), network("rcnn", seed=2)
    label, how = torch.tensor([4]), Protocol(proposals=30)
    boxes, scores = candidates([rpn], PICTURE, label, how)
    regions = proposals(boxes[0], scores[0], how)[0]
    new, chances = rescored([stage], PICTURE, regions, 4)
    assert new.shape == regions.shape and not torch.equal(new, regions)
    found = Localizers.of([stage, rpn]).locate(PICTURE, label, how)
    assert torch.equal(found.boxes[0], new[chances.argmax()])
    assert found.scores[0] == chances.max()


def test_stages_of_an_ensemble_are_averaged():
    regions = torch.tensor([[0.0, 0, 30, 30], [20, 10, 80, 60]])
    nets = [network("rcnn", seed) for seed in (1, 2)]
    together = rescored(nets, PICTURE, regions, 1)[1]
    each = [rescored([net], PICTURE, regions, 1)[1] for net in nets]
    torch.testing.assert_close(together, (each[0] + each[1]) / 2)


def test_neighbours_vote_by_their_scores():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 12], [50, 50, 60, 60]])
    scores = torch.tensor([0.6, 0.2, 0.5])
    assert best(boxes, scores, 0.0)[0].tolist() == [0, 0, 10, 10]
    assert best(boxes, scores, 0.5)[0].tolist() == pytest.approx([0, 0, 10, 10.5])


def test_a_stage_without_an_rpn_is_refused():
    with pytest.raises(InputError, match="give the run of its RPN"):
        Localizers.of([network("rcnn")])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"views": Views("10-crop")}, "center or dense, not 10-crop"),
        ({"voting": 2.0}, "voting is 2.0"),
        ({"proposals": 0}, "proposals is 0, but must be from 1"),
    ],
)
def test_tests_that_make_no_sense_are_refused(changes, told):
    with pytest.raises(InputError, match=told):
        Protocol(**changes)


def test_a_localizer_keeps_the_classes_that_are_taken_in_their_order():
    net, again = network(), network()
    again.take_classes([3, 0])
    images = torch.randn(1, 3, 48, 48)
    for one, other in zip(net(images, torch.tensor([[3, 0]])), again(images, torch.tensor([[0, 1]])), strict=True):
        assert torch.equal(one, other)


def test_a_box_is_right_from_half_an_overlap_with_any_object_on():
    truth = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    boxes = torch.tensor([[0.0, 0, 10, 5], [0, 0, 10, 4.9], [20, 20, 30, 28]])
    assert is_right(boxes, truth).tolist() == [True, False, True]


def test_the_error_is_the_share_of_wrong_pictures_with_an_interval_around_it():
    found = error_of([True] * 30 + [False] * 10)
    assert found.error() == 25
    low, high = found.interval()
    assert low < 25 < high
    assert found.difference(error_of([True] * 40))[0] == 25


def test_the_box_in_the_middle_has_the_mean_size_of_the_objects(tmp_path):
    train = open_boxes(str(write_pictures(tmp_path, 6, 2)), lambda message: None).train
    left, top, right, bottom = centre_box(train).tolist()
    assert (left + right, top + bottom) == pytest.approx((1, 1))
    sides = [
        (train.truth(place).boxes[0, 2:] - train.truth(place).boxes[0, :2]) / train.sizes[place] for place in range(6)
    ]
    assert [right - left, bottom - top] == pytest.approx(torch.stack(sides).mean(0).tolist())


def test_a_table_comes_back_from_its_file_and_a_damaged_one_is_refused(tmp_path):
    table = LocatedTable("data", {"given": [True, False], "centre": [False, False]}, {"title": "RPN, center"})
    write_located(tmp_path / "a.json", table)
    assert read_located(tmp_path / "a.json") == table
    assert table.record()["errors"]["given"]["error"] == 50
    (tmp_path / "b.json").write_text('{"data": "d", "hits": {"given": [true], "top1": []}, "facts": {}}')
    with pytest.raises(InputError, match="other lengths"):
        read_located(tmp_path / "b.json")
