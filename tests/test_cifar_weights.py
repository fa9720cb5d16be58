"""CIFAR networks of the best-known repositories, built here in their authors' form: the same outputs, or a question."""

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import deepres as package
from deepres.models.catalog import build
from deepres.runtime.errors import InputError
from networks import assert_same_scores, randomise

CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CIFAR_10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def conv(inputs, outputs, kernel, stride=1):
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


def projection(inputs, outputs, stride):
    return nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


class Padded(nn.Module):
    """Option A, with `before` of the new channels in front of x and `behind` of them after it."""

    def __init__(self, before, behind):
        super().__init__()
        self.before, self.behind = before, behind

    def forward(self, x):
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.behind))


class Unit(nn.Module):
    """A block as in most repositories; `shortcut` is also the name of its module."""

    def __init__(self, inputs, width, stride, expansion, shortcut, name):
        super().__init__()
        kernels = (3, 3) if expansion == 1 else (1, 3, 1)
        sizes = (inputs, width, width, width * expansion)
        self.layers = len(kernels)
        for layer, kernel in enumerate(kernels, 1):
            out = width * expansion if layer == self.layers else width
            here = stride if layer == (1 if expansion == 1 else 2) else 1
            setattr(self, f"conv{layer}", conv(sizes[layer - 1], out, kernel, here))
            setattr(self, f"bn{layer}", nn.BatchNorm2d(out))
        changes = stride != 1 or inputs != width * expansion
        self.name = name
        setattr(self, name, shortcut(inputs, width * expansion, stride) if changes else nn.Sequential())

    def forward(self, x):
        y = x
        for layer in range(1, self.layers + 1):
            y = getattr(self, f"bn{layer}")(getattr(self, f"conv{layer}")(y))
            y = y if layer == self.layers else F.relu(y)
        return F.relu(y + getattr(self, self.name)(x))


class Theirs(nn.Module):
    """conv1, bn1, layer1, ..., and `head`: as akamaster, kuangliu, chenyaofo, bearpaw and huyvnphan have them."""

    def __init__(
        self, widths, blocks, shortcut, *, expansion=1, name="shortcut", head="linear", classes=10, pool=False
    ):
        super().__init__()
        self.conv1, self.bn1 = conv(3, widths[0], 3), nn.BatchNorm2d(widths[0])
        inputs = widths[0]
        for stage, (width, count) in enumerate(zip(widths, blocks, strict=True), 1):
            units = []
            for number in range(count):
                stride = 2 if stage > 1 and number == 0 else 1
                units.append(Unit(inputs, width, stride, expansion, shortcut, name))
                inputs = width * expansion
            setattr(self, f"layer{stage}", nn.Sequential(*units))
        self.stages, self.head, self.pool = len(widths), head, pool
        setattr(self, head, nn.Linear(inputs, classes))

    def forward(self, images):
        x = F.relu(self.bn1(self.conv1(images)))
        x = F.max_pool2d(x, 3, 2, 1) if self.pool else x
        for stage in range(1, self.stages + 1):
            x = getattr(self, f"layer{stage}")(x)
        return getattr(self, self.head)(x.mean((2, 3)))


def both(inputs, outputs, stride):
    return Padded(outputs // 4, outputs // 4)


def behind(inputs, outputs, stride):
    return Padded(0, outputs - inputs)


def made(*arguments, **how):
    with torch.device("meta"):
        net = Theirs(*arguments, **how)
    return randomise(net)


def three_stages(shortcut, **how):
    """resnet14 of Sec. 4.2: two blocks a stage, so that blocks with and without a change of shape are there."""
    return made((16, 32, 64), (2, 2, 2), shortcut, **how)


def images():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def assert_computes(place, net, name, mean, std, network=None):
    """The file is read as `name`, and gives the scores of `net`, which takes images less `mean`, divided by `std`."""
    loaded = package.load(place, network)
    assert loaded.name == name
    assert loaded.mean.flatten().tolist() == pytest.approx(mean)
    mean, std = (torch.tensor(values)[:, None, None] for values in (mean, std))
    assert_same_scores(loaded(images() - loaded.mean), net((images() - mean) / std))
    return loaded


def test_option_a_that_is_padded_on_both_sides_gives_its_authors_outputs(deepres, tmp_path):
    """akamaster's: the checkpoint of its trainer."""
    net = three_stages(both)
    state = {f"module.{key}": value for key, value in net.state_dict().items()}
    torch.save({"epoch": 200, "state_dict": state, "best_prec1": 91.25}, tmp_path / "resnet14.th")
    loaded = assert_computes(tmp_path / "resnet14.th", net, "resnet14", IMAGENET_MEAN, IMAGENET_STD)
    assert loaded.header["classes"] == CIFAR_10
    result = deepres("convert", "resnet14.th", "--to", "ours.safetensors")
    assert "akamaster/pytorch_resnet_cifar10" in result.stderr and "0.485,0.456,0.406" in result.stderr
    assert "padded on both sides" in result.stderr
    assert "state_dict is taken of resnet14.th" in result.stderr and "with a mean" in result.stdout
    assert_computes(tmp_path / "ours.safetensors", net, "resnet14", IMAGENET_MEAN, IMAGENET_STD)


def test_the_same_tensors_padded_behind_are_another_network(tmp_path):
    """What renaming alone would give: scores that are far off."""
    state = three_stages(both).state_dict()
    torch.save(state, tmp_path / "net.th")
    other = three_stages(behind)
    other.load_state_dict(state)
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    loaded = package.load(tmp_path / "net.th")
    with torch.no_grad():
        ours, renamed = loaded(images() - loaded.mean), other((images() - mean) / std)
    assert (ours - renamed).abs().max() > 0.01 * renamed.abs().max()


@pytest.mark.parametrize(("padding", "shortcut"), [("both", both), ("behind", behind)])
def test_a_padding_that_the_names_do_not_tell_is_asked_for(deepres, refused, tmp_path, padding, shortcut):
    net = three_stages(shortcut, head="fc", name="downsample")
    torch.save(net.state_dict(), tmp_path / "net.pth")
    with pytest.raises(InputError, match=r"--padding both .* or --padding behind"):
        package.load(tmp_path / "net.pth")
    for verb in (
        ("eval", "net.pth", "--data", "x"),
        ("predict", "net.pth", "x"),
        ("export", "net.pth", "--out", "x.onnx"),
    ):
        assert "convert them with --padding both" in refused(*verb)
    how = ("--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25", "--to", "ours.safetensors")
    assert "--padding both" in refused("convert", "net.pth", *how)
    assert deepres("convert", "net.pth", "--padding", padding, *how).returncode == 0
    assert_computes(tmp_path / "ours.safetensors", net, "resnet14", (0.5,) * 3, (0.25,) * 3)


def test_a_padding_says_more_than_names_and_is_refused_for_networks_without_one(deepres, refused, tmp_path):
    net = three_stages(behind)
    torch.save(net.state_dict(), tmp_path / "net.pth")
    assert deepres("convert", "net.pth", "--padding", "behind", "--to", "ours.safetensors").returncode == 0
    assert_computes(tmp_path / "ours.safetensors", net, "resnet14", IMAGENET_MEAN, IMAGENET_STD)
    torch.save(three_stages(projection).state_dict(), tmp_path / "b.pth")
    build("resnet8").save_pretrained(tmp_path / "own")
    for place in ("b.pth", "ours.safetensors", "own"):
        assert "--padding" in refused("convert", place, "--padding", "both", "--to", "x.safetensors")


def test_names_of_a_plain_net_are_taken_as_such(tmp_path):
    net = three_stages(lambda *shape: nn.Identity(), head="fc", name="downsample")
    torch.save(net.state_dict(), tmp_path / "net.pth")
    assert package.load(tmp_path / "net.pth", "plain14").name == "plain14"


def test_a_damaged_network_of_option_a_is_refused_by_what_it_lacks(refused, tmp_path):
    state = made((16, 32, 64), (3, 3, 3), both).state_dict()
    for key, word in (
        ("linear.weight", "missing fc.weight"),
        ("layer2.0.conv1.weight", "the nearest is resnet20, but: missing conv3_x.1"),
    ):
        torch.save({name: value for name, value in state.items() if name != key}, tmp_path / "net.pth")
        assert word in refused("convert", "net.pth", "--to", "x.safetensors")


@pytest.mark.parametrize(
    ("name", "blocks", "expansion"), [("resnet18-32px", (2, 2, 2, 2), 1), ("resnet50-32px", (3, 4, 6, 3), 4)]
)
def test_resnets_of_kuangliu_for_32_pixels_give_their_outputs(tmp_path, name, blocks, expansion):
    net = made((64, 128, 256, 512), blocks, projection, expansion=expansion)
    state = {f"module.{key}": value for key, value in net.state_dict().items()}
    torch.save({"net": state, "acc": 95.4, "epoch": 199}, tmp_path / "ckpt.pth")
    loaded = assert_computes(tmp_path / "ckpt.pth", net, name, CIFAR_MEAN, CIFAR_STD)
    assert loaded.header["classes"] == CIFAR_10


def test_projections_on_three_stages_under_torchvisions_names_give_their_outputs(deepres, tmp_path):
    """chenyaofo's and bearpaw's: option B."""
    net = three_stages(projection, head="fc", name="downsample")
    torch.save(net.state_dict(), tmp_path / "cifar10_resnet14.pt")
    assert_computes(tmp_path / "cifar10_resnet14.pt", net, "resnet14-b", CIFAR_MEAN, CIFAR_STD)
    net = three_stages(projection, head="fc", name="downsample", classes=100)
    torch.save(net.state_dict(), tmp_path / "cifar100.pt")
    assert package.load(tmp_path / "cifar100.pt").mean is None  # the repositories differ
    result = deepres("convert", "cifar100.pt", "--to", "ours.safetensors", "--json")
    assert json.loads(result.stdout)["mean"] is False


def weiaicunzais(net):
    """The state dict of the same network in weiaicunzai/pytorch-cifar100, whose blocks are sequences."""
    renamed = {}
    for key, value in net.state_dict().items():
        key = key.replace("conv1.", "conv1.0.", 1) if key.startswith("conv1.") else key.replace("linear.", "fc.")
        key = key.replace("bn1.", "conv1.1.", 1) if key.startswith("bn1.") else key
        for layer in (1, 2, 3):
            key = key.replace(f".conv{layer}.", f".residual_function.{3 * layer - 3}.") if "layer" in key else key
            key = key.replace(f".bn{layer}.", f".residual_function.{3 * layer - 2}.") if "layer" in key else key
        for stage in (1, 2, 3, 4):
            key = key.replace(f"layer{stage}.", f"conv{stage + 1}_x.")
        renamed[key] = value
    return renamed


@pytest.mark.parametrize(
    ("name", "blocks", "expansion"), [("resnet18-32px", (2, 2, 2, 2), 1), ("resnet50-32px", (3, 4, 6, 3), 4)]
)
def test_resnets_of_weiaicunzai_give_their_outputs(tmp_path, name, blocks, expansion):
    net = made((64, 128, 256, 512), blocks, projection, expansion=expansion, classes=100)
    state = weiaicunzais(net)
    assert {"conv1.0.weight", "conv2_x.0.residual_function.3.weight", "conv3_x.0.shortcut.1.bias"} <= state.keys()
    torch.save(state, tmp_path / "resnet.pth")
    mean, std = (0.5070752, 0.4865489, 0.4409178), (0.2673343, 0.2564385, 0.2761505)
    assert_computes(tmp_path / "resnet.pth", net, name, mean, std)


def test_a_max_pool_behind_a_small_conv1_is_asked_for(deepres, refused, tmp_path):
    """huyvnphan's resnet18 has one, a torchvision net with another conv1 mostly none; the tensors are the same."""
    net = made((64, 128, 256, 512), (2, 2, 2, 2), projection, name="downsample", head="fc", pool=True)
    torch.save(net.state_dict(), tmp_path / "resnet18.pt")
    message = refused("convert", "resnet18.pt", "--to", "ours.safetensors")
    assert "--network resnet18-32px (none) or --network resnet18-32px-pool" in message
    how = ("--network", "resnet18-32px-pool", "--to", "ours.safetensors")
    assert "huyvnphan/PyTorch_CIFAR10" in deepres("convert", "resnet18.pt", *how).stderr
    for file, network in (("resnet18.pt", "resnet18-32px-pool"), ("ours.safetensors", None)):
        assert_computes(tmp_path / file, net, "resnet18-32px-pool", CIFAR_MEAN, (0.2471, 0.2435, 0.2616), network)
    net.pool = False
    how = ("--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25", "--to", "none.safetensors")
    assert deepres("convert", "resnet18.pt", "--network", "resnet18-32px", *how).returncode == 0
    assert_computes(tmp_path / "none.safetensors", net, "resnet18-32px", (0.5,) * 3, (0.25,) * 3)


def test_bottlenecks_on_three_stages_are_refused_with_their_names(refused, tmp_path):
    """bearpaw's deeper networks, which the paper has not."""
    net = made((16, 32, 64), (2, 2, 2), projection, expansion=4, name="downsample", head="fc")
    torch.save(net.state_dict(), tmp_path / "net.pth")
    assert "conv2_x.1.residual.layer3" in refused("convert", "net.pth", "--to", "x.safetensors")
