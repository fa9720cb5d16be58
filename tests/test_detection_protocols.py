"""Detectors under every test protocol: what a loop over single regions finds, and what must not change."""

import itertools

import pytest
import torch

from deepres.data.stream.loader import Reading
from deepres.detection.mean_ap.recall import proposal_recall
from deepres.detection.protocol import Protocol, longest_at, pyramid
from deepres.detection.tester import detected, detections, proposals_of
from deepres.models.detection.images import fitted, padded
from deepres.models.detection.plan import DetectorPlan
from deepres.runtime.errors import InputError
from detectors import box_index, detector, picture, same
from regions_one_by_one import found_by_loops

ALONE = Reading(workers=0)
REFINED = Protocol(refine=1, voting=0.5)
SCALES = (32, 48, 64)
EVERY = [
    Protocol(refine=refine, voting=voting, scales=scales)
    for refine, voting, scales in itertools.product((0, 1), (0.0, 0.5), ((), SCALES))
]


@pytest.mark.parametrize("context", [False, True])
@pytest.mark.parametrize("networks", [1, 2])
@pytest.mark.parametrize("protocol", [*EVERY, Protocol(refine=3, side=40)], ids=lambda own: own.title())
def test_every_combination_finds_what_a_loop_over_single_regions_finds(protocol, networks, context):
    others = detector(7, "plain20", ("cow", "ant", "bee"), 0.5, side=56, context=context)
    nets = [detector(3, context=context), others][:networks]
    [found] = detected(nets, protocol, [picture(1)])
    assert len(found) > 5
    same(found, found_by_loops(nets, protocol, picture(1)), 1e-4)


@pytest.mark.parametrize("plan", [{}, {"context": True}, {"pooling": "pool"}, {"region_size": 7}], ids=str)
def test_one_detector_at_one_scale_gives_exactly_what_detect_gives(plan):
    net, images = detector(2, **plan), [picture(0), picture(1, 90, 40)]
    for found, wanted in zip(detected([net], Protocol(), images), net.detect(images), strict=True):
        assert len(wanted) > 3
        same(found, wanted)


def test_no_round_of_refinement_one_scale_and_an_ensemble_of_a_network_with_itself_change_nothing():
    net, image = detector(4), picture(2)
    [wanted] = net.detect([image])
    for nets, protocol in (
        ([net], Protocol(refine=0)),
        ([net], Protocol(scales=(net.plan.side,))),
        ([net, net], Protocol()),
        ([net, net, net], Protocol(scales=(net.plan.side,))),
    ):
        same(detected(nets, protocol, [image])[0], wanted)


def test_each_improvement_changes_what_is_found():
    net, image = detector(4), picture(2)
    [plain] = net.detect([image])
    for nets, protocol in (
        ([net], Protocol(refine=1)),
        ([net], Protocol(voting=0.5)),
        ([net], Protocol(scales=SCALES)),
        ([net, detector(5)], Protocol()),
    ):
        [found] = detected(nets, protocol, [image])
        assert found.boxes.shape != plain.boxes.shape or not torch.equal(found.boxes, plain.boxes)


@pytest.mark.parametrize("protocol", [*EVERY, Protocol(side=96)], ids=lambda own: own.title())
def test_no_proposals_and_no_detections_give_empty_tensors(protocol):
    none_proposed = detector(1, smallest=1000.0, context=True)
    none_found = detector(1, threshold=1.0, context=True)
    for nets in ([none_proposed], [none_found], [none_found, none_proposed], [none_proposed, none_proposed]):
        for image in (picture(), torch.zeros(3, 40, 60, dtype=torch.uint8), torch.zeros(3, 1, 1, dtype=torch.uint8)):
            [found] = detected(nets, protocol, [image])
            assert found.boxes.shape == (0, 4) and found.scores.shape == found.labels.shape == (0,)
            assert found.labels.dtype == torch.int64


@pytest.mark.parametrize("pooling", ["pool", "align"])
def test_a_network_that_has_diverged_ends_a_refinement(pooling):
    net = detector(1, pooling=pooling)
    net.box.weight.data[:4] = torch.nan
    net.box.weight.data[4:8] = torch.inf
    [found] = detected([net], REFINED, [picture(1)])
    assert len(found)


def test_detections_lie_in_the_picture_whatever_its_size_and_the_sizes_that_the_networks_see():
    nets = [detector(0, side=40), detector(1, side=72)]
    for height, width in ((40, 90), (90, 40), (500, 400), (7, 5), (3, 300)):
        [found] = detected(nets, Protocol(refine=1, voting=0.5, scales=SCALES), [picture(3, height, width)])
        assert len(found) or height == 3  # whose proposals are too small
        assert (found.boxes >= 0).all()
        assert (found.boxes <= torch.tensor([width, height, width, height]) + 1e-3).all()
        assert (found.scores.diff() <= 0).all()


@pytest.mark.parametrize("workers", [0, 2])
def test_the_pictures_of_an_index_give_what_their_pixels_give(tmp_path, workers):
    sizes = [(50, 80), (90, 40), (60, 60)]
    index, nets = box_index(tmp_path / "data", sizes), [detector(0), detector(1, side=48)]
    places, done = torch.tensor([2, 0]), []
    made = detections(nets, REFINED, index, places, Reading(workers=workers), done.append)
    for (place, found), wanted in zip(made, places.tolist(), strict=True):
        assert place == wanted
        same(found, detected(nets, REFINED, [picture(place, *sizes[place])])[0])
    assert done == [1, 2]


def test_a_picture_that_does_not_decode_is_refused_or_told_and_has_no_detections(tmp_path):
    index, told = box_index(tmp_path / "data", [(50, 80), (60, 60)]), []
    file = tmp_path / "data/JPEGImages/0.png"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(InputError, match=r"0\.png"):
        list(detections([detector()], Protocol(), index, torch.arange(2), ALONE))
    reading = Reading(workers=0, skip_bad=True, say=told.append)
    found = dict(detections([detector()], Protocol(), index, torch.arange(2), reading))
    assert [len(found[place]) > 0 for place in range(2)] == [False, True]
    assert len(told) == 1 and "0.png" in told[0]
    boxes = {place: boxes for place, boxes, _ in proposals_of(detector(), index, torch.arange(2), reading, 5)}
    assert boxes[0].shape == (0, 4) and boxes[1].shape == (5, 4)


def test_proposals_are_those_of_the_network_in_pixels_of_the_picture(tmp_path):
    sizes = [(50, 80), (128, 128)]
    index, net = box_index(tmp_path / "data", sizes), detector(6)
    for place, boxes, logits in proposals_of(net, index, torch.arange(2), ALONE, count=8):
        assert len(boxes) == len(logits) == 8
        assert (logits.diff() <= 0).all()
        height, width = sizes[place]
        assert (boxes >= 0).all() and (boxes <= torch.tensor([width, height, width, height]) + 1e-3).all()
    # A picture of 128 pixels is seen with 48: the second one.
    seen = padded([fitted(picture(1, 128, 128), 48, 84)], net.mean)
    with torch.no_grad():
        own = net.proposals(*net.anchored(net.shared(seen)), [(48, 48)], net.selection)[0]
    torch.testing.assert_close(boxes, own[:8] * (128 / 48))


def test_more_proposals_cover_more_objects(tmp_path):
    index, net = box_index(tmp_path / "data", [(50, 80), (60, 60), (90, 40)]), detector(6, nms=0.9)
    found = [boxes for _, boxes, _ in proposals_of(net, index, torch.arange(3), ALONE, 1000)]
    few, many = proposal_recall([index.truth(place) for place in range(3)], found, (1, 1000))
    assert few.average < many.average
    assert many.recall == 1


def test_more_proposals_than_a_test_has_can_be_asked_for(tmp_path):
    index, net = box_index(tmp_path / "data", [(50, 80)]), detector(6)
    counts = [
        len(next(proposals_of(net, index, torch.arange(1), ALONE, count, before))[1])
        for count, before in ((10, 6000), (10_000, 6000), (10_000, 20))
    ]
    assert counts[0] == 10 < counts[1] and counts[2] <= 20


def test_settings_of_the_protocol_replace_those_of_the_plan():
    net, image = detector(2), picture(1)
    [few] = detected([net], Protocol(most=2), [image])
    [all_of_them] = net.detect([image])
    same(few, type(few)(all_of_them.boxes[:2], all_of_them.scores[:2], all_of_them.labels[:2]))
    [high] = detected([net], Protocol(threshold=0.5), [image])
    assert 0 < len(high) < len(all_of_them) and (high.scores > 0.5).all()
    other = detector(2, side=96, longest=168, proposals=5, nms=0.6)
    other.load_state_dict(net.state_dict())
    same(detected([net], Protocol(side=96, proposals=5, nms=0.6), [image])[0], other.detect([image])[0])


def test_the_longest_side_grows_with_the_shorter_one_unless_it_is_given():
    plan = DetectorPlan(side=600, longest=1000)
    assert Protocol(side=300).plan(plan).longest == 500
    assert Protocol(side=300, longest=1000).plan(plan).longest == 1000
    assert Protocol().plan(plan) == plan
    assert [longest_at(side, plan) for side in pyramid(600)] == [333, 667, 1000, 1333, 1667]
    assert longest_at(4_096, DetectorPlan(side=32, longest=8_192)) == 8_192


def test_the_pyramid_is_that_of_the_paper_or_in_proportion():
    assert pyramid(600) == (200, 400, 600, 800, 1000)
    assert pyramid(320) == (107, 213, 320, 427, 533)


@pytest.mark.parametrize("side", [32, 48, 600, 4_000, 4_096])
def test_the_pyramid_of_any_side_is_a_protocol(side):
    scales = Protocol(scales=pyramid(side)).scales
    assert side in scales and list(scales) == sorted(scales)


@pytest.mark.parametrize(
    ("protocol", "context", "networks", "title"),
    [
        (Protocol(), False, 1, "baseline"),
        (REFINED, False, 1, "+ box refinement"),
        (Protocol(refine=1), False, 1, "+ box refinement without voting"),
        (Protocol(voting=0.5), False, 1, "+ box voting"),
        (REFINED, True, 1, "+ box refinement + context"),
        (Protocol(refine=1, voting=0.5, scales=SCALES), True, 1, "+ box refinement + context + multi-scale testing"),
        (Protocol(scales=(64,)), False, 1, "baseline"),
        (Protocol(), False, 3, "+ ensemble of 3"),
    ],
)
def test_a_protocol_names_its_row(protocol, context, networks, title):
    assert protocol.title(context, networks) == title


def test_facts_are_all_settings_of_the_test():
    assert Protocol(side=300, refine=1, voting=0.5, scales=(200, 400)).facts(DetectorPlan()) == {
        "side": 300,
        "longest": 500,
        "scales": [200, 400],
        "refine": 1,
        "voting": 0.5,
        "proposals": 300,
        "threshold": 0.05,
        "nms": 0.3,
        "most": 100,
    }


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"side": 8}, "side is 8, but must be from 32 to 4,096"),
        ({"longest": 20_000}, "longest is 20000, but"),
        ({"threshold": 1.5}, "threshold is 1.5, but must be from 0 to 1"),
        ({"nms": float("nan")}, "nms is nan, but"),
        ({"most": 0}, "most is 0, but"),
        ({"proposals": 0}, "proposals is 0, but"),
        ({"refine": -1}, "refine is -1, but must be from 0 to 10"),
        ({"refine": 11}, "refine is 11, but must be from 0 to 10"),
        ({"voting": 1.1}, "voting is 1.1, but must be from 0 to 1"),
        ({"scales": (64, 64)}, "scales are 64, 64, but must be up to 16 that differ"),
        ({"scales": tuple(range(40, 57))}, "but must be up to 16 that differ"),
        ({"scales": (16, 64)}, "scales are 16, 64, but must be from 32 to 4,096 pixels"),
    ],
)
def test_values_that_make_no_sense_are_refused_in_a_sentence(values, sentence):
    with pytest.raises(InputError) as refusal:
        Protocol(**values)
    assert sentence in str(refusal.value)


def test_the_side_and_longest_side_of_a_protocol_may_contradict_only_within_bounds():
    with pytest.raises(InputError, match="longest is"):
        Protocol(longest=31)
    assert Protocol(longest=32).plan(DetectorPlan()).longest == 32
