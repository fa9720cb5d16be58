"""Other people's networks from their files: torchvision's, timm's, those of fb.resnet.torch; the same outputs."""

from argparse import Namespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import deepres as package
from deepres.models.registry import IMAGENET_MEAN, IMAGENET_STD
from deepres.runtime.errors import InputError
from deepres.weights import load
from deepres.weights.names import to_torchvision
from networks import assert_same_scores, images, randomise, theirs

DEPTHS = (18, 34, 50, 101, 152)
MEAN, STD = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))


@torch.no_grad()
def assert_loads_as(file, net, network):
    """The file is found to be of `network`, and its scores of RGB in 0..1 are those of `net` on normalised images."""
    loaded = package.load(file)
    assert (loaded.name, loaded.training, "std" in loaded.header) == (network, False, False)
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert_same_scores(loaded(images() - loaded.mean), net((images() - MEAN) / STD))
    return loaded


@pytest.mark.parametrize("depth", DEPTHS)
def test_torchvision_weights_give_its_outputs_and_keep_every_bit(tmp_path, depth):
    net = theirs(f"resnet{depth}")
    state = net.state_dict()
    torch.save(state, tmp_path / "in.pth")
    assert_loads_as(tmp_path / "in.pth", net, f"resnet{depth}")
    ours = load.network_with(load.read_weights(tmp_path / "in.pth"), None, "in.pth")
    back = to_torchvision(ours.state_dict())
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], value) for key, value in state.items())


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_files_go_to_ours_and_back_to_torchvisions_to_the_last_bit(deepres, tmp_path, name):
    net = theirs(name)
    torch.save(net.state_dict(), tmp_path / "in.pth")
    result = deepres("convert", "in.pth", "--to", "ours.safetensors")
    assert (result.returncode, name in result.stdout) == (0, True)
    loaded = assert_loads_as(tmp_path / "ours.safetensors", net, name)
    assert loaded.header["stride_on"] == "3x3"
    result = deepres("convert", "ours.safetensors", "--to", "back.pth")
    assert (result.returncode, "warning" in result.stderr) == (0, False)
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert back.keys() == net.state_dict().keys()
    assert all(torch.equal(back[key], value) for key, value in net.state_dict().items())


@pytest.mark.parametrize("depth", DEPTHS)
def test_timm_weights_give_its_outputs(tmp_path, depth):
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        net = timm.create_model(f"resnet{depth}", num_classes=7)
    randomise(net)
    save_file(net.state_dict(), tmp_path / "model.safetensors")
    assert_loads_as(tmp_path / "model.safetensors", net, f"resnet{depth}")


def test_timms_vgg_whose_classifier_is_of_convolutions_gives_its_outputs(tmp_path):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    net = timm.create_model("vgg16_bn", num_classes=7).eval()
    save_file(net.state_dict(), tmp_path / "model.safetensors")
    loaded = package.load(tmp_path / "model.safetensors")
    with torch.no_grad():
        assert loaded.name == "vgg16-bn"
        assert_same_scores(loaded(images(224) - loaded.mean), net((images(224) - MEAN) / STD))


@pytest.mark.parametrize("name", ["resnet50d", "seresnet50", "resnext50_32x4d", "resnet26"])
def test_a_timm_network_that_is_no_resnet_of_table_1_is_refused(tmp_path, name):
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        net = timm.create_model(name, num_classes=7)
    save_file(randomise(net).state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"unexpected|the nearest is resnet") as caught:
        package.load(tmp_path / "model.safetensors")
    assert "\n" not in str(caught.value)


def numbered(net):
    """The state dict that a converter from Lua makes of the same network in fb.resnet.torch."""
    renamed = {}
    for key, value in net.state_dict().items():
        for before, after in (
            *(("conv1.", "0."), ("bn1.", "1."), ("fc.", "10.1.")),
            *((f"layer{stage}.", f"{stage + 3}.") for stage in (1, 2, 3, 4)),
        ):
            if key.startswith(before):
                key = after + key.removeprefix(before)
                break
        for place, number in enumerate(("conv1", "bn1", "", "conv2", "bn2", "", "conv3", "bn3")):
            key = key.replace(f".{number}.", f".0.0.{place}.") if number else key
        renamed[key.replace(".downsample.", ".0.1.")] = value
    return renamed


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_network_of_fb_resnet_torch_converted_from_lua_gives_the_same_outputs(tmp_path, name):
    net = theirs(name)
    state = {key: value for key, value in numbered(net).items() if not key.endswith("num_batches_tracked")}
    assert {"4.0.0.0.0.weight", "5.0.0.1.1.running_var", "10.1.bias"} <= state.keys()
    torch.save(state, tmp_path / "fb.pth")
    assert_loads_as(tmp_path / "fb.pth", net, name)


def test_biases_of_convolutions_are_folded(tmp_path):
    """pretrainedmodels' fbresnet152 has them, and calls its classifier last_linear."""
    net = theirs("resnet50")
    for module in list(net.modules()):
        if isinstance(module, nn.Conv2d):
            module.bias = nn.Parameter(torch.randn(module.out_channels))
    state = {key.replace("fc.", "last_linear."): value for key, value in net.state_dict().items()}
    assert "layer1.0.downsample.0.bias" in state
    torch.save(state, tmp_path / "fbresnet.pth")
    assert_loads_as(tmp_path / "fbresnet.pth", net, "resnet50")


@pytest.mark.parametrize("nest", ["state_dict", "model"])
def test_a_checkpoint_of_a_training_is_unpacked(tmp_path, nest):
    net = theirs("resnet18")
    state = {f"module._orig_mod.{key}": value for key, value in net.state_dict().items()}
    torch.save({nest: state, "epoch": 3, "args": Namespace(lr=0.1), "optimizer": {}}, tmp_path / "checkpoint.pth")
    assert_loads_as(tmp_path / "checkpoint.pth", net, "resnet18")
