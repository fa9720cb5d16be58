"""What the JSON files beside weights say of them, in folders as the hub has them: of timm, torchvision, transformers.

timm writes config.json with `pretrained_cfg` (older versions at its top), transformers config.json with `id2label` and
preprocessor_config.json; the fields of torchvision's weights (`categories`, `crop_size`) are read in either.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from deepres.errors import InputError

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
FILES = (CONFIG, PREPROCESSOR)
SMALL = 32  # pixels a side of images that are not cropped
SHARE = 224 / 256  # of the shorter side that a crop is here
BILINEAR = ("bilinear", 2)  # 2: Pillow's number
# What a test would do otherwise than here, beside the crop's share and the interpolation.
OTHERS = ("test_input_size", "test_crop_pct", "resize_size", "model_args")

Channels = list[float]
Pixels = Annotated[int, msgspec.Meta(ge=1, le=2**14)]
Side = Pixels | list[Pixels] | dict[str, Pixels | None]
Positive = Annotated[float, msgspec.Meta(gt=0)]


class _Config(msgspec.Struct):
    """Of config.json, and of its `pretrained_cfg`, what is used here or changes what a network computes."""

    architecture: str | None = None
    architectures: list[str] | None = None
    mean: Channels | None = None
    std: Channels | None = None
    image_mean: Channels | None = None
    image_std: Channels | None = None
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
    crop_pct: Positive | None = None
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
            content = _read(file.parent / name)
            found |= content | content.get("pretrained_cfg", {})
            found |= {key: content[key] for key in ("label_names",) if key in content}  # which timm prefers, too
    if not found:
        return None
    where = file.parent / CONFIG
    try:
        said = msgspec.convert(found, _Config)
    except msgspec.ValidationError as error:
        raise InputError(f"{where}: {error}; mend it, or move it away") from None
    _refuse_others(said, where)
    header: dict[str, Any] = {}
    if "downsample_in_bottleneck" in found:
        header["stride_on"] = "1x1" if said.downsample_in_bottleneck else "3x3"
    mean, std = _normalisation(said, where)
    names = said.label_names or said.labels or said.categories or _by_number(said.id2label, where)
    crop = _side(said.input_size) or _side(said.crop_size) or _side(said.size)
    header |= {"std": std} if std else {}
    header |= {"classes": names} if names else {}
    header |= {"crop": crop} if crop and crop > SMALL else {}
    return Beside(mean, header, _unread(said, found))


def _read(file: Path) -> dict[str, Any]:
    try:
        content = msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
        return content | {"pretrained_cfg": msgspec.convert(content.get("pretrained_cfg") or {}, dict[str, Any])}
    except (msgspec.MsgspecError, RecursionError, OSError) as error:
        raise InputError(f"{file} cannot be read as a JSON object ({error}); mend it, or move it away") from None


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


def _normalisation(said: _Config, where: Path) -> tuple[list[float] | None, list[float] | None]:
    """Mean and std, a number a channel."""
    mean, std = said.mean or said.image_mean, said.std or said.image_std
    if not said.do_normalize:
        mean, std = [0.0] * len(mean or "rgb"), None
    if mean is not None and not all(map(math.isfinite, mean)):
        raise InputError(f"{where}: its mean must be finite numbers, not {mean}; mend it")
    if std is not None and not all(math.isfinite(value) and value > 1e-30 for value in std):
        raise InputError(f"{where}: its std must be numbers above 0, not {std}; mend it")
    return mean, std


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
    if resample is not None and resample not in BILINEAR:
        parts.append(f"interpolation {resample} (here bilinear)")
    return ", ".join(parts)
