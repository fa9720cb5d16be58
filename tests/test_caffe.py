"""The authors' release for Caffe, from files that are written here, byte by byte."""

import json
import struct

import numpy as np
import pytest
import torch
from torch import nn

import deepres as package
from caffe_files import blob, field, layer, varint
from deepres.weights import caffe
from networks import assert_same_scores, noise_images, theirs


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


@pytest.mark.parametrize(
    ("depth", "old"),
    [(50, True), pytest.param(50, False, marks=pytest.mark.long), pytest.param(152, False, marks=pytest.mark.long)],
)
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
    pictures = noise_images(64)
    with torch.no_grad():
        expected = net(pictures.flip(1) * 255 - torch.from_numpy(mean))
        assert_same_scores(ours(pictures - ours.mean), expected)


def unit(**params):
    """conv1 alone, as in the release."""
    kernels = np.arange(24).reshape(2, 3, 2, 2)
    statistics = layer("bn_conv1", [4.0, 8.0], [2.0, 6.0], [2.0], **params)
    return layer("conv1", kernels, [1.0, -1.0]) + statistics + layer("scale_conv1", [3.0, 4.0], [5.0, 6.0])


def test_conv1_takes_rgb_and_statistics_bias_and_scale_are_one_batch_norm(tmp_path):
    """Blue is Caffe's first channel, and white 255; a factor of 2 halves the statistics; a bias moves the mean."""
    (tmp_path / "a.caffemodel").write_bytes(unit())
    state, header = caffe.read_network(tmp_path / "a.caffemodel")
    kernels = np.arange(24).reshape(2, 3, 2, 2)[:, ::-1] * 255
    expected = {"conv.weight": kernels, "bn.weight": [3, 4], "bn.bias": [5, 6]}
    expected |= {"bn.running_mean": [2 - 1, 4 + 1], "bn.running_var": [1, 3]}
    assert {key: value.tolist() for key, value in state.items()} == {
        f"conv1.{key}": np.asarray(value).tolist() for key, value in expected.items()
    }
    assert header == {"stride_on": "1x1", "pool_padding": 0}


def test_a_stride_on_the_3x3_and_another_epsilon_are_read_from_the_file(tmp_path):
    """A larger epsilon is a larger variance."""
    eps = varint(3 << 3 | 5) + struct.pack("<f", 0.1)
    stride = layer("res3a_branch2b", np.zeros((1, 1, 3, 3)), convolution=field(6, 2))
    (tmp_path / "a.caffemodel").write_bytes(unit(batch_norm=eps) + stride)
    state, header = caffe.read_network(tmp_path / "a.caffemodel")
    assert state["conv1.bn.running_var"].tolist() == pytest.approx([1 + 0.1 - 1e-5, 3 + 0.1 - 1e-5])
    assert header["stride_on"] == "3x3"


def test_files_of_caffe_that_are_none_are_refused_in_one_sentence(refused, tmp_path):
    sizes = field(7, field(1, varint(5))) + field(5, bytes(16))
    for name, content in {
        "cut": unit()[:-20],
        "empty": b"",
        "vgg": layer("conv1_1", np.zeros((4, 3, 3, 3))),
        "few": layer("bn_conv1", [1.0]),
        "sizes": field(100, field(1, b"conv1") + field(7, sizes)),
        "odd": field(100, field(1, b"conv1") + field(7, field(7, field(1, varint(1))) + field(5, bytes(3)))),
        "padded": unit() + layer("pool1", pooling=field(4, 1)),
        "whole": unit(),
    }.items():
        (tmp_path / f"{name}.caffemodel").write_bytes(content)
    (tmp_path / "grey.binaryproto").write_bytes(blob(np.zeros((1, 1, 8, 8))))
    for name, words in {
        "cut": "no whole file",
        "empty": "none of its layers has weights",
        "vgg": "unexpected layer conv1_1",
        "few": "unexpected layer bn_conv1",
        "sizes": "is damaged",
        "odd": "is damaged",
        "padded": "pool1 has padding",
        "whole": "no network that is known",
        "gone": "no weights file",
    }.items():
        assert words in refused("convert", f"{name}.caffemodel", "--to", "out.safetensors")
    for mean, words in {"grey.binaryproto": "3 channels", "gone.binaryproto": "no mean image", "1,x": "--mean"}.items():
        assert words in refused("convert", "whole.caffemodel", "--mean", mean, "--to", "out.safetensors")
    assert not list(tmp_path.glob("*out*"))


def test_a_network_without_its_mean_image_is_told_of(deepres, tmp_path):
    Caffe(released(50)).write(tmp_path / "a.caffemodel")
    result = deepres("convert", "a.caffemodel", "--to", "out.safetensors")
    assert (result.returncode, "give --mean" in result.stderr) == (0, True)
