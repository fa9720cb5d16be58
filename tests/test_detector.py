"""Detectors on the networks of the catalog: how they are cut, what they learn from, and what they find."""

import dataclasses

import pytest
import torch

from deepres.detection.loss import FIGURES
from deepres.models.catalog import build, entry, names
from deepres.models.detection.boxes import clip
from deepres.models.detection.detections import best
from deepres.models.detection.images import fitted, padded
from deepres.models.registry import DETECTOR
from deepres.runtime.errors import InputError
from deepres.training.freeze import freeze, set_training
from deepres.training.optimizer import SGD
from deepres.weights.file import serialise
from deepres.weights.load import load_network
from detection_scenes import PLAN, generator, objects, random_boxes, scene, small_detector, task
from networks import randomise

MEAN = torch.tensor([0.5, 0.4, 0.3])[:, None, None]
# All that can be cut, but of the deepest ones, which differ in their number of blocks, one alone.
CUT = [name for name in names() if name != "prelu-net" and (entry(name).depth <= 50 or name == "resnet152")]


def picture(height: int, width: int, seed: int = 0):
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator(seed))


def without_gradient(net):
    return [name for name, own in net.named_parameters() if own.requires_grad and own.grad is None]


# --- every network ---


@pytest.mark.parametrize("name", CUT)
def test_every_parameter_of_a_detector_on_any_network_takes_part(name):
    """A parameter that no loss reaches would stop the ranks of a parallel run. Shapes alone are computed."""
    with torch.device("meta"):
        net = build(DETECTOR + name, 3)
        shared = net.shared(torch.empty(2, 3, 96, 128))
        pooled = shared.new_zeros(5, shared.shape[1], net.region_size, net.region_size)
        deltas, (logits, moves) = net.rpn(shared), net.siblings(net.features.region_features(pooled))
        assert logits.shape == (5, 4) and moves.shape == (5, 3, 4)
        assert deltas[0].shape == (2, shared.shape[2:].numel() * 9) and deltas[1].shape == (*deltas[0].shape, 4)
        sum(value.sum() for value in (*deltas, logits, moves)).backward()
    assert net.training and all(module.training for module in net.modules())
    assert without_gradient(net) == []
    expected = 16 if entry(name).family == "imagenet" else 4 if "32px" in name else 2
    assert net.stride == expected and shared.shape[3] == (7 if name == "alexnet" else 128 // expected)


def test_the_cut_is_that_of_appendix_a():
    for name, shared, size in (("resnet50", "conv4_x", 14), ("vgg16", "conv5", 7), ("googlenet", "inception4e", 14)):
        with torch.device("meta"):
            net = build(DETECTOR + name, 20)
        assert net.features.shared_map == shared and net.region_size == size
        assert net.score.in_features == {"resnet50": 2048, "vgg16": 4096, "googlenet": 1024}[name]


@pytest.mark.parametrize(
    ("name", "said"),
    [("prelu-net", "prelu-net cannot be cut"), (DETECTOR * 2000 + "resnet18", "no backbone"), ("resnet9", "resnet9")],
)
def test_what_is_no_backbone_is_refused_in_one_sentence(name, said):
    with torch.device("meta"), pytest.raises(InputError, match=said):
        build(DETECTOR + name, 3)


def test_a_detector_of_no_classes_is_refused():
    with torch.device("meta"), pytest.raises(InputError, match="num_classes"):
        build(f"{DETECTOR}resnet18", 0)


def test_start_values_of_new_layers_are_those_of_the_papers():
    torch.manual_seed(0)
    net = build(f"{DETECTOR}resnet18", 20)
    for layer, std in ((net.rpn.conv, 0.01), (net.rpn.objectness, 0.01), (net.score, 0.01), (net.box, 0.001)):
        assert layer.weight.std().item() == pytest.approx(std, rel=0.05) and not layer.bias.any()
    assert all(not module.running_mean.any() for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d))


# --- losses ---

WITH_BOXES = objects(torch.tensor([[10.0, 10, 60, 50], [30, 20, 90, 90]]), torch.tensor([0, 2]))


@pytest.mark.parametrize("name", ["resnet18", "resnet20", "plain18", "alexnet", "googlenet"])
@pytest.mark.parametrize("own", [WITH_BOXES, objects()], ids=["boxes", "none"])
def test_losses_are_finite_and_reach_every_parameter(name, own):
    net = small_detector(name)
    freeze(net, ("bn",))
    set_training(net)
    loss, figures = task().loss(net, [scene(own)])
    loss.backward()
    assert tuple(figures) == FIGURES and loss.isfinite()
    assert loss.item() == pytest.approx(sum(value.item() for value in figures.values()))
    assert without_gradient(net) == []
    assert all(value.grad.isfinite().all() for value in net.parameters() if value.requires_grad)
    # Without boxes there is nothing but background.
    assert (figures["rpn_box_loss"] == 0) == (figures["box_loss"] == 0) == (not len(own.boxes))
    assert figures["rpn_class_loss"] > 0 and figures["class_loss"] > 0


@pytest.mark.parametrize("own", [WITH_BOXES, objects()], ids=["boxes", "none"])
@pytest.mark.parametrize("fixed", [("bn",), ()])
@pytest.mark.parametrize("plan", [{}, {"context": True, "pooling": "align"}], ids=["pool", "align"])
def test_no_proposals_at_all_give_a_finite_loss_and_gradients(own, fixed, plan):
    net = small_detector(**plan)
    freeze(net, fixed)
    set_training(net)
    loss, figures = task(smallest=8000.0, negatives_from=0.1).loss(net, [scene(own)])
    loss.backward()
    assert loss.isfinite() and without_gradient(net) == []
    assert (figures["class_loss"] > 0) == (len(own.boxes) > 0)  # the boxes themselves are regions
    assert all(value.isfinite().all() for value in net.state_dict().values())


@pytest.mark.parametrize("part", ["rpn", "regions"])
def test_one_part_is_trained_alone(part):
    net = small_detector()
    loss, figures = task(part=part).loss(net, [scene(WITH_BOXES)])
    loss.backward()
    trained = {name: value.item() for name, value in figures.items() if value != 0}
    assert trained.keys() == set(FIGURES[:2] if part == "rpn" else FIGURES[2:])
    for layer, is_rpn in ((net.rpn, True), (net.score, False), (net.box, False), (net.features.conv5_x, False)):
        assert all((own.grad is not None) == ((part == "rpn") == is_rpn) for own in layer.parameters())
    assert all(own.grad is not None for own in net.features.conv4_x.parameters())


def test_regions_are_no_way_for_gradients_into_the_rpn():
    """Proposals are taken as they are: the authors' joint training is approximate."""
    net = small_detector()
    _, figures = task().loss(net, [scene(WITH_BOXES)])
    (figures["class_loss"] + figures["box_loss"]).backward()
    assert all(own.grad is None for own in net.rpn.parameters())


@pytest.mark.parametrize("fixed", [("bn",), ()])
def test_bn_stays_as_it_is_where_it_is_fixed(fixed):
    net = small_detector()
    freeze(net, fixed)
    set_training(net)
    layers = [module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    before = [[value.clone() for value in module.state_dict().values()] for module in layers]
    optimizer = SGD(net.parameters(), 0.9, 5e-4)
    task().loss(net, [scene(WITH_BOXES)])[0].backward()
    weight = net.features.conv1.conv.weight.clone()
    optimizer.step_at(0.01)
    kept = [
        torch.equal(old, new)
        for values, module in zip(before, layers, strict=True)
        for old, new in zip(values, module.state_dict().values(), strict=True)
    ]
    assert all(kept) if fixed else not any(kept)
    assert not torch.equal(net.features.conv1.conv.weight, weight)


# --- detection ---


@pytest.mark.parametrize("size", [(61, 97), (150, 101), (96, 128), (40, 400)])
def test_detections_are_in_pixels_of_the_given_image(size):
    """Sizes that are not scaled alike in height and width, too."""
    net = small_detector(threshold=0.0)
    image = picture(*size)
    found = net.detect([image])[0]
    seen = fitted(image, 96, 160)
    height, width = seen.shape[1:]
    # The steps one after another, on the image as it is seen.
    with torch.no_grad():
        out = net(seen[None].float() / 255 - MEAN)
        probabilities, boxes = net.scored(net.shared(seen[None].float() / 255 - MEAN), out.regions, [(height, width)])[
            0
        ]
    boxes = boxes * torch.tensor([size[1] / width, size[0] / height, size[1] / width, size[0] / height])
    expected = best(probabilities, clip(boxes, size), 0.0, 0.3, 100)
    assert len(found) == len(expected) > 5
    assert torch.allclose(found.boxes, expected.boxes, atol=1e-3) and torch.equal(found.labels, expected.labels)
    assert (found.boxes >= 0).all() and (found.boxes <= torch.tensor([size[1], size[0]] * 2)).all()
    assert found.boxes[:, 2].max() > 0.8 * size[1] and found.boxes[:, 3].max() > 0.8 * size[0]


def test_images_of_a_batch_are_found_in_as_each_alone():
    net = small_detector(threshold=0.0)
    images = [picture(61, 97, 1), picture(120, 90, 2)]
    for one, found in zip(images, net.detect(images), strict=True):
        alone = net.detect([one])[0]
        assert torch.equal(found.boxes, alone.boxes) and torch.equal(found.scores, alone.scores)


@torch.no_grad()
def test_images_of_one_size_give_in_a_batch_what_each_gives_alone():
    net = small_detector(context=True)
    x = padded([picture(96, 128, 1), picture(96, 128, 2)], MEAN)
    both = net(x)
    alone = [net(own[None]) for own in x]
    for number, own in enumerate(alone):
        assert torch.allclose(both.objectness[number], own.objectness[0], atol=1e-4)
        assert torch.allclose(both.regions[number], own.regions[0], atol=1e-2)
    logits = torch.cat([own.found.logits for own in alone])
    assert torch.allclose(both.found.logits, logits, atol=1e-3) and logits.std() > 1e-3


@torch.no_grad()
def test_regions_of_a_padded_batch_are_inside_of_their_images():
    net = small_detector()
    sizes = [(64, 128), (96, 80)]
    out = net(padded([picture(*size) for size in sizes], MEAN), sizes)
    for regions, (height, width) in zip(out.regions, sizes, strict=True):
        assert len(regions) and (regions[:, 2] <= width).all() and (regions[:, 3] <= height).all()
    assert len(out.found.logits) == sum(map(len, out.regions))


def test_no_proposals_at_all_are_no_detections():
    net = small_detector(smallest=8000.0, context=True)
    found = net.detect([picture(61, 97)])[0]
    assert len(found) == 0 and found.boxes.shape == (0, 4) and found.scores.shape == found.labels.shape == (0,)


def test_channels_and_mean_are_those_of_the_training():
    net = small_detector(threshold=0.0)
    image = picture(96, 128)
    best = net.detect([image])[0].scores[:3]
    assert not torch.allclose(best, net.detect([image.flip(0)])[0].scores[:3])
    net.mean = MEAN.flip(0)
    assert not torch.allclose(best, net.detect([image])[0].scores[:3])
    net.mean = None
    with pytest.raises(InputError, match="has no mean"):
        net.detect([image])


def test_a_weights_file_tells_backbone_stride_plan_and_mean(tmp_path):
    """Boxes are the same, and others where the stride of the bottlenecks stands on the 3x3 convolution."""
    plan = PLAN | {"side": 64, "proposals": 6, "threshold": 0.0, "pooling": "align"}
    net = randomise(build(f"{DETECTOR}resnet50", 2, stride_on="3x3", pool_padding=0, detector=plan))
    net.mean = MEAN
    file = tmp_path / "detector.safetensors"
    file.write_bytes(serialise(net.state_dict(), net.mean, net.header))
    loaded = load_network(file)
    assert loaded.plan == net.plan and loaded.plan.pooling == "align"
    image = picture(64, 80)
    found, again = net.detect([image])[0], loaded.detect([image])[0]
    assert len(found) and torch.equal(found.boxes, again.boxes) and torch.equal(found.scores, again.scores)
    other = build(f"{DETECTOR}resnet50", 2, pool_padding=0, detector=plan).eval()
    other.load_state_dict(net.state_dict())
    other.mean = MEAN
    assert not torch.equal(other.detect([image])[0].boxes, found.boxes)


# --- context ---


@torch.no_grad()
def test_with_context_the_features_of_the_whole_image_stand_beside_those_of_each_region():
    net, sizes = small_detector(context=True), [(96, 128), (64, 80)]
    shared = net.shared(padded([picture(*size) for size in sizes], MEAN))
    regions = [random_boxes(3, sizes[0]), random_boxes(2, sizes[1], 1)]
    features = net.features_of(shared, regions, sizes)
    without = small_detector()
    without.features.load_state_dict(net.features.state_dict())
    whole = without.features_of(shared, [torch.tensor([[0.0, 0, width, height]]) for height, width in sizes], sizes)
    assert features.shape == (5, 1024) and net.score.in_features == 1024
    assert torch.allclose(features[:, :512], without.features_of(shared, regions, sizes), atol=1e-5)
    assert torch.allclose(features[:, 512:], whole[[0, 0, 0, 1, 1]], atol=1e-5)
    assert not torch.allclose(whole[0], whole[1], atol=1e-3)


def test_without_context_nothing_changes():
    assert small_detector().state_dict().keys() == small_detector(context=True).state_dict().keys()
    assert small_detector().score.in_features == 512
    assert dataclasses.asdict(small_detector().plan)["context"] is False


def test_anchors_are_kept_for_sizes_seen_before_but_not_without_bound(monkeypatch):
    net = small_detector()
    first = net.anchors((4, 6), torch.device("cpu"))
    assert net.anchors((4, 6), torch.device("cpu")) is first and first.shape == (4 * 6 * 9, 4)
    monkeypatch.setattr("deepres.models.detection.detector.MOST_ANCHORS", 1000)
    for width in range(7, 60):
        assert len(net.anchors((4, width), torch.device("cpu"))) == 4 * width * 9
        assert sum(map(len, net._anchors.values())) < 1000 + 4 * 60 * 9
    assert torch.equal(net.anchors((4, 6), torch.device("cpu")), first)
