"""The networks: names, parameters to the last one, bad input, weights from elsewhere."""

import re
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import deepres
from deepres.acceleration.on_kernels import accelerate
from deepres.models import catalog
from deepres.models.blocks import Block
from deepres.models.catalog import build
from deepres.models.classifier import Classifier
from deepres.runtime.errors import InputError
from deepres.weights.names import torchvision_state_dict
from deepres.weights.state import load_state
from networks import made, on_meta

PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
    "resnet1202": 19_421_274,
}
TWINS = ("20", "32", "44", "56", "110")


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(("name", "parameters"), PARAMETERS.items())
def test_parameters_are_exactly_the_known_numbers(name, parameters):
    """torchvision's counts (ImageNet), and those of the 6n+2 layout with option A (CIFAR, 10 classes)."""
    assert count(on_meta(name)) == parameters


@pytest.mark.parametrize("depth", TWINS)
def test_plain_cifar_net_has_the_parameters_of_its_residual_twin(depth):
    """Sec. 4.2: option A adds none."""
    assert count(on_meta(f"plain{depth}")) == count(on_meta(f"resnet{depth}"))


@pytest.mark.parametrize("name", [name for name in catalog.names() if name != "resnet1202"])
def test_every_name_builds_under_its_name_and_turns_images_into_scores(name):
    """Scores for each image and class, from images in the family's layout; only shapes are run."""
    net = on_meta(name).eval()
    size = catalog.input_size(name)
    assert net.name == name
    classes = 1000 if catalog.family(name) == "imagenet" else 10
    assert net(torch.empty(2, 3, size, size, device="meta")).shape == (2, classes)


@pytest.mark.parametrize("name", ["resnet18", "resnet50-a", "plain8", "resnet8", "resnet8-b", "highway5"])
def test_small_images_train_one_step_in_channels_last(name):
    """Forward and backward work on real numbers (in-place operations included) and keep the memory layout."""
    torch.manual_seed(0)
    net = build(name, num_classes=4, in_channels=1).to(memory_format=torch.channels_last)
    images = torch.rand(3, 1, 17, 17).contiguous(memory_format=torch.channels_last)
    layouts = []
    for module in net.modules():
        if isinstance(module, Block):
            module.register_forward_hook(
                lambda _m, _i, y: layouts.append(y.is_contiguous(memory_format=torch.channels_last))
            )
    loss = F.cross_entropy(net(images), torch.tensor([0, 1, 3]))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(layouts)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


@pytest.mark.parametrize("name", ["resnet8", "resnet8-b", "highway5"])
def test_networks_run_under_bfloat16_autocast(name):
    """The joins meet operands of one type."""
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(build(name)(torch.rand(2, 3, 16, 16))).all()


def test_children_carry_the_names_of_table_1():
    """conv1, conv2_x ... fc; conv3_1 is conv3_x.1; the max pool comes first in conv2_x."""
    imagenet, cifar = on_meta("resnet34"), on_meta("resnet20")
    assert [n for n, _ in imagenet.named_children()] == [
        "conv1",
        "conv2_x",
        "conv3_x",
        "conv4_x",
        "conv5_x",
        "fc",
    ]
    assert [n for n, _ in cifar.named_children()] == ["conv1", "conv2_x", "conv3_x", "conv4_x", "fc"]
    assert [n for n, _ in imagenet.conv2_x.named_children()] == ["pool", "1", "2", "3"]
    assert isinstance(imagenet.conv2_x[0], nn.MaxPool2d)
    assert [n for n, _ in cifar.conv3_x.named_children()] == ["1", "2", "3"]


def test_names_tell_depth_family_and_input_size():
    """18, 34, 50, 101 and 152 are of Table 1, other 6n+2 depths of Sec. 4.2; -32px takes 32-pixel images."""
    facts = {
        "resnet34-c": (34, "imagenet", 224),
        "plain34": (34, "imagenet", 224),
        "resnet50-32px": (50, "cifar", 32),
        "plain26": (26, "cifar", 32),
        "highway32": (32, "cifar", 32),
    }
    for name, expected in facts.items():
        assert (catalog.depth(name), catalog.family(name), catalog.input_size(name)) == expected
    assert len(set(catalog.names())) == len(catalog.names())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet1001", ["not 6n+2", "resnet998", "resnet1004"]),
        ("plain7", ["not 6n+2", "plain8"]),
        ("resnt56", ["did you mean resnet56?"]),
        ("ResNet-110", ["did you mean resnet110?"]),
        ("densely", ["unknown network 'densely'", "resnet20"]),
        ("", ["unknown network"]),
        ("resnet" + "9" * 5000, ["unknown network"]),
        ("plain50", ["bottlenecks", "plain34"]),
        ("plain20-a", ["no choice of shortcut", "plain20"]),
        ("resnet20-32px", ["32-pixel", "resnet20"]),
        ("highway4", ["5 layers or more"]),
    ],
)
def test_a_name_of_no_network_is_refused_with_a_way_out(name, words):
    """One sentence that names what is near."""
    for question in (build, catalog.depth, catalog.family, catalog.input_size):
        with pytest.raises(InputError) as caught:
            question(name)
        assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(
    ("name", "how", "words"),
    [
        ("resnet20", {"num_classes": 0}, "num_classes of resnet20 must be 1 or more, not 0"),
        ("resnet20", {"in_channels": -1}, "in_channels of resnet20"),
        ("resnet50", {"stride_on": "5x5"}, "stride_on of resnet50"),
        ("resnet20", {"residual_layers": 4}, "use one of 1, 2, 3, 6"),
        ("resnet20", {"residual_layers": 0}, "use one of 1, 2, 3, 6"),
        ("resnet34", {"residual_layers": 3}, "use one of 1, 2"),
        ("resnet50", {"residual_layers": 1}, "bottlenecks of three layers"),
        ("highway19", {"residual_layers": 1}, "units of one layer"),
    ],
)
def test_an_argument_that_a_network_cannot_have_is_refused(name, how, words):
    """With the values that it can have."""
    with pytest.raises(InputError, match=re.escape(words)):
        build(name, **how)


def test_first_convolution_takes_the_given_channels_and_fc_gives_the_classes():
    """Grayscale images and other data sets."""
    net = build("resnet8", num_classes=7, in_channels=1)
    assert net(torch.rand(2, 1, 28, 28)).shape == (2, 7)


# --- maps ---


@pytest.mark.parametrize(
    ("name", "size", "sizes"),
    [
        ("resnet18", 64, {"conv1": 32, "conv2_x": 16, "conv3_x": 8, "conv4_x": 4, "conv5_x": 2}),
        ("resnet20", 32, {"conv1": 32, "conv2_x": 32, "conv3_x": 16, "conv4_x": 8}),
        ("highway19", 32, {"conv1": 32, "conv2_x": 32, "conv3_x": 16, "conv4_x": 8}),
        ("vgg16-bn", 32, {"conv1": 32, "conv2": 16, "conv3": 8, "conv4": 4, "conv5": 2, "pool5": 1}),
        ("alexnet", 64, {"conv1": 15, "conv2": 7, "conv3": 3, "conv4": 3, "conv5": 3, "pool5": 1}),
        ("prelu-net", 32, {"conv1": 16, "conv2_x": 8, "conv3_x": 4, "conv4_x": 2}),
        ("googlenet", 64, {"conv1": 32, "maxpool1": 16, "inception3a": 8, "inception4e": 4, "inception5b": 2}),
    ],
)
@torch.no_grad()
def test_a_network_gives_its_maps_by_name_and_runs_on_from_each(name, size, sizes):
    """Every way to the scores through a map that is taken out gives the same bits; all maps are after ReLU."""
    net, images = made(name), torch.randn(2, 3, size, size)
    maps, scores = net.maps(images), net(images)
    assert {key: maps[key].shape[2] for key in sizes} == sizes
    assert name == "googlenet" or list(maps) == list(sizes)  # of GoogLeNet only some are named here
    assert name == "prelu-net" or all(value.min() >= 0 for value in maps.values())
    for key, value in maps.items():
        assert torch.equal(net.feature_map(images, until=key), value)
        assert torch.equal(net.classify(net.pooled(net.feature_map(value, since=key))), scores)
    first, *_, before, last = maps
    between = net.maps(maps[first], until=before, since=first)
    assert list(between) == list(maps)[1:-1] and torch.equal(between[before], maps[before])
    assert net.feature_map(images, since=last) is images and net.maps(images, since=last) == {}


def test_maps_come_from_the_blocks_that_a_network_was_given_in_place():
    """Those on the project's kernels give the maps of the plain ones."""
    torch.manual_seed(0)
    net, images = build("resnet20").eval(), torch.randn(2, 3, 32, 32).to(memory_format=torch.channels_last)
    with torch.no_grad():
        plain = net.maps(images)
        accelerate(net)
        fast = net.maps(images)
        assert torch.equal(net(images), net.classify(fast["conv4_x"].mean((2, 3))))
    assert list(plain) == list(fast)
    assert all(torch.allclose(plain[key], fast[key], atol=1e-4, rtol=1e-4) for key in plain)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"until": "conv5_x"}, "resnet8 has no map 'conv5_x'; it has conv1, conv2_x, conv3_x, conv4_x"),
        ({"since": "fc"}, "resnet8 has no map 'fc'"),
        ({"until": "conv2_x", "since": "conv3_x"}, "the map 'conv2_x' of resnet8 is not behind 'conv3_x'"),
    ],
)
def test_a_map_that_a_network_does_not_have_is_refused(how, words):
    net = on_meta("resnet8")
    for take in (net.maps, net.feature_map):
        with pytest.raises(InputError, match=re.escape(words)):
            take(torch.empty(1, 3, 32, 32, device="meta"), **how)


# --- weights ---


def test_torchvision_keys_that_are_no_resnets_are_named():
    """The first few, and how many more."""
    state = {f"features.{i}.weight": torch.zeros(1) for i in range(7)} | {"fc.weight": torch.zeros(1)}
    with pytest.raises(InputError, match=r"not of a torchvision ResNet: unexpected features\.0\.weight.* and 3 more"):
        torchvision_state_dict(state)
    assert torchvision_state_dict({"layer4.10.bn3.weight": torch.zeros(1)}).keys() == {
        "conv5_x.11.residual.layer3.bn.weight"
    }


def test_weights_of_another_net_are_refused_by_name():
    """Missing, unexpected and mis-shaped keys in one sentence, and the net stays as it was."""
    net = build("resnet20")
    before = {key: value.clone() for key, value in net.state_dict().items()}
    state = build("resnet20", num_classes=7).state_dict() | {"extra": torch.zeros(1)}
    del state["conv1.conv.weight"]
    with pytest.raises(InputError) as caught:
        load_state(net, state)
    text = str(caught.value)
    assert text.startswith("these weights are not of resnet20: missing conv1.conv.weight; unexpected extra; ")
    assert "fc.weight (7, 64) where (10, 64) is needed" in text
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_weights_from_before_batch_counters_load():
    """Old files lack `num_batches_tracked`, which nothing here reads."""
    source, net = build("resnet8"), build("resnet8")
    state = {k: v for k, v in source.state_dict().items() if not k.endswith("num_batches_tracked")}
    load_state(net, state)
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in net.state_dict().items())


# --- the package ---


def test_the_package_gives_build_without_loading_torch_before_it_is_wanted():
    """`import deepres` stays quick for the command line."""
    code = "import sys, deepres; assert 'torch' not in sys.modules; deepres.build"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert deepres.build is build
    with pytest.raises(AttributeError, match="nothing"):
        _ = deepres.nothing


def test_scores_are_not_rounded_under_autocast():
    """Rounded to bf16, those of many classes tie."""
    torch.manual_seed(0)
    net = build("resnet8", 50).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        scores = net(torch.randn(2, 3, 32, 32))
    assert scores.dtype == torch.float32 and not torch.equal(scores, scores.bfloat16().float())


@pytest.mark.parametrize("name", ["resnet18", "alexnet", "vgg16-bn", "googlenet", "prelu-net"])
def test_the_scores_of_every_network_come_from_such_a_layer(name):
    with torch.device("meta"):
        layers = [module for module in build(name, 50).modules() if isinstance(module, nn.Linear)]
    assert [type(layer) is Classifier for layer in layers] == [False] * (len(layers) - 1) + [True]
    assert layers[-1].out_features == 50
