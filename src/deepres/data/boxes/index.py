"""The index of a data set with boxes: where its pictures are stored, and the objects in them; and the file of one."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypedDict

from safetensors import SafetensorError
from torch import Tensor

from deepres.data.boxes.annotations import HARMLESS, Fault
from deepres.data.boxes.truth import Truth
from deepres.data.listing import PARTS
from deepres.data.manifest import Manifest, Strings
from deepres.data.resident_cache import write_kept
from deepres.data.stream.index import Index, restored, stored
from deepres.runtime import archive, untrusted
from deepres.runtime.errors import InputError
from deepres.runtime.masks import Masks

MOST_FACTS = 2**26  # bytes of the class names and notes
FIELDS = ("boxes", "labels", "difficult", "crowd", "areas")
MASKS = ("text", "ends", "sizes")


@dataclass(frozen=True, eq=False)
class BoxIndex:
    """One part of a data set of N pictures with boxes, none of the pictures in memory.

    `pictures` says where they are stored; its labels are all 0, and its fingerprint is over class names, boxes and
    encoded bytes. `sizes` int64 (N, 2) are width and height of each picture upright. `objects` are those of all
    pictures, one after another, those of picture i up to `ends[i]`, int64 (N,); they have masks where these were asked
    for and the data have some. `image_ids` int64 (N,) and `category_ids`, one for each class, are COCO's; other layouts
    have 1, 2, 3, ...
    """

    pictures: Index
    sizes: Tensor
    objects: Truth
    ends: Tensor
    image_ids: Tensor
    category_ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes; the background is none of them."""
        return self.pictures.classes

    @property
    def names(self) -> Strings:
        """The names of the pictures: their paths within the data set."""
        return self.pictures.names

    @property
    def fingerprint(self) -> str:
        """A SHA-256 over class names, boxes and encoded bytes."""
        return self.pictures.fingerprint

    @property
    def manifest(self) -> Manifest:
        """Names and digests of the pictures."""
        return self.pictures.manifest

    def truth(self, place: int) -> Truth:
        """The objects of one picture."""
        own = slice(int(self.ends[place - 1]) if place else 0, int(self.ends[place]))
        masks = self.objects.masks
        fields = (getattr(self.objects, name)[own] for name in FIELDS)
        return Truth(*fields, masks=None if masks is None else masks[own])


class BoxParts(NamedTuple):
    """The two parts of a data set with boxes."""

    train: BoxIndex
    test: BoxIndex


class Opened(NamedTuple):
    """A data set with boxes: its layout, both parts, what is wrong with its files, and what is said of it."""

    layout: str
    parts: BoxParts
    faults: list[Fault]
    notes: list[str]

    @property
    def wrong(self) -> list[Fault]:
        """The faults that should be mended."""
        return [own for own in self.faults if own.kind not in HARMLESS]


class _Facts(TypedDict):
    classes: list[str]
    category_ids: list[int]
    fingerprints: list[str]
    notes: list[str]


def packed_masks(masks: Masks | None) -> dict[str, Tensor]:
    """The tensors of masks by name; none of objects that were read without masks."""
    return {} if masks is None else {name: getattr(masks, name) for name in MASKS}


def write_index(file: Path, found: Opened) -> None:
    """Keep what was found in a file of the cache. Raises `OSError`."""
    tensors: dict[str, Tensor] = {}
    for part, own in zip(PARTS, found.parts, strict=True):
        tensors |= stored(own.pictures, part)
        tensors |= {f"{part}.objects.{name}": getattr(own.objects, name) for name in FIELDS}
        tensors |= {f"{part}.{name}": getattr(own, name) for name in ("sizes", "image_ids")}
        tensors[f"{part}.objects.ends"] = own.ends
        tensors |= {f"{part}.masks.{name}": values for name, values in packed_masks(own.objects.masks).items()}
    faults = Strings.of(map(json.dumps, found.faults))
    tensors |= {"faults.text": faults.text, "faults.ends": faults.ends}
    train, test = found.parts
    facts: _Facts = {
        "classes": list(train.classes),
        "category_ids": list(train.category_ids),
        "fingerprints": [train.fingerprint, test.fingerprint],
        "notes": found.notes,
    }
    write_kept(file, tensors, facts)


def read_index(file: Path, layout: str, root: Path) -> Opened | None:
    """What was kept; None where there is nothing, or where it is damaged."""
    if not file.exists():
        return None
    try:
        with archive.opened(file) as kept:
            facts = untrusted.decode(kept.metadata()["facts"], _Facts, str(file), own=True, most=MOST_FACTS)

            def part(name: str, fingerprint: str) -> BoxIndex:
                pictures = restored(kept.get_tensor, name, root, facts["classes"], fingerprint)
                objects = Truth(*(kept.get_tensor(f"{name}.objects.{field}") for field in FIELDS))
                if f"{name}.masks.ends" in kept.keys():  # noqa: SIM118 (not a mapping)
                    masks = Masks(*(kept.get_tensor(f"{name}.masks.{field}") for field in MASKS))
                    objects = replace(objects, masks=masks)
                own = (kept.get_tensor(f"{name}.{field}") for field in ("sizes", "objects.ends", "image_ids"))
                sizes, ends, image_ids = own
                return BoxIndex(pictures, sizes, objects, ends, image_ids, tuple(facts["category_ids"]))

            parts = BoxParts(*map(part, PARTS, facts["fingerprints"]))
            faults = [Fault(*json.loads(own)) for own in Strings(*map(kept.get_tensor, ("faults.text", "faults.ends")))]
            return Opened(layout, parts, faults, facts["notes"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError, InputError):
        return None
