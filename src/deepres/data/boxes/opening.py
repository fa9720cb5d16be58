"""Opens a data set with boxes: its index is made once, then kept."""

import hashlib
from dataclasses import replace

import torch
from filelock import FileLock
from safetensors import SafetensorError
from torch import Tensor

from deepres.data.boxes.annotations import AnnotatedPicture, Fault, Source, told
from deepres.data.boxes.cleaning import Look, cleaned, look
from deepres.data.boxes.index import FIELDS, BoxIndex, BoxParts, Opened, packed_masks, read_index, write_index
from deepres.data.boxes.layouts import find_source
from deepres.data.boxes.parts import Divided, divide
from deepres.data.boxes.truth import Truth
from deepres.data.division import Division
from deepres.data.listing import Picture, Span, digest_of, each
from deepres.data.resident import tell_lacking
from deepres.data.resident_cache import cache_file
from deepres.data.rgb import fault, max_pixels, open_picture
from deepres.data.sources import find_folder, unreadable
from deepres.data.stream.index import Builder, Index
from deepres.runtime.cache_folder import REMEDY
from deepres.runtime.errors import InputError, Say

FORMAT = 1  # of the kept files; raise it when the same annotations give other boxes


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
        sets = train_set, test_set
        file = cache_file(source, "boxes", format=FORMAT, layout=source.layout, sets=sets, rule=division, **more)
    except OSError as error:
        raise unreadable(data, error) from None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            found = read_index(file, source.layout, source.root)
            if found is None:
                say(f"{data}: reading all pictures and their boxes once")
                found = _make(data, source, divide(source, train_set, test_set, division), say)
                write_index(file, found)
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
    return Opened(source.layout, BoxParts(*parts), sorted(set(faults)), list(dict.fromkeys(notes)))


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
    for values in (*(getattr(objects, name) for name in FIELDS), ends, *packed_masks(objects.masks).values()):
        digest.update(values.contiguous().numpy().tobytes())
    return digest.hexdigest()


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
