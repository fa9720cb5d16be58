"""What a run of detection begins with: random weights, those of a backbone, or those of a detector."""

import dataclasses

import pytest
import torch

from deepres.detection.begin import begin
from deepres.detection.recipe import DetectionConfig
from deepres.models.catalog import build
from deepres.runtime.errors import InputError
from deepres.weights.start import Start
from detection_scenes import PLAN
from networks import randomise

CONFIG = DetectionConfig("faster-rcnn-resnet18", "data", **{name: PLAN[name] for name in PLAN})
CLASSES = ("ant", "bee", "cow")


def backbone(name="resnet18", **how) -> Start:
    """A trained classifier: noise in every tensor, but for AlexNet, whose layers are too large for it."""
    net = build(name, 5, **how)
    return Start(net if name == "alexnet" else randomise(net), b"")


def detector(classes=CLASSES, **plan) -> Start:
    """A trained detector: noise in every tensor."""
    net = randomise(build("faster-rcnn-resnet18", len(classes), detector=PLAN | plan))
    net.header["classes"] = list(classes)
    return Start(net, b"")


def begun(start, classes=CLASSES, config=CONFIG):
    said = []
    torch.manual_seed(0)
    return begin(config, classes, start, said.append), said


def test_without_weights_a_detector_has_the_start_values_of_its_seed():
    ones, others = begun(None)[0].state_dict(), begun(None)[0].state_dict()
    assert all(torch.equal(value, others[name]) for name, value in ones.items())
    torch.manual_seed(0)
    plain = build("faster-rcnn-resnet18", 3, detector=dataclasses.asdict(CONFIG.plan)).state_dict()
    assert all(torch.equal(value, plain[name]) for name, value in ones.items())


@pytest.mark.parametrize("name", ["resnet18", "resnet20-b", "alexnet", "googlenet"])
def test_all_weights_of_a_backbone_but_the_last_layer_land(name):
    start = backbone(name)
    net, _ = begun(start, config=dataclasses.replace(CONFIG, network=f"faster-rcnn-{name}"))
    trained, own = start.net.state_dict(), net.features.state_dict()
    assert own and all(torch.equal(value, trained[key]) for key, value in own.items())
    left = {key.rpartition(".")[0] for key in trained.keys() - own.keys() if not key.startswith("aux")}
    assert left == {"classifier.6" if name == "alexnet" else "fc"}


def test_the_structure_of_a_backbone_is_that_of_its_weights():
    start = backbone("resnet50", stride_on="3x3", pool_padding=0)
    net, _ = begun(start, config=dataclasses.replace(CONFIG, network="faster-rcnn-resnet50"))
    assert (net.header["stride_on"], net.header["pool_padding"]) == ("3x3", 0)
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = start.net.feature_map(image, until="conv4_x")
        assert torch.equal(net.eval().shared(image), expected)


def test_a_detector_of_the_same_classes_is_taken_whole():
    start = detector()
    net, _ = begun(start)
    trained = start.net.state_dict()
    assert all(torch.equal(value, trained[key]) for key, value in net.state_dict().items())


def test_classes_in_another_order_take_their_scores_and_boxes_along():
    start = detector()
    net, _ = begun(start, ("cow", "ant", "bee"))
    features = torch.randn(4, 512, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        (logits, deltas), (theirs, moves) = net.siblings(features), start.net.siblings(features)
    assert torch.allclose(logits, theirs[:, [0, 3, 1, 2]]) and torch.allclose(deltas, moves[:, [2, 0, 1]])
    assert torch.equal(net.rpn.conv.weight, start.net.rpn.conv.weight)


@pytest.mark.parametrize("classes", [("ant", "bee", "dog"), ("ant",), ("ant", "bee", "cow", "dog")])
def test_for_other_classes_scores_and_boxes_begin_anew_and_that_is_said(classes):
    start = detector()
    net, said = begun(start, classes)
    fresh = begun(None, classes)[0].state_dict()
    trained = start.net.state_dict()
    for key, value in net.state_dict().items():
        is_head = key.startswith(("score", "box"))
        assert torch.equal(value, (fresh if is_head else trained)[key])
    assert len(said) == 1 and "are not those of the weights" in said[0]


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (lambda: backbone("resnet34"), "the weights are of resnet34, not of resnet18"),
        (lambda: backbone("resnet18", in_channels=1), "1 channels"),
        (lambda: detector(rpn_channels=32), "rpn.conv.weight has another shape"),
        (lambda: detector(context=True), "score.weight has another shape"),
        (lambda: detector(anchor_scales=(1.0,)), "rpn.objectness.weight has another shape"),
    ],
)
def test_weights_that_do_not_fit_are_refused_in_one_sentence(start, said):
    with pytest.raises(InputError, match=said):
        begun(start())
