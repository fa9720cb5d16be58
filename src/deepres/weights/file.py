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

from deepres.models.detection.plan import DetectorPlan
from deepres.models.localization.plan import LocalizerPlan
from deepres.models.registry import CASCADE
from deepres.models.segmentation.plan import CascadePlan
from deepres.runtime import archive, untrusted
from deepres.runtime.errors import InputError, Say, silent
from deepres.weights.unpack import read_pickle

MEAN = "deepres.mean"  # the per-pixel mean image goes with the weights: scores are wrong without it
HEADER = "deepres"
WEIGHTS, PICKLED = "model.safetensors", "pytorch_model.bin"  # the hub's names of weights files, new and old
EXPORTED = (".onnx", ".xml", ".pt2")  # files of deepres export
MOST = 2**31  # counts in the header are below
FP32 = torch.finfo(torch.float32)
SHOWN = 60  # characters of a value that is refused


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < MOST


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) and untrusted.is_unicode(text) for text in value)


def are_divisors(value: Any) -> bool:
    """Whether `value` is a list of numbers above 0 in the range of fp32: a `std` by which conv1 can be divided."""
    return isinstance(value, list) and all(type(x) in (int, float) and FP32.tiny <= x <= FP32.max for x in value)


COUNT: tuple[Callable[[Any], bool], str] = (_is_count, "a whole number below 2^31")
# The fields of the header that are read again, since networks are built with them, and what each must be. All other
# fields are only a record.
FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "network": (lambda value: isinstance(value, str), "a name"),
    "num_classes": COUNT,
    "in_channels": COUNT,
    "residual_layers": COUNT,
    "pool_padding": COUNT,
    "crop": COUNT,
    "classes": (_are_texts, "a list of names"),
    "detector": (lambda value: isinstance(value, dict), "the plan of a detector"),
    "localizer": (lambda value: isinstance(value, dict), "the plan of a localizer"),
    "std": (are_divisors, "a list of numbers above 0"),
}
PLANS = {"detector": DetectorPlan, "localizer": LocalizerPlan}


@dataclass(frozen=True)
class Weights:
    """A state dict, the mean image (C, H, W) in 0..1 to subtract from images (or None), and the header (or empty)."""

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
    """Read a weights file: safetensors, or a state dict that `torch.save` wrote, alone or in somebody's checkpoint.

    `take` names one of several state dicts of a checkpoint; `say` is told which one is read.
    Raises `InputError` for a file that is neither, or is cut short, or whose header or mean image `serialise` could not
    have written. A pickle of anything but tensors is refused, since loading it could run code.
    """
    if not file.exists():
        raise InputError(f"there is no weights file {file}; give one, a run folder, or hf:owner/name")
    if file.suffix in EXPORTED:
        raise InputError(f"{file} is an exported network, whose weights are not read here; give those it was made of")
    # The tensors and the header's text, from safetensors or else from a pickle.
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
    # The mean image is one of the tensors of our files.
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
    """The header of `file` from its JSON `text`.

    Raises `InputError` for a field of `FIELDS` of another kind, and for a plan that no detector or localizer can have.
    """
    what = f"{file}: its header {HEADER!r}"
    header = untrusted.decode(text, dict[str, Any], what, "write it anew, or leave it out", own=True)
    for name, (is_right, needed) in FIELDS.items():
        if name in header and not is_right(header[name]):
            shown = textwrap.shorten(json.dumps(header[name]), SHOWN)
            raise InputError(f"{file}: {name} of its header must be {needed}, not {shown}; mend the header")
    for name, plan in PLANS.items():
        if name in header:
            cascaded = name == "detector" and str(header.get("network")).startswith(CASCADE)
            _check_plan(header[name], CascadePlan if cascaded else plan, f"{file}, {name} of its header")
    return header


def _check_plan(value: Any, plan: type[DetectorPlan | LocalizerPlan], what: str) -> None:
    try:
        untrusted.convert(value, plan, what, "mend the header")
    except InputError as error:  # values out of range name no file
        raise InputError(str(error) if what in str(error) else f"{what}: {error}") from None
    except TypeError as error:  # types are not checked without `msgspec`, and the plan compares numbers
        raise InputError(f"{what}: {error}; mend the header") from None
