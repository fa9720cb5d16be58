"""The JSON files that timm and transformers put beside weights: mean, std, classes and crop of a network.

timm writes config.json with its fields under `pretrained_cfg` (older versions: at the top). transformers writes
config.json with `id2label`, and preprocessor_config.json. The field names of torchvision's weights (`categories`,
`crop_size`) are read in all of these files.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from deepres.runtime import untrusted
from deepres.runtime.errors import InputError

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
FILES = (CONFIG, PREPROCESSOR)
MEND = "mend it, or move it away"
SHARE = 224 / 256  # our crop, as a share of the shorter side of the image
BILINEAR = ("bilinear", 2)  # 2 is Pillow's number of it
# Fields that would change a test, and that our tests do not follow.
OTHERS = ("test_input_size", "test_crop_pct", "resize_size", "model_args")

# The architectures of timm that our networks compute. Others may have the same tensors and compute something else, as
# resnetblur50 does.
OURS = re.compile(r"(tv_|gluon_|ssl_|swsl_)?(resnet|vgg)\d+(_bn|_v1b)?")
Pixels = Annotated[int, untrusted.Meta(ge=1, le=2**14)]
Side = Pixels | list[Pixels] | dict[str, Pixels | None]
Divisor = Annotated[float, untrusted.Meta(ge=1e-6, le=1e6)]


@dataclass(frozen=True)
class _Config:
    """The fields of the JSON files that are used here, or that change what a network computes."""

    architecture: str | None = None
    mean: list[float] | None = None
    std: list[Divisor] | None = None
    image_mean: list[float] | None = None
    image_std: list[Divisor] | None = None
    do_normalize: bool = True
    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    input_size: Side | None = None
    crop_size: Side | None = None
    size: Side | None = None
    label_names: list[str] | None = None
    labels: list[str] | None = None
    categories: list[str] | None = None
    id2label: dict[str, str] | None = None
    crop_pct: Divisor | None = None
    interpolation: str | None = None
    resample: int | str | None = None
    global_pool: str | None = None
    hidden_act: str | None = None
    downsample_in_first_stage: bool = False
    downsample_in_bottleneck: bool = False


@dataclass(frozen=True)
class Beside:
    """The mean color of the training images, a number a channel in 0..1, and the header fields that the files give.

    The header may have `std`, `classes`, `crop` and `stride_on`. `unread` lists the fields that our tests do
    not follow.
    """

    mean: list[float] | None
    header: dict[str, Any]
    unread: str


def read_beside(file: Path) -> Beside | None:
    """Read the JSON files beside the weights `file`; None where there are none.

    Raises `InputError` for JSON of another shape, and for a network that our networks do not compute.
    """
    # All fields in one dictionary: those of `pretrained_cfg` replace those at the top, except `label_names`, which timm
    # itself reads at the top first.
    found: dict[str, Any] = {}
    for name in FILES:
        if (file.parent / name).is_file():
            content = untrusted.read(file.parent / name, dict[str, Any], MEND)
            place = f"{file.parent / name}, at pretrained_cfg"
            found |= content | untrusted.convert(content.get("pretrained_cfg") or {}, dict[str, Any], place, MEND)
            found |= {key: content[key] for key in ("label_names",) if key in content}
    if not found:
        return None
    where = file.parent / CONFIG
    said = untrusted.convert(found, _Config, f"{where} or {PREPROCESSOR}", MEND)
    _refuse_others(said, where)
    # The header has the fields that the files give: each library has its own names for them.
    mean, std = _normalisation(said)
    header: dict[str, Any] = {
        "stride_on": ("1x1" if said.downsample_in_bottleneck else "3x3") if "downsample_in_bottleneck" in found else "",
        "std": std,
        "classes": said.label_names or said.labels or said.categories or _by_number(said.id2label, where),
        "crop": _side(said.input_size) or _side(said.crop_size) or _side(said.size),
    }
    return Beside(mean, {name: value for name, value in header.items() if value}, _unread(said, found))


def _refuse_others(said: _Config, where: Path) -> None:
    """Raise `InputError` for a network that has the tensors of one of ours and computes something else."""
    others = {
        "its activation is not ReLU": said.hidden_act not in (None, "relu"),
        "it halves the map in its first stage": said.downsample_in_first_stage,
        "it does not pool by the average": said.global_pool not in (None, "", "avg"),
        "it does not scale pixels to 0..1": not said.do_rescale or not math.isclose(said.rescale_factor, 1 / 255),
    }
    for what in (what for what, is_so in others.items() if is_so):
        raise InputError(f"{where} is of a network that is none of ours: {what}; give weights of another")


def _normalisation(said: _Config) -> tuple[list[float] | None, list[float] | None]:
    """Mean and std, a number a channel: both, or None for both."""
    mean, std = said.mean or said.image_mean, said.std or said.image_std
    if not said.do_normalize:
        mean, std = [0.0] * len(mean or "rgb"), None
    return mean, None if mean is None else std or [1.0] * len(mean)


def _by_number(names: Mapping[str, str] | None, where: Path) -> list[str] | None:
    """The names of `id2label` in the order of their numbers. Raises `InputError` for missing numbers."""
    if names is None:
        return None
    if set(names) != {str(number) for number in range(len(names))}:
        raise InputError(f'{where}: id2label must have a name for each of "0", "1", ... in turn; mend it')
    return [names[str(number)] for number in range(len(names))]


def _side(size: Side | None) -> int | None:
    """Pixels a side, from (C, H, W), one number, or a dictionary of transformers."""
    if isinstance(size, list):
        return size[-1] if size else None
    if isinstance(size, dict):
        return size.get("height") or size.get("shortest_edge")
    return size


def _unread(said: _Config, found: Mapping[str, Any]) -> str:
    """The fields by which the makers of the network test it, and our tests do not; "" where there are none."""
    resample = said.interpolation if said.interpolation is not None else said.resample
    parts = [f"{name} {found[name]}" for name in OTHERS if found.get(name)]
    if said.crop_pct is not None and not math.isclose(said.crop_pct, SHARE, abs_tol=0.002):
        parts.append(f"crop_pct {said.crop_pct:g} (here {SHARE:g})")
    if said.architecture is not None and not OURS.fullmatch(said.architecture):
        parts.append(f"architecture {said.architecture} (here by the tensors)")
    if resample is not None and resample not in BILINEAR:
        parts.append(f"interpolation {resample} (here bilinear)")
    return ", ".join(parts)
