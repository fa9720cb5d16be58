"""The networks that the authors released for Caffe, and their mean image, from Caffe's own files.

Both are messages of Caffe's protobuf schema (src/caffe/proto/caffe.proto); FIELDS is the part of it that is read here.
In the release, two layers follow the convolution res3a_branch2a: bn3a_branch2a normalizes by the running statistics,
and scale3a_branch2a applies the learned weight and bias. Our batch normalization does both. The images of the release
are BGR in 0..255; ours are RGB in 0..1.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from torch import Tensor

from deepres.runtime.errors import InputError
from deepres.runtime.files import read_bytes
from deepres.weights.state import fold_biases

# For each message its fields: name, (number, type); a * marks a repeated field. Packed numbers are declared as bytes,
# which look the same in the file: numpy then reads them at once.
FIELDS = {
    "NetParameter": {"layers": (2, "V1LayerParameter*"), "layer": (100, "LayerParameter*")},
    "LayerParameter": {
        "name": (1, "string"),
        "blobs": (7, "BlobProto*"),
        "convolution_param": (106, "ConvolutionParameter"),
        "pooling_param": (121, "PoolingParameter"),
        "batch_norm_param": (139, "BatchNormParameter"),
    },
    "V1LayerParameter": {
        "name": (4, "string"),
        "blobs": (6, "BlobProto*"),
        "convolution_param": (10, "ConvolutionParameter"),
        "pooling_param": (19, "PoolingParameter"),
    },
    "ConvolutionParameter": {"stride": (6, "uint32*")},
    "PoolingParameter": {"pad": (4, "uint32")},
    "BatchNormParameter": {"eps": (3, "float")},
    "BlobProto": {
        "num": (1, "int32"),
        "channels": (2, "int32"),
        "height": (3, "int32"),
        "width": (4, "int32"),
        "data": (5, "bytes"),
        "shape": (7, "BlobShape"),
        "double_data": (8, "bytes"),
    },
    "BlobShape": {"dim": (1, "int64*")},
}
EPS = 1e-5  # epsilon of batch normalization: Caffe's default, and ours
PIXEL = 255  # Caffe's value of white

# Names of layers: conv1 and its BN, then a convolution of a block and its BN. branch1 is the shortcut. The blocks of a
# stage are a, b, c, ... in the 50-layer net, and a, b1, b2, ... in the deeper ones.
STEM = re.compile(r"(?P<kind>bn_|scale_|)conv1")
BLOCK = re.compile(r"(?P<kind>res|bn|scale)(?P<stage>[2-5])(?P<block>[a-z])(?P<number>\d*)_branch(?P<branch>1|2[abc])")
CLASSIFIER = re.compile(r"fc\d+")
BLOBS = {"conv": (0, 1), "bn": (2,), "scale": (1,), "fc": (0, 1)}  # how many blobs may follow the first
KINDS = {"": "conv", "res": "conv", "bn": "bn", "scale": "scale", "bn_": "bn", "scale_": "scale"}


def read_network(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A ResNet of the release: its state dict under our names, and the header fields of its structure.

    The network takes RGB images in 0..1 from which the mean image is subtracted. Raises `InputError` for a file that is
    not a whole Caffe network, and for layers that no ResNet has.
    """
    net = _parse("NetParameter", file)
    layers = [layer for layer in (*net.layer, *net.layers) if layer.name]
    if any(isinstance(layer.name, bytes) for layer in layers):  # protobuf returns bytes that are not UTF-8 so
        raise InputError(f"{file} is damaged: a layer has a name that is no UTF-8; copy it again")
    if not any(layer.blobs for layer in layers):
        raise InputError(f"{file} is no trained network of Caffe: none of its layers has weights")
    # The tensors of all layers; conv1 is changed to take RGB in 0..1.
    state = {key: value for layer in layers if layer.blobs for key, value in _tensors(layer, file).items()}
    conv1 = state.get("conv1.conv.weight")
    if conv1 is not None and conv1.dim() == 4 and conv1.shape[1] == 3:
        state["conv1.conv.weight"] = conv1.flip(1) * PIXEL
    # The structure: which convolution of a bottleneck has the stride, and how the max pool pads.
    by_name = {layer.name: layer for layer in layers}
    if "pool1" in by_name and by_name["pool1"].pooling_param.pad:
        raise InputError(f"{file} is not of the authors' release: its pool1 has padding, which Caffe rounds otherwise")
    strides = by_name["res3a_branch2b"].convolution_param.stride if "res3a_branch2b" in by_name else ()
    return fold_biases(state), {"stride_on": "3x3" if 2 in strides else "1x1", "pool_padding": 0}


def read_mean(file: Path) -> Tensor:
    """The mean image in a `.binaryproto`: (3, H, W), RGB in 0..1. Raises `InputError` for a file without one."""
    if not file.exists():
        raise InputError(f"there is no mean image {file}")
    image = _array(_parse("BlobProto", file), file)
    image = image[0] if image.dim() == 4 and len(image) == 1 else image
    if image.dim() != 3 or len(image) != 3:
        raise InputError(f"{file} holds {tuple(image.shape)}, not a mean image of 3 channels")
    return image.flip(0) / PIXEL


def _tensors(layer: Any, file: Path) -> dict[str, Tensor]:
    """The parameters or running statistics of one layer, under our names."""
    kind, ours = _place(layer.name)
    first, *rest = (_array(blob, file) for blob in layer.blobs)
    if kind is None or len(rest) not in BLOBS[kind] or (kind == "bn" and rest[-1].numel() != 1):
        raise InputError(f"{file} is not of a ResNet of the authors' release: unexpected layer {layer.name}")
    vectors = [blob.flatten() for blob in rest]
    if kind == "bn":
        # Caffe stores weighted sums of the mean and the variance, and `count`, the sum of the weights.
        variance, count = vectors
        factor = 1 / count.item() if count.item() else 0.0
        param = getattr(layer, "batch_norm_param", None)  # V1LayerParameter has none
        eps = param.eps if param and param.HasField("eps") else EPS
        mean, variance = first.flatten() * factor, variance * factor + (eps - EPS)
        return {f"{ours}.running_mean": mean, f"{ours}.running_var": variance}
    if kind == "fc":
        first = first.reshape(-1, first.shape[-1])  # older files have (1, 1, classes, features)
        vectors = vectors or [torch.zeros(len(first))]
    elif kind == "scale":
        first = first.flatten()
    return {f"{ours}.{name}": value for name, value in zip(("weight", "bias"), (first, *vectors), strict=False)}


def _place(name: str) -> tuple[str | None, str]:
    """The kind of a layer of the release (conv, bn, scale or fc; None for another), and the name of our module."""
    if CLASSIFIER.fullmatch(name):
        return "fc", "fc"
    match = STEM.fullmatch(name) or BLOCK.fullmatch(name)
    if match is None:
        return None, ""
    place, kind = match.groupdict(), KINDS[match["kind"]]
    module = "conv1"
    if "stage" in place:
        block = int(place["number"]) + 1 if place["number"] else ord(place["block"]) - ord("a") + 1
        layer = "shortcut.projection" if place["branch"] == "1" else f"residual.layer{' abc'.index(place['branch'][1])}"
        module = f"conv{place['stage']}_x.{block}.{layer}"
    return kind, f"{module}.{'conv' if kind == 'conv' else 'bn'}"


def _array(blob: Any, file: Path) -> Tensor:
    """The numbers of a blob as float32, in its shape. Raises `InputError` where the two do not agree."""
    shape = tuple(blob.shape.dim) or (blob.num, blob.channels, blob.height, blob.width)
    content, kind = (blob.double_data, "<f8") if blob.double_data else (blob.data, "<f4")
    values = np.frombuffer(content[: len(content) // 8 * 8 if kind == "<f8" else len(content) // 4 * 4], kind)
    if min(shape) < 0 or values.size != np.prod(shape, dtype=np.int64):
        raise InputError(f"{file} is damaged: {values.size} numbers where {shape} is said; copy it again")
    return torch.from_numpy(values.astype(np.float32)).reshape(shape)


def _parse(message: str, file: Path) -> Any:
    """The content of `file` as a Caffe message of that type. Raises `InputError` where it is not a whole one."""
    try:
        return _messages()[f"caffe.{message}"].FromString(read_bytes(file))
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}); give another file") from None
    except DecodeError:
        raise InputError(f"{file} is no whole file of Caffe; copy it again") from None


@cache
def _messages() -> dict[str, Any]:
    """The message classes of FIELDS. Their own descriptor pool avoids a clash with another copy of Caffe's schema."""
    kinds = descriptor_pb2.FieldDescriptorProto
    schema = descriptor_pb2.FileDescriptorProto(name="deepres/caffe.proto", package="caffe", syntax="proto2")
    for message, fields in FIELDS.items():
        described = schema.message_type.add(name=message)
        for name, (number, kind) in fields.items():
            label = kinds.LABEL_REPEATED if kind.endswith("*") else kinds.LABEL_OPTIONAL
            field = described.field.add(name=name, number=number, label=label)
            if kind.rstrip("*") in FIELDS:
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".caffe.{kind.rstrip('*')}"
            else:
                field.type = kinds.Type.Value(f"TYPE_{kind.rstrip('*').upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(schema)
    return message_factory.GetMessageClassesForFiles([schema.name], pool)
