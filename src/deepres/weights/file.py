"""Weights on disk: safetensors with a header that says which network they are of."""

import json
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save as to_bytes
from torch import Tensor

from deepres.runtime import archive, untrusted
from deepres.runtime.errors import InputError, Say, silent
from deepres.weights.unpack import read_pickle

MEAN = "deepres.mean"  # the per-pixel mean image travels with the weights: a net is of no use without it
HEADER = "deepres"
WEIGHTS, PICKLED = "model.safetensors", "pytorch_model.bin"  # the hub's names of a file of weights, and of older ones
EXPORTED = (".onnx", ".xml", ".pt2")  # files of deepres export
MOST = 2**31  # of a count
FP32 = torch.finfo(torch.float32)
SHOWN = 60  # characters of a value that is refused


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < MOST


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) and untrusted.is_unicode(text) for text in value)


def are_divisors(value: Any) -> bool:
    """Whether `value` is a list of numbers above 0 that fp32 holds: a `std` that conv1 can be divided by."""
    return isinstance(value, list) and all(type(x) in (int, float) and FP32.tiny <= x <= FP32.max for x in value)


COUNT: tuple[Callable[[Any], bool], str] = (_is_count, "a whole number below 2^31")
# Of the header, what is read again: networks are built with it, and their users rely on it. The rest is a record.
FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "network": (lambda value: isinstance(value, str), "a name"),
    "num_classes": COUNT,
    "in_channels": COUNT,
    "residual_layers": COUNT,
    "pool_padding": COUNT,
    "crop": COUNT,
    "classes": (_are_texts, "a list of names"),
    "std": (are_divisors, "a list of numbers above 0"),
}


@dataclass(frozen=True)
class Weights:
    """A state dict, the mean image (C, H, W) in 0..1 to subtract from images, and the header; both may be absent."""

    state: dict[str, Tensor]
    mean: Tensor | None
    header: dict[str, Any]


def serialise(state: Mapping[str, Tensor], mean: Tensor | None, header: Mapping[str, Any]) -> bytes:
    """The bytes of a weights file. `header` must be plain JSON."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    if mean is not None:
        tensors[MEAN] = mean.detach().cpu().contiguous()
    return to_bytes(tensors, metadata={HEADER: json.dumps(header)})


def read_file(file: Path, say: Say = silent, take: str | None = None) -> Weights:
    """Read a weights file: safetensors, or a state dict of `torch.save`, alone or in a checkpoint of a training.

    Of a checkpoint with several state dicts `take` names one; `say` is told which is read.
    Raises `InputError` for a file that is neither, or is cut short, and for one whose header or mean image is not what
    `serialise` writes; a pickle that holds anything but tensors is refused, since to load it would run whatever code
    it carries.
    """
    if not file.exists():
        raise InputError(f"there is no weights file {file}; give one, a run folder, or hf:owner/name")
    if file.suffix in EXPORTED:
        raise InputError(f"{file} is an exported network, whose weights are not read here; give those it was made of")
    try:
        with archive.opened(file) as stream:
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 (not a mapping)
            text = (stream.metadata() or {}).get(HEADER, "{}")
        if take is not None:
            raise InputError(f"{file} holds one set of weights; leave --take {take} out")
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}); give another file") from None
    except SafetensorError as error:
        if file.suffix == ".safetensors":
            raise InputError(f"{file} is no whole safetensors file ({error}); copy it again") from None
        tensors, text = read_pickle(file, say, take), "{}"
    mean = tensors.pop(MEAN, None)
    if mean is not None and not (mean.dim() == 3 and mean.numel() and mean.is_floating_point()):
        raise InputError(
            f"{file}: its mean image must be floats (channels, height, width), not {mean.dtype} of "
            f"shape {tuple(mean.shape)}; mend it, or leave it out"
        )
    if mean is not None and not mean.isfinite().all():
        raise InputError(f"{file}: its mean image holds values that are not finite; mend it, or leave it out")
    return Weights(tensors, mean, _read_header(file, text))


def _read_header(file: Path, text: str) -> dict[str, Any]:
    what = f"{file}: its header {HEADER!r}"
    header = untrusted.decode(text, dict[str, Any], what, "write it anew, or leave it out", own=True)
    for name, (is_right, needed) in FIELDS.items():
        if name in header and not is_right(header[name]):
            shown = textwrap.shorten(json.dumps(header[name]), SHOWN)
            raise InputError(f"{file}: {name} of its header must be {needed}, not {shown}; mend the header")
    return header
