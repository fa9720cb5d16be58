"""The network of a localizer, and what its anchors learn (Appendix C)."""

import json

import pytest
import torch
from torchvision.ops import box_iou

from deepres.localization.loss import losses
from deepres.localization.targets import Rule, draw, rule_of
from deepres.models.catalog import build, entry
from deepres.models.detection.boxes import encode
from deepres.models.localization.localizer import Localizer, PerClass
from deepres.runtime.errors import InputError

SMALL = {"crop": 64, "channels": 8, "anchor_scales": (1.0, 2.0)}


def small(network: str = "resnet8", classes: int = 5, **plan: object) -> Localizer:
    torch.manual_seed(0)
    net = build(f"localizer-{network}", classes, localizer=SMALL | plan)
    assert isinstance(net, Localizer)
    return net.eval()


def test_outputs_of_asked_classes_are_rows_of_the_whole_convolution():
    layer = PerClass(6, 7, 3, std=1.0)
    maps, asked = torch.randn(2, 6, 4, 5), torch.tensor([[6, 0], [3, 3]])
    whole, some = layer(maps), layer(maps, asked)
    assert some.shape == (2, 2, 3, 4, 5)
    for image in range(2):
        torch.testing.assert_close(some[image], whole[image][asked[image]])


def test_a_thousand_classes_form_no_map_of_all_of_them():
    layer = PerClass(512, 1000, 36, std=0.01)
    largest = 0

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            made = func(*args, **(kwargs or {}))
            if isinstance(made, torch.Tensor) and made is not layer.weight and made.numel() != layer.weight.numel():
                largest = max(largest, made.numel())
            return made

    with Watch(), torch.no_grad():
        layer(torch.randn(4, 512, 7, 7), torch.tensor([[1], [2], [3], [999]]))
    assert largest == 4 * 512 * 7 * 7  # the input; a map of all classes would have 4 * 36000 * 49


@pytest.mark.parametrize("network", ["resnet8", "resnet18", "vgg16"])
@pytest.mark.parametrize("stage", ["rpn", "rcnn"])
def test_logits_boxes_and_anchors_belong_together(network: str, stage: str):
    crop = 224 if network == "vgg16" else 64
    if network == "vgg16":
        with torch.device("meta"):
            net = build("localizer-vgg16", 5, localizer=SMALL | {"stage": stage, "crop": crop})
        found = net(torch.zeros(2, 3, crop, crop, device="meta"), torch.zeros(2, 3, dtype=torch.int64, device="meta"))
    else:
        net = small(network, stage=stage)
        found = net(torch.zeros(2, 3, crop, crop), torch.tensor([[0, 4, 2], [1, 1, 3]]))
    assert found.logits.shape == (2, 3, len(found.anchors))
    assert found.deltas.shape == (2, 3, len(found.anchors), 4)
    if stage == "rcnn":
        assert found.anchors.shape == (1, 4)


def test_an_output_at_an_anchor_comes_from_the_position_under_it():
    net = small()
    with torch.no_grad():
        net.conv.weight.zero_()
        net.conv.weight[0, 0, 1, 1] = 1.0
        net.score.weight.zero_()
        net.score.weight[:, 0] = 1.0
    net.features = _OneBright(net.features)
    found = net(torch.zeros(1, 3, 64, 64), torch.tensor([[2]]))
    brightest = found.logits[0, 0] == found.logits.max()
    centres = (found.anchors[brightest, :2] + found.anchors[brightest, 2:]) / 2
    # Position (5, 3) of a map with a stride of 4: its centre is in the middle of that cell.
    assert centres.unique(dim=0).tolist() == [[14.0, 22.0]]


class _OneBright(torch.nn.Module):
    """A backbone whose map is 1 at row 5 and column 3 of channel 0."""

    def __init__(self, features: torch.nn.Module):
        super().__init__()
        self.inner = features

    def large_enough(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def feature_map(self, x: torch.Tensor, until: str | None = None) -> torch.Tensor:
        made = torch.zeros_like(self.inner.feature_map(x))
        made[:, 0, 5, 3] = 1
        return made


def test_anchors_are_those_of_the_mirrored_image_mirrored():
    anchors = small()(torch.zeros(1, 3, 64, 64)).anchors
    mirrored = torch.stack([64 - anchors[:, 2], anchors[:, 1], 64 - anchors[:, 0], anchors[:, 3]], 1)
    assert {tuple(own) for own in anchors.tolist()} == {tuple(own) for own in mirrored.tolist()}


def test_an_image_of_any_size_has_anchors_all_over_it():
    found = small()(torch.zeros(1, 3, 64, 96), torch.tensor([[1]]))
    centres = (found.anchors[:, :2] + found.anchors[:, 2:]) / 2
    assert centres.amin(0).tolist() == [2, 2]
    assert centres.amax(0).tolist() == [94, 62]


def test_a_localizer_is_built_again_from_its_header():
    net = small("resnet14", stage="rcnn")
    again = build(net.name, net.header["num_classes"], localizer=net.header["localizer"])
    again.load_state_dict(net.state_dict())
    assert entry(net.name).task == "localization"


@pytest.mark.parametrize(
    ("name", "plan", "told"),
    [
        ("localizer-localizer-resnet8", {}, "a localizer is no backbone of another one"),
        ("localizer-faster-rcnn-resnet8", {}, "a detector is no backbone of another one"),
        ("localizer-resnet8", {"map": "conv9_x"}, "has no map 'conv9_x'"),
        ("localizer-resnet8", {"stage": "third"}, "must be rpn or rcnn"),
        ("localizer-resnet8", {"anchor_scales": ()}, "anchor_scales is empty"),
        ("localizer-prelu-net", {}, "cannot be a backbone"),
    ],
)
def test_what_makes_no_localizer_is_refused(name: str, plan: dict[str, object], told: str):
    with torch.device("meta"), pytest.raises(InputError, match=told):
        build(name, 2, localizer=plan)


def test_layers_behind_the_map_are_told_to_be_idle():
    assert small("resnet18", map="conv4_x").idle() == ["conv5_x"]
    assert small("resnet18").idle() == []
    with torch.device("meta"):
        vgg = build("localizer-vgg16", 2, localizer={})
    assert isinstance(vgg, Localizer)
    assert vgg.idle() == ["fc6", "fc7"]


ANCHORS = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8], [5, 5, 15, 15], [40, 40, 50, 50], [60, 60, 70, 70]])


def test_half_of_the_drawn_anchors_are_positive_at_most():
    # One hundred anchors on the object, one thousand beside it.
    on = torch.tensor([[10.0, 10, 30, 30]]).repeat(100, 1)
    beside = torch.tensor([[100.0, 100, 130, 130]]).repeat(1000, 1)
    drawn = draw(torch.cat([on, beside]), torch.tensor([[[10.0, 10, 30, 30]]] * 3), rule_of("rpn", 8))
    assert drawn.positive.sum(1).tolist() == [4, 4, 4]
    assert drawn.negative.sum(1).tolist() == [4, 4, 4]
    assert not drawn.positive[:, 100:].any()
    assert not drawn.negative[:, :100].any()
    assert len(drawn.positive.unique(dim=0)) == 3, "each image has a draw of its own"


def test_negatives_fill_up_what_positives_leave():
    drawn = draw(ANCHORS, torch.tensor([[[0.0, 0, 10, 10]]]), rule_of("rpn", 4))
    # Anchors 0 and 1 overlap it by 0.7 and more, number 2 by less than 0.3.
    assert drawn.positive.tolist() == [[True, True, False, False, False]]
    assert drawn.negative.sum() == 2


def test_the_best_anchor_of_a_box_is_positive_in_an_rpn_alone():
    far = torch.tensor([[[42.0, 42, 80, 80]]])
    assert draw(ANCHORS, far, rule_of("rpn", 8)).positive.tolist() == [[False, False, False, False, True]]
    assert not draw(ANCHORS, far, Rule(0.7, 0.3, False, 8, 0.5)).positive.any()


def test_of_an_image_without_boxes_nothing_is_drawn():
    boxes = torch.tensor([[[0.0, 0, 0, 0]], [[0, 0, 10, 10]]])
    drawn = draw(ANCHORS, boxes, rule_of("rpn", 8))
    assert not (drawn.positive | drawn.negative)[0].any()
    assert drawn.negative[1].any()


def test_a_region_is_positive_from_half_an_overlap_on():
    region = torch.tensor([[0.0, 0, 10, 10]])
    boxes = torch.tensor([[[0.0, 0, 10, 5], [0, 0, 0, 0]], [[0, 0, 10, 4.9], [0, 0, 0, 0]]])
    drawn = draw(region, boxes, rule_of("rcnn", 8))
    assert drawn.positive.tolist() == [[True], [False]]
    assert drawn.negative.tolist() == [[False], [True]]


def test_the_nearest_box_is_the_one_that_an_anchor_overlaps_most():
    boxes = torch.tensor([[[40.0, 40, 50, 50], [0, 0, 10, 10], [0, 0, 0, 0]]])
    drawn = draw(ANCHORS, boxes, rule_of("rpn", 8))
    expected = box_iou(ANCHORS, boxes[0]).argmax(1)
    assert drawn.nearest[0][drawn.positive[0]].tolist() == expected[drawn.positive[0]].tolist()


@pytest.mark.parametrize("stage", ["rpn", "rcnn"])
def test_losses_are_zero_where_all_is_found(stage: str):
    net = small(stage=stage)
    boxes = torch.tensor([[[8.0, 10, 50, 60]]])
    found = net(torch.zeros(1, 3, 64, 64), torch.tensor([[1]]))
    drawn = draw(found.anchors, boxes, rule_of(net.plan.stage, 8))
    units = torch.tensor([0.1, 0.1, 0.2, 0.2]) if stage == "rcnn" else torch.ones(4)
    right = found._replace(
        logits=torch.where(drawn.positive, 100.0, -100.0)[:, None],
        deltas=(encode(boxes[0].expand(len(found.anchors), 4), found.anchors) / units)[None, None],
    )
    assert drawn.positive.any()
    assert [own.item() for own in losses(right, drawn, boxes, net.plan.stage)] == pytest.approx([0, 0], abs=1e-9)
    wrong = right._replace(logits=-right.logits, deltas=right.deltas + 1)
    one, other = losses(wrong, drawn, boxes, net.plan.stage)
    count, positive = (drawn.positive | drawn.negative).sum(), drawn.positive.sum()
    beta = 1 / 9 if stage == "rpn" else 1.0
    assert one.item() == pytest.approx(100)
    assert other.item() == pytest.approx((4 * (1 - beta / 2) * positive / count).item())


def test_only_the_class_of_an_image_gets_gradients():
    net = small()
    found = net(torch.randn(2, 3, 64, 64), torch.tensor([[1], [4]]))
    boxes = torch.tensor([[[8.0, 10, 50, 60]], [[0, 0, 30, 20]]])
    classes, box = losses(found, draw(found.anchors, boxes, rule_of("rpn", 8)), boxes, "rpn")
    (classes + box).backward()
    for layer in (net.score, net.box):
        each = layer.weight.grad.view(5, -1).abs().sum(1) > 0
        assert each.tolist() == [False, True, False, False, True]


def test_the_cost_of_a_localizer_is_that_of_one_class(deepres):
    result = deepres("info", "localizer-resnet50", "--json")
    [table] = json.loads(result.stdout)
    rows = {row["stage"]: row for row in table["rows"]}
    assert rows["score"]["parameters"] == 9 * 1000 * (512 + 1)
    assert rows["score"]["multiply-adds"] == 9 * 512 * 7 * 7
    assert rows["box"]["multiply-adds"] == 36 * 512 * 7 * 7
    assert rows["conv"]["output"] == rows["box"]["output"] == "7x7"
