"""Detectors on the networks of the catalog: how they are cut, and what they learn from."""

import pytest
import torch

from deepres.detection.loss import FIGURES
from deepres.models.catalog import build, entry, names
from deepres.models.registry import DETECTOR
from deepres.runtime.errors import InputError
from deepres.training.freeze import freeze, set_training
from deepres.training.optimizer import SGD
from detection_scenes import objects, scene, small_detector, task

# All that can be cut, but of the deepest ones, which differ in their number of blocks, one alone.
CUT = [name for name in names() if name != "prelu-net" and (entry(name).depth <= 50 or name == "resnet152")]


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


def test_the_whole_image_and_the_regions_make_batch_statistics_together():
    """Else the running statistics would be of two kinds in turn, and fit neither in the test."""
    net = small_detector(context=True).train()
    last = net.features.conv5_x[0].residual.layer1.bn
    before = int(last.num_batches_tracked)
    net(torch.rand(2, 3, 96, 128))
    assert int(last.num_batches_tracked) == before + 1
