"""What detectors found in test pictures, with the truth, in a file: shown later without networks or data."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch
from safetensors import SafetensorError
from safetensors.torch import save as to_bytes
from torch import Tensor

from deepres.data.boxes.truth import Truth
from deepres.detection.mean_ap.masked import masks_of
from deepres.detection.mean_ap.recall import ProposalRecall
from deepres.models.detection.outputs import Detections
from deepres.records import Json
from deepres.runtime import archive, untrusted
from deepres.runtime.errors import InputError
from deepres.runtime.files import replacing
from deepres.runtime.masks import Masks, checked

HEADER = "deepres.detections"
MOST_BYTES = 2**28  # of the names and facts
TRUTH = {"boxes": 2, "labels": 1, "difficult": 1, "crowd": 1, "areas": 1}  # dimensions of the tensors
MASKS = ("text", "ends", "sizes")
FOUND = {"boxes": 2, "scores": 1, "labels": 1}


class _Header(TypedDict):
    data: str
    names: list[str]
    classes: list[str]
    recalls: list[dict[str, Any]]
    facts: Json


@dataclass(frozen=True, eq=False)
class DetectionTable:
    """Truth and detections of N test pictures of the data set `data`, by name.

    Labels are places in `classes`. `recalls` are those of the proposals, and `facts` tell what was tested, and how.
    """

    data: str
    names: tuple[str, ...]
    classes: tuple[str, ...]
    truths: tuple[Truth, ...]
    found: tuple[Detections, ...]
    recalls: tuple[ProposalRecall, ...]
    facts: Json


def write_detections(file: Path, table: DetectionTable) -> None:
    """Write a table to a safetensors file, atomically; names and facts are JSON in its metadata. Raises `OSError`."""
    tensors = _packed("truth", table.truths, TRUTH) | _packed("found", table.found, FOUND)
    tensors |= _packed_masks("truth", table.truths) | _packed_masks("found", table.found)
    header: _Header = {
        "data": table.data,
        "names": list(table.names),
        "classes": list(table.classes),
        "recalls": [asdict(own) for own in table.recalls],
        "facts": table.facts,
    }
    content = to_bytes(tensors, {HEADER: json.dumps(header)})
    with replacing(file) as partial:
        partial.write_bytes(content)


def read_detections(file: Path) -> DetectionTable:
    """The table of a file that `write_detections` wrote. Raises `InputError` for one that is damaged."""
    mend = "delete it, and run deepres eval again"
    try:
        with archive.opened(file) as stream:
            text = (stream.metadata() or {})[HEADER]
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 (not a mapping)
        header = untrusted.decode(text, _Header, f"{HEADER} of {file}", mend, own=True, most=MOST_BYTES)
        count, classes = len(header["names"]), tuple(header["classes"])
        every = _unpacked("truth", tensors, TRUTH, count, len(classes))
        truths = [Truth(*parts, masks=masks) for parts, masks in every]
        every = _unpacked("found", tensors, FOUND, count, len(classes))
        found = [Detections(*parts, masks=masks) for parts, masks in every]
        recalls = tuple(ProposalRecall(**own) for own in header["recalls"])
        names = tuple(header["names"])
        return DetectionTable(header["data"], names, classes, tuple(truths), tuple(found), recalls, header["facts"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"the detections {file} are damaged ({error}); {mend}") from None


def _packed(name: str, each: Sequence[Truth | Detections], fields: dict[str, int]) -> dict[str, Tensor]:
    """The tensors of all pictures, one behind the other, and where those of each picture end."""
    joined = {f"{name}.{field}": torch.cat([getattr(one, field) for one in each]) for field in fields} if each else {}
    return joined | {f"{name}.ends": torch.tensor([len(one) for one in each], dtype=torch.int64).cumsum(0)}


def _packed_masks(name: str, each: Sequence[Truth | Detections]) -> dict[str, Tensor]:
    """The masks of all pictures, one behind the other; nothing where there are none."""
    if all(one.masks is None for one in each):
        return {}
    joined = Masks.joined([masks_of(one) for one in each])
    return {f"{name}.masks.{field}": getattr(joined, field) for field in MASKS}


def _unpacked(
    name: str, tensors: dict[str, Tensor], fields: dict[str, int], count: int, classes: int
) -> list[tuple[list[Tensor], Masks | None]]:
    """The tensors of each picture, and its masks.

    Raises `ValueError` where they do not fit, `KeyError` where one is missing.
    """
    ends = tensors[f"{name}.ends"].tolist()
    if len(ends) != count or sorted(ends) != ends:
        raise ValueError(f"{count} pictures have {name} of {len(ends)}")
    if not count:
        return []
    own_tensors = [tensors[f"{name}.{field}"] for field in fields]
    if any(len(one) != ends[-1] or one.dim() != dims for one, dims in zip(own_tensors, fields.values(), strict=True)):
        raise ValueError(f"the {name} of {count} pictures have other lengths")
    labels = tensors[f"{name}.labels"]
    if tensors[f"{name}.boxes"].shape[1] != 4 or (len(labels) and not 0 <= int(labels.min()) <= labels.max() < classes):
        raise ValueError(f"a label is none of {classes} classes, or boxes have other than 4 numbers")
    masks = None
    if f"{name}.masks.ends" in tensors:
        masks = checked(Masks(*(tensors[f"{name}.masks.{field}"] for field in MASKS)), ends[-1])
    each = [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    return [([one[own] for one in own_tensors], None if masks is None else masks[own]) for own in each]
