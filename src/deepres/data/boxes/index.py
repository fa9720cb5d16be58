"""The index of a data set with boxes: where its pictures are stored, and the objects in them. Made once, then kept."""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypedDict

import torch
from filelock import FileLock
from safetensors import SafetensorError
from torch import Tensor

from deepres.data.boxes.annotations import HARMLESS, AnnotatedPicture, Fault, Source, told
from deepres.data.boxes.cleaning import Look, cleaned, look
from deepres.data.boxes.layouts import find_source
from deepres.data.boxes.parts import Divided, divide
from deepres.data.boxes.truth import Truth
from deepres.data.division import Division
from deepres.data.listing import PARTS, Picture, Span, digest_of, each
from deepres.data.manifest import Manifest, Strings
from deepres.data.resident import tell_lacking
from deepres.data.resident_cache import cache_file, write_kept
from deepres.data.rgb import fault, max_pixels, open_picture
from deepres.data.sources import find_folder, unreadable
from deepres.data.stream.index import Builder, Index, restored, stored
from deepres.runtime import archive, untrusted
from deepres.runtime.cache_folder import REMEDY
from deepres.runtime.errors import InputError, Say
from deepres.runtime.masks import Masks

FORMAT = 1  # of the kept files; raise it when the same annotations give other boxes
MOST_FACTS = 2**26  # bytes of the class names and notes
FIELDS = ("boxes", "labels", "difficult", "crowd", "areas")
MASKS = ("text", "ends", "sizes")


@dataclass(frozen=True, eq=False)
class BoxIndex:
    """One part of a data set of N pictures with boxes, none of the pictures in memory.

    `pictures` says where they are stored; its labels are all 0, and its fingerprint is over class names, boxes and
    encoded bytes. `sizes` int64 (N, 2) are width and height of each picture upright. `objects` are those of all
    pictures, one after another, those of picture i up to `ends[i]`, int64 (N,); they have masks where these were asked
    for and the data have some. `image_ids` int64 (N,) and
    `category_ids`, one for each class, are COCO's; other layouts have 1, 2, 3, ...
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


def open_boxes(
    data: str,
    say: Say,
    train_set: str | None = None,
    test_set: str | None = None,
    division: Division = "hash",
    masks: bool = False,
) -> BoxParts:
    """The training part and the test part of `data`, a folder in one of the layouts of `boxes.layouts`.

    `train_set` and `test_set` name image sets, as `boxes.parts.divide` has them. One part may be empty. The first time,
    all annotations and pictures are read; later, only names, sizes and modification times of the files are. `say` is
    told what is left out, every time. With `masks`, the objects have the masks that the data have, which takes longer.
    Raises `InputError` for data that cannot be found or read, without any picture with boxes, and for a set that is not
    there.
    """
    return opened(data, say, train_set, test_set, division, masks).parts


def opened(
    data: str,
    say: Say,
    train_set: str | None = None,
    test_set: str | None = None,
    division: Division = "hash",
    masks: bool = False,
) -> Opened:
    """As `open_boxes`, together with what is wrong with the files."""
    max_pixels()  # raises for a wrong DEEPRES_MAX_PIXELS before any picture is read
    try:
        source = find_source(find_folder(data, say), masks)
        more = {"masks": True} if source.masks else {}
        file = cache_file(source, "boxes", format=FORMAT, sets=(train_set, test_set), rule=division, **more)
    except OSError as error:
        raise unreadable(data, error) from None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            found = _read(file, source.layout, source.root)
            if found is None:
                say(f"{data}: reading all pictures and their boxes once")
                found = _make(data, source, divide(source, train_set, test_set, division), say)
                _write(file, found)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{data} cannot be indexed ({error}); check permissions and free space, or {REMEDY}") from None
    # Tell what was found, also when it was kept.
    for note in (*source.notes, *found.notes, *told(found.faults)):
        say(f"{data}: {note}")
    for part, kind in zip(found.parts, ("training", "test"), strict=True):
        tell_lacking(data, kind, part.classes, part.objects.labels, say)
    return found


def _make(data: str, source: Source, divided: Divided, say: Say) -> Opened:
    """Read the pictures of both parts, and bring their boxes to them. Raises `InputError` where there are no boxes."""
    categories = _categories(source, divided)
    faults = [*source.faults, *(fault for content in divided.read for fault in content.faults)]
    annotated = divided.train, divided.test
    if not any(picture.objects for own in annotated for picture in own):
        first = f" ({faults[0].name}: {faults[0].reason})" if faults else ""
        raise InputError(f"{source.root} has no picture with boxes that can be read{first}; mend the annotations")
    parts = list[BoxIndex]()
    for own in annotated:
        part, wrong = _part(data, source, own, categories, say)
        parts.append(part)
        faults += wrong
    used = len({picture.file for own in annotated for picture in own})
    counts = [f"{used:,} of the {source.pictures:,} pictures in the folder are used"] * (used < source.pictures)
    notes = [*divided.notes, *counts, *(note for content in divided.read for note in content.notes)]
    if lacking := sum(int((~part.objects.masks.known).sum()) for part in parts if part.objects.masks is not None):
        notes.append(f"objects without a mask: {lacking:,} of {sum(len(part.objects) for part in parts):,}")
    return Opened(source.layout, BoxParts(*parts), sorted(set(faults)), notes)


def _part(
    data: str, source: Source, annotated: list[AnnotatedPicture], categories: dict[int, str], say: Say
) -> tuple[BoxIndex, list[Fault]]:
    """The index of one part, and what is wrong in it. Pictures that do not open are left out."""

    def seen(picture: Picture) -> tuple[Look | str, bytes]:
        try:
            with open_picture(picture.content) as image:
                return look(image), digest_of(picture)
        except Exception as error:  # Pillow raises almost any exception for a damaged file
            return fault(error), b""

    # Look at each picture, and read it for its digest.
    builder, faults, kept, looks = Builder(), list[Fault](), list[AnnotatedPicture](), list[Look]()
    listed = [Picture(picture.name, 0, "train", picture.file) for picture in annotated]
    for picture, (own, (found, digest)) in zip(annotated, each(listed, seen, say, data, "read"), strict=True):
        if isinstance(found, str):
            faults.append(Fault(picture.name, "picture", found))
            continue
        builder.add(own, Span(picture.file), source.root, digest)
        kept.append(picture)
        looks.append(found)
    # Bring the boxes to the pictures.
    labels = {name: label for label, name in enumerate(categories.values())}
    (objects, ends), wrong = cleaned(kept, looks, labels, source.masks)
    sizes = torch.tensor([head.upright for head in looks], dtype=torch.int64).view(-1, 2)
    ids = [picture.image_id for picture in kept if picture.image_id is not None]
    if len(set(ids)) < len(kept):  # two files of COCO may have the same, and other layouts have none
        ids = list(range(1, len(kept) + 1))
    index = builder.index(source.root, tuple(categories.values()))
    index = replace(index, fingerprint=_fingerprint(index, objects, ends))
    return BoxIndex(
        index, sizes, objects, ends, torch.tensor(ids, dtype=torch.int64), tuple(categories)
    ), faults + wrong


def _fingerprint(pictures: Index, objects: Truth, ends: Tensor) -> str:
    digest = hashlib.sha256(pictures.fingerprint.encode())
    for values in (*(getattr(objects, name) for name in FIELDS), ends, *_packed_masks(objects.masks).values()):
        digest.update(values.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _packed_masks(masks: Masks | None) -> dict[str, Tensor]:
    return {} if masks is None else {name: getattr(masks, name) for name in MASKS}


def _categories(source: Source, divided: Divided) -> dict[int, str]:
    """The names of the classes by id, in order of id: as the annotations list them, else those of the objects.

    Raises `InputError` where two lists contradict each other, or one has two classes of the same name.
    """
    listed: dict[int, str] = {}
    for own in divided.read:
        for number, name in own.categories.items():
            if listed.setdefault(number, name) != name:
                raise InputError(
                    f"{source.root} calls class {number} {listed[number]!r} in one set and {name!r} in another; make "
                    "them agree, or give one set alone"
                )
    if len(set(listed.values())) < len(listed):
        raise InputError(f"{source.root} has two classes of the same name; rename one")
    if not listed:
        names = {own.name for part in (divided.train, divided.test) for picture in part for own in picture.objects}
        listed = dict(enumerate(sorted(names), start=1))
    return dict(sorted(listed.items()))


def _write(file: Path, found: Opened) -> None:
    tensors: dict[str, Tensor] = {}
    for part, own in zip(PARTS, found.parts, strict=True):
        tensors |= stored(own.pictures, part)
        tensors |= {f"{part}.objects.{name}": getattr(own.objects, name) for name in FIELDS}
        tensors |= {f"{part}.{name}": getattr(own, name) for name in ("sizes", "image_ids")}
        tensors[f"{part}.objects.ends"] = own.ends
        tensors |= {f"{part}.masks.{name}": values for name, values in _packed_masks(own.objects.masks).items()}
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


def _read(file: Path, layout: str, root: Path) -> Opened | None:
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
