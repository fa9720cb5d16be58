"""Weights in and out: other people's networks give the same outputs here, and files come back as they were."""

import json
import struct
from argparse import Namespace

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import nn

import deepres as package
from deepres.errors import InputError
from deepres.models import pretrained, weights
from deepres.models.catalog import build, of_depth
from deepres.models.convert import foreign_state_dict, load_state, to_torchvision, torchvision_state_dict
from deepres.models.identify import identify
from deepres.models.network import Network
from deepres.models.pretrained import IMAGENET_MEAN, IMAGENET_STD

DEPTHS = (18, 34, 50, 101, 152)
MEAN, STD = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))


NOISE = torch.randn(3_000_000, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def randomise(net):
    """Other noise in every tensor, statistics and biases as after a training, so that a mix-up of any two shows."""
    net = net.to_empty(device="cpu").eval()
    for number, (key, value) in enumerate(net.state_dict().items()):
        noise = NOISE[97 * number :][: value.numel()].view(value.shape)
        if key.endswith("num_batches_tracked"):
            value.fill_(number)
        elif value.dim() > 1:
            value.copy_(noise * (2 / value[0].numel()) ** 0.5)
        elif key.endswith("running_var"):
            value.copy_(noise.sigmoid() + 0.5)
        elif key.endswith("weight"):
            value.copy_(noise.sigmoid() * 0.5 + 0.5)
        else:
            value.copy_(noise * 0.1)
    return net


def theirs(name, **how):
    with torch.device("meta"):  # start values would be drawn for nothing
        net = getattr(torchvision.models, name)(weights=None, num_classes=7, **how)
    return randomise(net)


def assert_same_scores(ours, expected):
    """To 1e-5 of the largest score, and not all alike."""
    assert expected.std(0).min() > 0
    assert (ours - expected).abs().max() <= 1e-5 * expected.abs().max()


def images(size=40):
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def assert_loads_as(file, net, network):
    """The file is found to be of `network`, and its scores of RGB in 0..1 are those of `net` on normalised images."""
    loaded = package.load(file)
    assert (loaded.name, loaded.training, "std" in loaded.header) == (network, False, False)
    assert_same_scores(loaded(images() - loaded.mean), net((images() - MEAN) / STD))
    return loaded


# --- torchvision, timm, fb.resnet.torch ---


@pytest.mark.parametrize("depth", DEPTHS)
def test_torchvision_weights_give_its_outputs_and_keep_every_bit(tmp_path, depth):
    net = theirs(f"resnet{depth}")
    state = net.state_dict()
    torch.save(state, tmp_path / "in.pth")
    assert_loads_as(tmp_path / "in.pth", net, f"resnet{depth}")
    ours = pretrained.network(pretrained.read(tmp_path / "in.pth"), None, "in.pth")
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


# --- the authors' release for Caffe ---


def varint(number):
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def field(number, value):
    """One field of a protobuf message: a varint, or bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def blob(values, old=False):
    values = np.asarray(values, "<f4")
    if old:
        four = (1,) * (4 - values.ndim) + values.shape
        shape = b"".join(field(number, size) for number, size in enumerate(four, start=1))
    else:
        shape = field(7, field(1, b"".join(varint(size) for size in values.shape)))
    return shape + field(5, values.tobytes())


def layer(name, *blobs, old=False, **params):
    """A LayerParameter, or an (old) V1LayerParameter, as a field of NetParameter."""
    content = field(4 if old else 1, name.encode()) + (b"" if old else field(2, b"Whatever"))
    content += b"".join(field(6 if old else 7, blob(values, old)) for values in blobs)
    numbers = {"convolution": 10 if old else 106, "pooling": 19 if old else 121, "batch_norm": 139}
    return field(2 if old else 100, content + b"".join(field(numbers[key], value) for key, value in params.items()))


def block_names(stage, count):
    return ["a", *(f"b{n}" for n in range(1, count))] if stage in (3, 4) and count > 6 else "abcdef"[:count]


class Caffe:
    """The release's layout of a torchvision bottleneck network: layers with blobs, written to a `.caffemodel`."""

    def __init__(self, net, old=False):
        self.net, self.old, self.factor = net, old, 0.25
        self.layers = [layer("data", old=old), *self.unit("conv1", "bn_conv1", "scale_conv1", net.conv1, net.bn1)]
        self.layers.append(layer("pool1", old=old, pooling=field(2, 3) + field(3, 2)))
        for stage in (2, 3, 4, 5):
            blocks = getattr(net, f"layer{stage - 1}")
            for name, block in zip(block_names(stage, len(blocks)), blocks, strict=True):
                place = f"{stage}{name}_branch"
                if block.downsample is not None:
                    self.layers += self.branch(f"{place}1", *block.downsample)
                for number, letter in enumerate("abc", start=1):
                    self.layers += self.branch(
                        f"{place}2{letter}", getattr(block, f"conv{number}"), getattr(block, f"bn{number}")
                    )
        weight, bias = (tensor.detach().numpy() for tensor in (net.fc.weight, net.fc.bias))
        self.layers.append(layer("fc1000", weight, bias, old=old))

    def branch(self, place, conv, bn):
        return self.unit(f"res{place}", f"bn{place}", f"scale{place}", conv, bn)

    def unit(self, conv_name, bn_name, scale_name, conv, bn):
        values = [
            value.detach().numpy() for value in (conv.weight, bn.running_mean, bn.running_var, bn.weight, bn.bias)
        ]
        weight, mean, variance, gamma, beta = values
        blobs = [weight]
        if conv_name == "conv1":  # the 50-layer net of the release has a bias here, and only here
            blobs = [weight, np.linspace(-1, 1, len(weight))]
            mean = mean + blobs[1]
        stride = {"convolution": field(6, conv.stride[0])}
        statistics = (mean * self.factor, variance * self.factor, [self.factor])
        return [
            layer(conv_name, *blobs, old=self.old, **stride),
            layer(bn_name, *statistics, old=self.old),
            layer(scale_name, gamma, beta, old=self.old),
            layer(f"{conv_name}_relu", old=self.old),
        ]

    def write(self, file):
        file.write_bytes(field(1, b"ResNet") + b"".join(self.layers))
        return file


def released(depth):
    """A torchvision network changed into the authors': stride on the 1x1, pool without padding."""
    net = theirs(f"resnet{depth}")
    net.maxpool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
    for stage in (net.layer2, net.layer3, net.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    return net


@pytest.mark.parametrize(("depth", "old"), [(50, False), (50, True), (152, False)])
def test_the_authors_caffe_release_gives_its_outputs(deepres, tmp_path, depth, old):
    """On RGB in 0..1 what the Caffe network gives on BGR in 0..255 less the mean image."""
    net = released(depth)
    Caffe(net, old).write(tmp_path / "ResNet.caffemodel")
    mean = np.random.default_rng(0).uniform(90, 130, (1, 3, 64, 64)).astype("<f4")
    (tmp_path / "mean.binaryproto").write_bytes(blob(mean, old=True))
    arguments = ("ResNet.caffemodel", "--mean", "mean.binaryproto", "--to", "ours.safetensors")
    facts = json.loads(deepres("convert", *arguments, "--json").stdout)
    assert (facts["network"], facts["stride_on"], facts["pool_padding"]) == (f"resnet{depth}", "1x1", 0)
    ours = package.load(tmp_path / "ours.safetensors")
    pictures = images(64)
    with torch.no_grad():
        expected = net(pictures.flip(1) * 255 - torch.from_numpy(mean))
        assert_same_scores(ours(pictures - ours.mean), expected)


def test_a_stride_on_the_3x3_is_read_from_the_caffe_file(tmp_path):
    loaded = package.load(Caffe(theirs("resnet50")).write(tmp_path / "other.caffemodel"))
    assert loaded.header["stride_on"] == "3x3"


def test_another_epsilon_of_caffes_batch_norm_is_taken_into_the_variance(tmp_path):
    caffe = Caffe(released(50))
    plain = package.load(caffe.write(tmp_path / "plain.caffemodel")).state_dict()
    caffe.layers[2] = layer(
        "bn_conv1", *([0.5] * 64, [2.0] * 64, [2.0]), batch_norm=varint(3 << 3 | 5) + struct.pack("<f", 0.1)
    )
    changed = package.load(caffe.write(tmp_path / "changed.caffemodel")).state_dict()
    torch.testing.assert_close(changed["conv1.bn.running_var"], torch.full((64,), 1 + 0.1 - 1e-5))
    differing = {key for key in plain if not torch.equal(plain[key], changed[key])}
    assert differing == {"conv1.bn.running_var", "conv1.bn.running_mean"}


def test_caffe_files_that_are_none_are_refused_in_one_sentence(refused, tmp_path):
    caffe = Caffe(released(50))
    whole = caffe.write(tmp_path / "a.caffemodel").read_bytes()
    (tmp_path / "cut.caffemodel").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.caffemodel").write_bytes(b"")
    (tmp_path / "vgg.caffemodel").write_bytes(layer("conv1_1", np.zeros((4, 3, 3, 3))))
    damaged = blob(np.zeros(4)).replace(varint(4) + field(5, b"")[:1], varint(5) + field(5, b"")[:1])
    (tmp_path / "sizes.caffemodel").write_bytes(field(100, field(1, b"conv1") + field(7, damaged)))
    padded = [layer("pool1", pooling=field(4, 1)) if b"pool1" in part[:12] else part for part in caffe.layers]
    (tmp_path / "padded.caffemodel").write_bytes(b"".join(padded))
    (tmp_path / "grey.binaryproto").write_bytes(blob(np.zeros((1, 1, 8, 8))))
    for name, words in {
        "cut": "no whole file",
        "empty": "none of its layers has weights",
        "vgg": "unexpected layer conv1_1",
        "sizes": "is damaged",
        "padded": "pool1 has padding",
        "gone": "no weights file",
    }.items():
        assert words in refused("convert", f"{name}.caffemodel", "--to", "out.safetensors")
    for mean, words in {"grey.binaryproto": "3 channels", "gone.binaryproto": "no mean image", "1,x": "--mean"}.items():
        assert words in refused("convert", "a.caffemodel", "--mean", mean, "--to", "out.safetensors")
    assert not list(tmp_path.glob("*out*"))


def test_a_caffe_network_without_its_mean_image_is_told_of(deepres, tmp_path):
    Caffe(released(50)).write(tmp_path / "a.caffemodel")
    assert "give --mean" in deepres("convert", "a.caffemodel", "--to", "out.safetensors").stderr


# --- which network, out of tensors alone ---


@pytest.mark.parametrize("name", ["resnet18", "resnet34-c", "resnet50-a", "resnet50-32px", "resnet26-b", "highway19"])
def test_a_network_is_told_by_its_tensors(name):
    assert identify(build(name, 3, 1).state_dict()) == name


def test_shortcuts_without_parameters_cannot_be_told_from_none():
    for name, words in {"plain20": "resnet20 or plain20", "resnet34-a": "plain34 or resnet34-a"}.items():
        state = build(name).state_dict()
        with pytest.raises(InputError, match=f"could be {words}"):
            identify(dict(reversed(state.items())))


def test_every_network_of_a_depth_has_one_name():
    assert set(of_depth(34)) == {
        "resnet34",
        "resnet34-a",
        "resnet34-c",
        "resnet34-32px",
        "plain34",
        "plain34-32px",
        "highway34",
    }
    assert set(of_depth(20)) == {"resnet20", "resnet20-b", "resnet20-c", "plain20", "highway20"}
    assert of_depth(3) == ()


def test_a_wrong_name_is_answered_with_the_nearest_network(refused, tmp_path):
    torch.save(theirs("resnet34").state_dict(), tmp_path / "net.pth")
    message = refused("convert", "net.pth", "--network", "resnet18", "--to", "out.safetensors")
    assert "not of resnet18 (the nearest network is resnet34)" in message
    state = build("resnet20").state_dict()
    del state["conv3_x.2.residual.layer1.bn.weight"]
    with pytest.raises(InputError, match=r"nearest is resnet20, but: missing conv3_x\.2\.residual\.layer1\.bn\.weight"):
        identify(state)
    with pytest.raises(InputError, match="no network that is known"):
        identify({"weight": torch.zeros(2)})


# --- files ---


def test_a_run_becomes_one_file_with_its_whole_story(deepres, folder, tmp_path):
    run = tmp_path / "run"
    how = ("--iterations", 2, "--batch-size", 8, "--kernels", "off", "--compile", "off", "--run", run)
    assert deepres("train", "resnet8", "--data", folder, *how).returncode == 0
    facts = json.loads(deepres("convert", run, "--to", "net.safetensors", "--json").stdout)
    found = weights.read(tmp_path / "net.safetensors")
    done = json.loads((run / "done.json").read_text())
    expected = {"network": "resnet8", "stride_on": "1x1", "classes": ["ant", "bee", "cow"], "recipe": "cifar"}
    assert expected.items() <= found.header.items()
    assert {"commit", "seed", "iteration"} <= found.header.keys()
    assert found.header["errors"] == {"center": {"top1": done["test_error"], "top5": done["test_top5_error"]}}
    assert found.header.items() <= facts.items()
    assert found.mean.shape == (3, 32, 32)
    again = package.load(run)
    assert torch.equal(again.mean, found.mean)
    assert all(torch.equal(value, found.state[key]) for key, value in again.state_dict().items())
    report = json.loads(deepres("eval", "net.safetensors", "--data", folder, "--json").stdout)
    assert report["top1_error"] == pytest.approx(done["test_error"])


def test_weights_of_elsewhere_are_tested_as_our_own(deepres, folder, tmp_path):
    """The mean and the standard deviation are in what the command line tests."""
    net = theirs("resnet18")
    net.fc = nn.Linear(512, 3)
    torch.save(net.state_dict(), tmp_path / "net.pth")
    report = json.loads(deepres("eval", "net.pth", "--data", folder, "--json").stdout)
    assert (report["network"], report["images"], len(report["classes"])) == ("resnet18", 18, 3)


def test_what_torchvision_computes_otherwise_is_told(deepres, refused, tmp_path):
    for name in ("resnet50", "resnet18", "resnet34-c", "resnet20"):
        build(name, 2).save_pretrained(tmp_path / name)
    result = deepres("convert", "resnet50", "--to", "out.pth")
    assert result.returncode == 0 and "stride on the 3x3" in result.stderr
    assert "stride" not in deepres("convert", "resnet18", "--to", "out.pth").stderr
    for name in ("resnet34-c", "resnet20"):
        assert f"torchvision has no {name}" in refused("convert", name, "--to", "other.pth")
    assert not (tmp_path / "other.pth").exists()


def test_a_foreign_pickle_or_a_file_that_is_none_is_refused(refused, tmp_path):
    torch.save({"state_dict": {"a": torch.zeros(1)}, "how": print}, tmp_path / "code.pth")
    torch.save({"state_dict": {"a": "text"}}, tmp_path / "text.pth")
    (tmp_path / "net.t7").write_bytes(b"4")
    for name, words in {
        "code.pth": "refused",
        "text.pth": "refused",
        "net.t7": "Torch for Lua",
        "no": "no weights",
    }.items():
        assert words in refused("convert", name, "--to", "out.safetensors")
    build("resnet8").save_pretrained(tmp_path / "net")
    assert "--format" in refused("convert", "net", "--to", "out.bin")
    assert "has 1 channels, resnet8 takes 3" in refused("convert", "net", "--mean", "0.5", "--to", "out.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    assert "could not be written" in refused("convert", "net", "--to", "folder.safetensors")


def test_what_cannot_be_read_back_leaves_the_old_file(deepres, refused, tmp_path, monkeypatch):
    """A disk that flips a bit."""
    build("resnet8").save_pretrained(tmp_path / "net")
    (tmp_path / "out.safetensors").write_text("old")
    whole = weights.serialise
    monkeypatch.setattr(weights, "serialise", lambda *content: whole(*content)[:-1] + b"\x01")
    assert "could not be read back" in refused("convert", "net", "--to", "out.safetensors")
    assert (tmp_path / "out.safetensors").read_text() == "old"
    assert [file.name for file in tmp_path.glob("*out*")] == ["out.safetensors"]


def test_names_go_to_torchvisions_and_back():
    state = build("resnet50").state_dict()
    there = to_torchvision(state)
    assert list(torchvision_state_dict(there)) == list(state)
    assert foreign_state_dict(state) is None
    with pytest.raises(InputError, match=r"no name for conv2_x\.1\.shortcut\.gate\.weight"):
        to_torchvision(build("highway8").state_dict())


def test_a_network_comes_back_from_a_folder_as_the_hub_has_them(tmp_path):
    net = randomise(build("resnet50", 4, stride_on="3x3", pool_padding=0))
    net.mean, net.header = torch.rand(3, 8, 8), net.header | {"classes": list("abcd")}
    net.save_pretrained(tmp_path / "net")
    for back in (Network.from_pretrained(tmp_path / "net"), package.load(tmp_path / "net")):
        assert back.header == net.header == json.loads((tmp_path / "net" / "config.json").read_text())
        assert torch.equal(back.mean, net.mean)
        with torch.no_grad():
            assert torch.equal(back(images()), net(images()))
    assert load_file(tmp_path / "net" / "model.safetensors").keys() == net.state_dict().keys() | {weights.MEAN}
    load_state(build("resnet50", 4), back.state_dict())
