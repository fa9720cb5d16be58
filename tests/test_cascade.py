"""Cascades on the networks of the catalog: how they are cut, what a pass computes, and what they find."""

import pytest
import torch
from torch.nn import functional as F

import deepres
from cascades import SIZE, small_cascade
from deepres.detection.protocol import Protocol
from deepres.detection.tester import detected
from deepres.models.catalog import build, entry, names
from deepres.models.detection.boxes import clip
from deepres.models.detection.detector import located
from deepres.models.detection.images import fitted, padded
from deepres.models.detection.outputs import Detections
from deepres.models.segmentation.cascade import BOX_GRADIENT, regressed
from deepres.models.segmentation.voting import voted
from deepres.models.segmentation.warping import warped
from deepres.runtime.errors import InputError
from deepres.runtime.masks import mask_areas, mask_boxes
from deepres.training.freeze import freeze, set_training
from detection_scenes import random_boxes
from small_detectors import pictures, written

# All that can be cut, but of the deepest ones, which differ in their number of blocks, one alone.
CUT = [name for name in names() if name != "prelu-net" and (entry(name).depth <= 50 or name == "resnet152")]
REGIONS = [random_boxes(5, SIZE, 1, (8, 40)), random_boxes(3, SIZE, 2, (8, 40))]


def images(count=2):
    return torch.rand(count, 3, *SIZE, generator=torch.Generator().manual_seed(3)) - 0.5


# --- every network ---


@pytest.mark.parametrize("name", CUT)
def test_every_parameter_of_a_cascade_on_any_network_takes_part(name):
    """A parameter that no loss reaches would stop the ranks of a parallel run. Shapes alone are computed."""
    with torch.device("meta"):
        net = build(f"mnc-{name}", 3)
        shared = net.shared(torch.empty(2, 3, 96, 128))
        deltas = net.rpn(shared)
        one = net.one_pass(shared, [torch.empty(3, 4), torch.empty(2, 4)])
        assert one.masks.shape == (5, 21, 21) and one.mask_logits.shape == (5, 4)
        assert one.found.logits.shape == (5, 4) and one.found.deltas.shape == (5, 3, 4)
        sum(value.sum() for value in (*deltas, one.masks, one.mask_logits, *one.found)).backward()
    assert [key for key, own in net.named_parameters() if own.grad is None] == []


@pytest.mark.parametrize(("name", "size", "width"), [("resnet50", 14, 2048), ("vgg16", 7, 4096)])
def test_the_two_paths_are_those_of_regions_of_a_detector_with_weights_of_their_own(name, size, width):
    with torch.device("meta"):
        net, alone = build(f"mnc-{name}", 20), build(f"faster-rcnn-{name}", 20)
    assert net.region_size == size and net.score.in_features == net.mask_score.in_features == 2 * width
    shared, own = (sum(part.numel() for part in one.parameters()) for one in (alone, net.masked))
    heads = sum(part.numel() for one in (net.score, net.mask_score, net.box, net.mask) for part in one.parameters())
    theirs = sum(part.numel() for one in (alone.score, alone.box) for part in one.parameters())
    assert sum(part.numel() for part in net.parameters()) == shared - theirs + own + heads
    masked = {key for key, _ in net.masked.named_parameters()}
    behind = {"resnet50": "conv5_x.", "vgg16": "classifier."}[name]
    assert masked == {key for key, _ in net.features.named_parameters() if key.startswith(behind)}


def test_the_path_of_masked_regions_begins_with_the_weights_of_the_other():
    net = small_cascade()
    for key, value in net.masked.state_dict().items():
        own = net.features.state_dict()[key]
        assert own.equal(value) and own.data_ptr() != value.data_ptr()


@pytest.mark.parametrize(
    ("network", "plan", "said"),
    [
        ("resnet20", {"stages": 4}, "stages is 4, but must be 3 or 5"),
        ("resnet20", {"context": True}, "no global context"),
        ("resnet20", {"pooling": "align"}, "leave pooling out"),
        ("resnet20", {"warped": 13}, "must be even"),
        ("resnet20", {"warped": 12}, "warped=28 or more"),
        ("resnet20", {"binarised": 1.5}, "from 0 to 1"),
        ("resnet20", {"mask_size": 1000}, "from 2 to 128"),
        ("mnc-resnet20", {}, "no backbone of another"),
        ("faster-rcnn-resnet20", {}, "no backbone of another"),
        ("prelu-net", {}, "cannot be cut"),
    ],
)
def test_what_makes_no_cascade_is_refused_in_one_sentence(network, plan, said):
    with torch.device("meta"), pytest.raises(InputError, match=said):
        build(f"mnc-{network}", 3, detector=plan)


def test_start_values_of_new_layers_are_those_of_the_authors():
    torch.manual_seed(0)
    net = build("mnc-resnet20", 20)
    for layer, std in ((net.score, 0.01), (net.mask_score, 0.01), (net.box, 0.001), (net.mask.fc, 0.001)):
        assert layer.weight.std().item() == pytest.approx(std, rel=0.05) and not layer.bias.any()


# --- a pass ---


@torch.no_grad()
def pass_by_loops(net, shared, box):
    """Mask, scores and deltas of one region of one image, layer by layer."""
    cut = F.max_pool2d(warped(shared, torch.tensor([box]), net.stride, net.plan.warped), 2)
    hidden = (net.mask.fc.weight @ cut.flatten() + net.mask.fc.bias).relu()
    mask = (net.mask.logits.weight @ hidden + net.mask.logits.bias).view(1, 1, 7, 7)
    weights = F.interpolate(mask.sigmoid(), (6, 6), mode="bilinear")
    features = [net.masked.conv4_x(cut * weights).mean((2, 3))[0], net.features.conv4_x(cut).mean((2, 3))[0]]
    joined = torch.cat(features)
    heads = [layer.weight @ joined + layer.bias for layer in (net.mask_score, net.score, net.box)]
    return mask[0, 0], heads[0], heads[1], heads[2].view(3, 4)


def test_a_pass_is_that_of_single_regions_layer_by_layer():
    net = small_cascade()
    with torch.no_grad():
        shared = net.shared(images())
        one = net.one_pass(shared, REGIONS)
    place = 0
    for image, regions in enumerate(REGIONS):
        for box in regions.tolist():
            expected = pass_by_loops(net, shared[image : image + 1], box)
            found = one.masks[place], one.mask_logits[place], one.found.logits[place], one.found.deltas[place]
            for own, other in zip(found, expected, strict=True):
                torch.testing.assert_close(own, other, atol=1e-4, rtol=1e-4)
            place += 1
    assert place == len(one.masks) and one.masks.std() > 0.1 and one.mask_logits.std(0).min() > 0.01


@torch.no_grad()
def test_stages_four_and_five_are_a_pass_on_the_regressed_boxes():
    net = small_cascade()
    shared = net.shared(images())
    first, second = net.passes(shared, REGIONS, [SIZE] * 2)
    labels = first.mask_logits[:, 1:].argmax(1)
    assert len(labels.unique()) > 1
    start = 0
    for own, regions, size in zip(second.regions, REGIONS, [SIZE] * 2, strict=True):
        every = located(first.found.deltas[start : start + len(own)], regions, size)
        expected = [every[place, label].tolist() for place, label in enumerate(labels[start:][: len(own)].tolist())]
        assert torch.allclose(own, torch.tensor(expected))
        start += len(own)
    again = net.one_pass(shared, second.regions)
    assert again.masks.equal(second.masks) and again.mask_logits.equal(second.mask_logits)
    [alone] = small_cascade(stages=3).passes(shared, REGIONS, [SIZE] * 2)
    assert alone.masks.equal(first.masks) and alone.mask_logits.equal(first.mask_logits)


def test_one_forward_pass_gives_anchors_and_both_passes_of_chosen_regions():
    net = small_cascade()
    more = [torch.cat([own, REGIONS[0]]) for own in REGIONS]
    found = net(images(), None, lambda *anchored: REGIONS, lambda boxes: more)
    assert found.objectness.shape == found.anchor_deltas.shape[:2] and len(found.anchors) == found.objectness.shape[1]
    assert [[len(own) for own in one.regions] for one in found.passes] == [[5, 3], [10, 8]]
    assert net(images(), None, lambda *anchored: None).passes == []
    [first, second] = net(images()).passes
    assert [len(own) for own in first.regions] == [len(own) for own in second.regions] == [16, 16]


def test_images_side_by_side_are_those_alone():
    net = small_cascade()
    with torch.no_grad():
        both = net.passes(net.shared(images()), REGIONS, [SIZE] * 2)
        alone = [
            net.passes(net.shared(images()[place : place + 1]), [own], [SIZE]) for place, own in enumerate(REGIONS)
        ]
    for number, one in enumerate(both):
        for value in ("masks", "mask_logits"):
            joined = torch.cat([getattr(passes[number], value) for passes in alone])
            torch.testing.assert_close(getattr(one, value), joined, atol=1e-4, rtol=1e-4)


# --- gradients ---


def test_the_second_pass_trains_the_regression_of_the_first_through_its_boxes():
    net = small_cascade()
    _, second = net(images(), None, lambda *anchored: REGIONS).passes
    (second.masks.square().sum() + second.mask_logits.square().sum()).backward()
    assert net.box.weight.grad.any() and net.mask.fc.weight.grad.any()
    assert net.rpn.boxes.weight.grad is None  # these regions have no gradients
    # In a pass alone, the siblings have no part in masks.
    net = small_cascade(stages=3)
    [first] = net(images(), None, lambda *anchored: REGIONS).passes
    first.masks.square().sum().backward()
    assert net.box.weight.grad is None


def test_the_gradient_of_regression_through_a_box_is_limited():
    net = small_cascade()
    with torch.no_grad():
        one = net.one_pass(net.shared(images()), REGIONS)
    deltas = one.found.deltas.clone().requires_grad_()
    regions = [own.clone().requires_grad_() for own in REGIONS]
    boxes = regressed(one._replace(regions=regions, found=one.found._replace(deltas=deltas)), [SIZE] * 2)
    (1000 * torch.cat(boxes)).sum().backward()
    assert deltas.grad.abs().max().item() == pytest.approx(BOX_GRADIENT)
    # Of the class that the mask has, alone; that of the region itself is whole.
    labels = one.mask_logits[:, 1:].argmax(1)
    moved = {tuple(pair) for pair in deltas.grad.any(2).nonzero().tolist()}
    assert moved and moved <= set(enumerate(labels.tolist()))
    assert max(own.grad.abs().max().item() for own in regions) > 100
    # A box that is no number is an empty one.
    broken = one._replace(found=one.found._replace(deltas=torch.full_like(deltas, torch.nan)))
    assert torch.cat(regressed(broken, [SIZE] * 2)).eq(0).all()


@pytest.mark.parametrize("fixed", [("bn",), ("bn", "conv1", "conv2_x"), ("masked", "mask")])
def test_stages_can_be_frozen_by_name(fixed):
    net = small_cascade()
    freeze(net, fixed)
    set_training(net)
    before = {key: value.clone() for key, value in net.state_dict().items() if key.startswith("masked")}
    first, second = net(images(), None, lambda *anchored: REGIONS).passes
    sum(own.square().sum() for one in (first, second) for own in (one.masks, one.mask_logits, *one.found)).backward()
    assert (net.mask.fc.weight.grad is None) == ("mask" in fixed)
    if fixed[0] == "masked":
        assert all(net.state_dict()[key].equal(value) for key, value in before.items())


# --- in use ---


@pytest.mark.parametrize("stages", [3, 5])
@pytest.mark.parametrize("size", [(50, 80), (70, 40), (12, 90)])
def test_detections_are_the_vote_of_the_candidates_of_all_passes(stages, size):
    net = small_cascade(stages=stages, threshold=0.3)
    [picture] = pictures(size)
    [found] = net.detect([picture])
    # The candidates, one after another.
    seen = fitted(picture, net.plan.side, net.plan.longest)
    small = (seen.shape[1], seen.shape[2])
    with torch.no_grad():
        shared = net.shared(padded([seen], net.mean))
        passes = net.passes(shared, net.proposals(*net.anchored(shared), [small], net.selection), [small])
    assert len(passes) == {3: 1, 5: 2}[stages]
    boxes, scores, masks = [], [], []
    for one in passes:
        boxes.append(clip(one.regions[0] * torch.tensor([size[1] / small[1], size[0] / small[0]] * 2), size))
        scores.append(one.mask_logits.softmax(1))
        masks.append(one.masks.sigmoid())
    boxes, scores, masks = (torch.cat(own) for own in (boxes, scores, masks))
    kept = kept_by_loops(boxes, scores, net.plan)
    assert len(found) == len(kept) > 0
    assert found.scores.tolist() == pytest.approx([scores[place, 1 + label].item() for place, label in kept], abs=1e-5)
    assert found.labels.tolist() == [label for _, label in kept]
    chosen = Detections(boxes[[place for place, _ in kept]], found.scores, found.labels)
    again = voted(chosen, boxes, scores, masks, net.plan.voting, net.plan.binarised, size)
    assert again.boxes.equal(found.boxes)
    assert again.masks.texts == found.masks.texts


def kept_by_loops(boxes, scores, plan):
    """Region and class of each detection that suppression at 0.3 keeps within its class."""
    every = [
        (scores[place, 1 + label].item(), place, label)
        for place in range(len(boxes))
        for label in range(scores.shape[1] - 1)
        if scores[place, 1 + label] > plan.threshold and (boxes[place, 2:] > boxes[place, :2]).all()
    ]
    kept = []
    for _, place, label in sorted(every, key=lambda own: -own[0]):
        if all(label != other or iou(boxes[place], boxes[one]) <= plan.nms for one, other in kept):
            kept.append((place, label))
    return kept[: plan.most]


def iou(one, other):
    low, high = torch.maximum(one[:2], other[:2]), torch.minimum(one[2:], other[2:])
    shared = (high - low).clamp(min=0).prod().item()
    areas = [(own[2:] - own[:2]).prod().item() for own in (one, other)]
    return shared / (sum(areas) - shared)


def test_masks_and_boxes_of_detections_fit_the_picture():
    sizes = [(50, 80), (200, 31)]
    for found, size in zip(small_cascade(threshold=0.0).detect(pictures(*sizes)), sizes, strict=True):
        assert len(found) == len(found.masks) > 0 and found.masks.known.all()
        assert (found.boxes[:, :2] >= 0).all() and (found.boxes[:, 2:] <= torch.tensor([size[1], size[0]])).all()
        assert found.scores.equal(found.scores.sort(descending=True).values)
        assert found.masks.sizes.tolist() == [list(size)] * len(found)
        shown = mask_areas(found.masks) > 0
        assert shown.any() and found.boxes[shown].equal(mask_boxes(found.masks)[shown])


def test_a_network_that_has_diverged_finds_nothing():
    net = small_cascade()
    with torch.no_grad():
        net.mask.fc.weight.fill_(torch.nan)
    [found] = net.detect(pictures((50, 80)))
    assert len(found) == len(found.masks) == 0


@pytest.mark.parametrize("how", [Protocol(refine=1, voting=0.5), Protocol(scales=(32, 48))])
def test_with_improvements_a_cascade_is_tested_as_a_detector_of_boxes(how):
    net, told = small_cascade(threshold=0.2), []
    net.header["classes"] = ["ant", "bee", "cow"]
    [found] = detected([net], how, pictures((50, 80)), told.append)
    assert len(found) and found.masks is None and any("boxes alone" in line for line in told)


def test_the_plain_test_of_a_cascade_is_its_own_with_the_settings_of_the_protocol():
    net, told = small_cascade(threshold=0.2), []
    net.header["classes"] = ["ant", "bee", "cow"]
    [own], [found] = net.detect(pictures((50, 80))), detected([net], Protocol(), pictures((50, 80)), told.append)
    assert len(own) > 2 and found.boxes.equal(own.boxes) and found.masks.texts == own.masks.texts and not told
    [fewer] = detected([net], Protocol(most=2), pictures((50, 80)))
    assert fewer.scores.equal(own.scores[:2]) and fewer.masks.texts == own.masks.texts[:2]


@torch.no_grad()
def test_scores_of_boxes_are_those_of_a_pass():
    net = small_cascade()
    shared = net.shared(images()[:1])
    one = net.one_pass(shared, REGIONS[:1])
    [(scores, _)] = net.scored(shared, REGIONS[:1], [SIZE])
    torch.testing.assert_close(scores, one.found.logits.softmax(1))


def test_weights_carry_the_plan_and_give_the_same_masks(tmp_path):
    net = small_cascade(stages=3, binarised=0.3)
    net.header["classes"] = ["ant", "bee", "cow"]
    again = deepres.load(written(net, tmp_path / "cascade.safetensors"))
    assert again.plan == net.plan and again.name == net.name == "mnc-resnet20"
    for own, other in zip(net.detect(pictures((50, 80))), again.eval().detect(pictures((50, 80))), strict=True):
        assert len(own) and own.boxes.equal(other.boxes) and own.scores.equal(other.scores)
        assert own.masks.texts == other.masks.texts


@pytest.mark.parametrize(("field", "value"), [("mask_size", 10**6), ("stages", 4), ("warped", "28"), ("binarised", -1)])
def test_a_plan_in_a_file_that_no_cascade_can_have_is_refused(tmp_path, field, value):
    net = small_cascade()
    net.header["detector"][field] = value
    with pytest.raises(InputError, match=field):
        deepres.load(written(net, tmp_path / "hostile.safetensors"))
