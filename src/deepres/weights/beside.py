"""What the JSON files beside weights say of them, in folders as the hub has them: of timm, torchvision, transformers.

timm writes config.json with `pretrained_cfg` (older versions at its top), transformers config.json with `id2label` and
preprocessor_config.json; the fields of torchvision's weights (`categories`, `crop_size`) are read in either.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from deepres.runtime import untrusted
from deepres.runtime.errors import InputError

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
FILES = (CONFIG, PREPROCESSOR)
MEND = "mend it, or move it away"
SHARE = 224 / 256  # of the shorter side that a crop is here
BILINEAR = ("bilinear", 2)  # 2: Pillow's number
# What a test would do otherwise than here, beside the crop's share and the interpolation.
OTHERS = ("test_input_size", "test_crop_pct", "resize_size", "model_args")

# Those of timm that are ours; others may have the same tensors and compute something else, as resnetblur50 does.
OURS = re.compile(r"(tv_|gluon_|ssl_|swsl_)?(resnet|vgg)\d+(_bn|_v1b)?")
Pixels = Annotated[int, msgspec.Meta(ge=1, le=2**14)]
Side = Pixels | list[Pixels] | dict[str, Pixels | None]
Divisor = Annotated[float, msgspec.Meta(ge=1e-6, le=1e6)]


class _Config(msgspec.Struct):
    """Of config.json, and of its `pretrained_cfg`, what is used here or changes what a network computes."""

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
    test_input_size: Any = None
    test_crop_pct: Any = None
    resize_size: Any = None
    model_args: Any = None


@dataclass(frozen=True)
class Beside:
    """The mean of the images by channel, what the header is to say (`std`, `classes`, `crop`, `stride_on`), and a word
    on what is not read."""

    mean: list[float] | None
    header: dict[str, Any]
    unread: str


def read_beside(file: Path) -> Beside | None:
    """What is said of the weights in `file`; None where nothing is.

    Raises `InputError` for JSON of another shape, and for networks that are none of ours.
    """
    found: dict[str, Any] = {}
    for name in FILES:
        if (file.parent / name).is_file():
            content = untrusted.read(file.parent / name, dict[str, Any], MEND)
            place = f"{file.parent / name}, at pretrained_cfg"
            found |= content | untrusted.convert(content.get("pretrained_cfg") or {}, dict[str, Any], place, MEND)
            found |= {key: content[key] for key in ("label_names",) if key in content}  # which timm prefers, too
    if not found:
        return None
    where = file.parent / CONFIG
    said = untrusted.convert(found, _Config, f"{where} or {PREPROCESSOR}", MEND)
    _refuse_others(said, where)
    header: dict[str, Any] = {}
    if "downsample_in_bottleneck" in found:
        header["stride_on"] = "1x1" if said.downsample_in_bottleneck else "3x3"
    mean, std = _normalisation(said)
    names = said.label_names or said.labels or said.categories or _by_number(said.id2label, where)
    crop = _side(said.input_size) or _side(said.crop_size) or _side(said.size)
    header |= {"std": std} if std else {}
    header |= {"classes": names} if names else {}
    header |= {"crop": crop} if crop else {}
    return Beside(mean, header, _unread(said, found))


def _refuse_others(said: _Config, where: Path) -> None:
    """Networks that have the tensors of ours and compute something else."""
    others = {
        "its activation is not ReLU": said.hidden_act not in (None, "relu"),
        "it halves the map in its first stage": said.downsample_in_first_stage,
        "it does not pool by the average": said.global_pool not in (None, "", "avg"),
        "it does not scale pixels to 0..1": not said.do_rescale or not math.isclose(said.rescale_factor, 1 / 255),
    }
    for what in (what for what, is_so in others.items() if is_so):
        raise InputError(f"{where} is of a network that is none of ours: {what}; give weights of another")


def _normalisation(said: _Config) -> tuple[list[float] | None, list[float] | None]:
    """Mean and std, a number a channel; both or none."""
    mean, std = said.mean or said.image_mean, said.std or said.image_std
    if not said.do_normalize:
        mean, std = [0.0] * len(mean or "rgb"), None
    return mean, None if mean is None else std or [1.0] * len(mean)


def _by_number(names: Mapping[str, str] | None, where: Path) -> list[str] | None:
    if names is None:
        return None
    if set(names) != {str(number) for number in range(len(names))}:
        raise InputError(f'{where}: id2label must have a name for each of "0", "1", ... in turn; mend it')
    return [names[str(number)] for number in range(len(names))]


def _side(size: Side | None) -> int | None:
    """Pixels a side, of (C, H, W), of one number, or of a dictionary of transformers."""
    if isinstance(size, list):
        return size[-1] if size else None
    if isinstance(size, dict):
        return size.get("height") or size.get("shortest_edge")
    return size


def _unread(said: _Config, found: Mapping[str, Any]) -> str:
    """What a test of the network's makers does otherwise."""
    resample = said.interpolation if said.interpolation is not None else said.resample
    parts = [f"{name} {found[name]}" for name in OTHERS if found.get(name)]
    if said.crop_pct is not None and not math.isclose(said.crop_pct, SHARE, abs_tol=0.002):
        parts.append(f"crop_pct {said.crop_pct:g} (here {SHARE:g})")
    if said.architecture is not None and not OURS.fullmatch(said.architecture):
        parts.append(f"architecture {said.architecture} (here by the tensors)")
    if resample is not None and resample not in BILINEAR:
        parts.append(f"interpolation {resample} (here bilinear)")
    return ", ".join(parts)
