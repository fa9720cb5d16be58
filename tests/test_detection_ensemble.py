"""Several detectors as one: whose proposals are scored, what is averaged, and which networks go together."""

import pytest
import torch

from deepres.detection.ensemble import averaged, members_of, union
from deepres.detection.protocol import Protocol
from deepres.detection.tester import detected
from deepres.models.catalog import build
from deepres.models.detection.detector import RegionOutputs
from deepres.runtime.errors import InputError
from detectors import PLAN, detector, picture, same


def test_the_union_keeps_each_box_once_in_the_order_of_the_members():
    first = torch.tensor([[5.0, 5, 9, 9], [0, 0, 4, 4]])
    second = torch.tensor([[1.0, 1, 3, 3], [0, 0, 4, 4], [2, 2, 8, 8], [1, 1, 3, 3]])
    assert union([first]).tolist() == first.tolist()
    assert union([first, second]).tolist() == [*first.tolist(), [1, 1, 3, 3], [2, 2, 8, 8]]
    assert union([first, first, first]).tolist() == first.tolist()
    assert union([first[:0], second[:0]]).shape == (0, 4)


def test_scores_and_boxes_are_means_class_by_class():
    nets = [detector(0), detector(1, classes=("cow", "ant", "bee"))]
    members = members_of(nets, Protocol())
    logits, deltas = torch.rand(2, 4, 4) * 5, torch.rand(2, 4, 3, 4)
    scores, moves = averaged(members, [RegionOutputs(*own) for own in zip(logits, deltas, strict=True)])
    own, other = logits.softmax(2)
    torch.testing.assert_close(scores, (own + other[:, [0, 2, 3, 1]]) / 2)
    torch.testing.assert_close(moves, (deltas[0] + deltas[1][:, [1, 2, 0]]) / 2)


def test_an_ensemble_with_the_same_network_in_another_order_of_classes_changes_nothing():
    net, other = detector(3), detector(4, classes=("bee", "cow", "ant"))
    rows = [1, 2, 0]  # of bee, cow and ant
    state = net.state_dict()
    state["score.weight"] = state["score.weight"][[0, *(1 + row for row in rows)]]
    state["score.bias"] = state["score.bias"][[0, *(1 + row for row in rows)]]
    for name in ("box.weight", "box.bias"):
        state[name] = state[name].unflatten(0, (3, 4))[rows].flatten(0, 1)
    other.load_state_dict(state)
    for protocol in (Protocol(), Protocol(refine=1, voting=0.5, scales=(32, 48))):
        [wanted], [found] = detected([net], protocol, [picture(1)]), detected([net, other], protocol, [picture(1)])
        assert len(found) > 3
        same(found, wanted, 1e-5)


def test_members_of_other_backbones_sizes_and_means_are_tested_as_each_was_trained():
    # The second network finds nothing but proposals; the scores of the first one are halved by it.
    net, other = detector(3), detector(5, "resnet18", mean=0.1, side=72, longest=126, context=True, pooling="pool")
    other.score.weight.data.zero_()
    other.score.bias.data.copy_(torch.tensor([50.0, 0, 0, 0]))
    [found] = detected([net, other], Protocol(threshold=0.0, most=1000), [picture(1)])
    assert len(found) > 10 and found.scores.max() <= 0.5
    seen = []
    shared = other.shared
    other.shared = lambda x: seen.append(x) or shared(x)
    detected([net, other], Protocol(), [picture(1)])
    assert [tuple(own.shape[2:]) for own in seen] == [(72, 115)]
    assert seen[0].min() >= -0.1 - 1e-6 and seen[0].max() > 0.6


def test_the_proposals_of_all_members_are_scored():
    nets = [detector(0), detector(1), detector(2)]
    counted = []
    siblings = nets[0].siblings
    nets[0].siblings = lambda features: counted.append(len(features)) or siblings(features)
    detected(nets, Protocol(), [picture(1)])
    detected(nets, Protocol(proposals=4, refine=1), [picture(1)])
    assert counted == [30, 12, 12]


@pytest.mark.parametrize(
    ("nets", "sentence"),
    [
        (lambda: [], "there is no detector to test"),
        (lambda: [detector(0), detector(1, classes=("ant", "bee"))], "the first lacks cow"),
        (lambda: [detector(0), detector(1, classes=("ant", "bee", "dog"))], r"\(network 2 of 2\) knows the classes"),
        (lambda: [detector(0), of_gray()], r"images of 1 channels, and .* of 3; give detectors of the same images"),
        (lambda: [detector(0), without_mean()], "holds no mean"),
    ],
)
def test_networks_that_do_not_go_together_are_refused_in_a_sentence(nets, sentence):
    with pytest.raises(InputError, match=sentence):
        detected(nets(), Protocol(), [picture()])


def test_classes_without_names_are_taken_by_their_place_and_told():
    net, other, told = detector(0), detector(1), []
    del other.header["classes"]
    members = members_of([net, other], Protocol(), told.append)
    assert members[1].columns.tolist() == [0, 1, 2]
    assert len(told) == 1 and "by their place" in told[0]


def of_gray():
    net = build("faster-rcnn-resnet20", 3, 1, detector=PLAN)
    net.header["classes"] = ["ant", "bee", "cow"]
    return net


def without_mean():
    net = detector(1)
    net.mean = None
    return net
