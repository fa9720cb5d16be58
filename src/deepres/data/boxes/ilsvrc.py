"""ImageNet detection (ILSVRC DET): the XML of PASCAL VOC, with synsets for classes and a folder for each part."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from xml.etree.ElementTree import Element

from deepres.data.boxes.annotations import AnnotatedPicture, Content, Fault, Object, Source
from deepres.data.boxes.halves import Halves, counted, halves
from deepres.data.boxes.tree import Tree, by_last, lines_in
from deepres.data.boxes.voc import Reader, read_object
from deepres.data.part_names import part_name
from deepres.data.walk import class_name, composed
from deepres.runtime.errors import InputError

LAYOUT = "ILSVRC DET"
TASK = "DET"  # the folder of the task in Annotations/, Data/ and ImageSets/, from 2015 on
ARCHIVE = re.compile(r"ILSVRC\d{4}_DET_(?:bbox_)?(train|val|test)(?:_extra\d+)?(?:_bbox)?")  # 2013 and 2014
LIST = re.compile(r"(?:.*/)?(?:ImageSets/DET|det_lists)/([^/]+)\.txt")
OF_A_CLASS = re.compile(r"train_(?:pos_|neg_|part_)?\d+")  # lists of each class's positive and negative pictures
CLASSES = re.compile(r"(?:.*/)?map_det\.txt")
CLASS = re.compile(r"(n\d{8})\s+(\d{1,9})\s+(\S.*)")
DOUBTFUL = re.compile(r"(?:.*/)?ILSVRC\d{4}_det_validation_blacklist\.txt")
PAIR = re.compile(r"(\d{1,9})\s+(n\d{8})")
LISTED = re.compile(r"(\S.*?)(?:\s+(-?\d{1,9}))?")  # a picture and its number, or whether it has the class of the list
PARTS = ("train", "val", "test")
HALVES = ("val1", "val2")
USUAL = ("train,val1", "val2")  # trained and tested on in Table 12


def is_detection(name: str) -> bool:
    """Whether an annotation, a path within the data set, is one of ImageNet detection."""
    return _key_of(name).startswith(tuple(f"{part}/" for part in PARTS))


def ilsvrc_source(tree: Tree) -> Source:
    """The data of ImageNet detection, as ILSVRC 2015 and later lay them out, or the archives of 2013 and 2014.

    The sets are train, val and test: their lists, or else all pictures in their folders; pictures of the training set
    that have no annotation are negative examples, and are not used. val1 and val2, and other lists in `ImageSets/DET`,
    count where they are named; without lists of their own, val1 and val2 are the halves of val (`boxes.halves`). Where
    no set is named, train and val1 are trained on and val2 is tested on, as in Table 12. Classes have the names of the
    devkit's `map_det.txt`, in its order; without it, they are synsets. Raises `OSError`, and `InputError` for a list
    that cannot be read.
    """
    data = _Detection(replace(tree, key=_key_of))
    sets = data.sets()
    task = [name for name in tree.names if _key_of(name) or data.is_list(name)]
    notes = [*tree.notes, *["class names are synsets: there is no map_det.txt"] * (not data.synsets)]
    if len(task) < len(tree.names):
        notes.append("files of other tasks are not read")
    files = tuple(tree.root / name for name in task)
    return Source(
        LAYOUT,
        tree.root,
        files,
        data.tree.count,
        sets,
        notes=tuple(notes),
        shared=True,
        faults=tuple(data.reader.faults),
        apart=frozenset(sets) - {*PARTS},
        usual=USUAL if sets.keys() >= {"train", *HALVES} else None,
    )


class _Detection:
    """Reads the sets of ImageNet detection."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.synsets = _synsets(tree)
        names = {synset: name for synset, (_, name) in self.synsets.items()}
        self.reader = Reader(tree, partial(_object, names))
        self.lists = {found[1]: name for name in tree.names if (found := LIST.fullmatch(name))}
        self.by_name = by_last(dict.fromkeys([*self.reader.annotations, *tree.pictures]))

    def is_list(self, name: str) -> bool:
        """Whether a file says something of the sets or the classes."""
        return any(form.fullmatch(name) for form in (LIST, CLASSES, DOUBTFUL))

    def sets(self) -> dict[str, Callable[[], Content]]:
        """How each set is read."""
        found: dict[str, Callable[[], Content]] = {}
        for part in PARTS:
            within = [key for key in {**self.tree.pictures, **self.reader.annotations} if key.startswith(f"{part}/")]
            if within:
                found[part] = partial(self._read, part, sorted(within))
        for name, file in self.lists.items():
            if not OF_A_CLASS.fullmatch(name):
                found[name] = partial(self._listed, name, file)
        if "val" in found and not found.keys() & {*HALVES}:
            found |= {name: partial(self._half, name) for name in HALVES}
        return found

    def _listed(self, name: str, file: str) -> Content:
        """The pictures of a list."""
        part = part_name(name)
        folder = part.split if part is not None else ""
        return self._read(name, [key for _, key in self._lines(file, folder)])

    def _lines(self, file: str, folder: str) -> Iterable[tuple[int, str]]:
        """The number and the key of each picture of a list."""
        for place, line in enumerate(lines_in(self.tree.root / file), start=1):
            if found := LISTED.fullmatch(line.strip()):
                name, number = composed(found[1]), int(found[2] or place)
                known = (key for key in (f"{folder}/{name}", name) if key in self.tree.pictures)
                yield number, next(known, None) or self.by_name.get(name, f"{folder}/{name}".lstrip("/"))

    def _read(self, name: str, keys: list[str]) -> Content:
        """The pictures with these keys, but for those without annotation."""
        annotations, pictures = self.reader.annotations, self.tree.pictures
        annotated = [key for key in dict.fromkeys(keys) if key in annotations or key not in pictures]
        found = self.reader.read(annotated)
        found.annotated = [self._settled(picture) for picture in found.annotated]
        found.categories = dict(self.synsets.values())
        if bare := len(set(keys)) - len(annotated):
            found.notes.append(f"pictures of {name} without annotation, which are not used: {bare:,}")
        return found

    def _settled(self, picture: AnnotatedPicture) -> AnnotatedPicture:
        """A picture whose boxes end at its border, and whose doubtful classes do not count.

        The devkit leaves a doubtful class of a picture out of the test: its objects are difficult ones here, and the
        whole picture is a crowd region of it.
        """
        doubtful = self._doubtful.get(picture.key, ())
        objects = [own._replace(difficult=own.difficult or own.name in doubtful) for own in picture.objects]
        if picture.size is not None:
            width, height = picture.size
            objects = [own._replace(box=_within(own, width, height)) for own in objects]
            objects += [Object(name, (0, 0, width, height), crowd=True) for name in doubtful]
        return picture._replace(objects=objects)

    @cached_property
    def _doubtful(self) -> Mapping[str, list[str]]:
        """The classes of pictures of val that are not tested, which the devkit lists by the number of the picture."""
        file = next(filter(DOUBTFUL.fullmatch, self.tree.names), None)
        found: dict[str, list[str]] = {}
        if file is None or "val" not in self.lists:
            return found
        keys = dict(self._lines(self.lists["val"], "val"))
        for number, line in enumerate(lines_in(self.tree.root / file), start=1):
            pair = PAIR.fullmatch(line.strip())
            if pair is None:
                raise _not_a_line(self.tree.root / file, number, "the number of a picture of val and a synset")
            key, (_, name) = keys.get(int(pair[1])), self.synsets.get(pair[2], (0, pair[2]))
            if key is not None:
                found.setdefault(key, []).append(name)
        return {key: sorted(set(names)) for key, names in found.items()}

    @cached_property
    def _val(self) -> tuple[Content, Halves]:
        """The validation set, in the order of its keys, and its halves."""
        whole = self.sets()["val"]()
        whole.annotated.sort(key=lambda picture: picture.key)
        counting = [[own.name for own in picture.objects if not own.crowd] for picture in whole.annotated]
        labels = {name: label for label, name in enumerate(sorted({name for own in counting for name in own}))}
        return whole, halves(counted([[labels[name] for name in own] for own in counting], len(labels)))

    def _half(self, name: str) -> Content:
        """One half of the validation set, with the faults of all but the other half's pictures."""
        whole, both = self._val
        own, others = list[AnnotatedPicture](), set[str]()
        for picture, second in zip(whole.annotated, both.second.tolist(), strict=True):
            if second == (name == HALVES[1]):
                own.append(picture)
            else:
                others |= {picture.name, picture.source}
        faults = [fault for fault in whole.faults if fault.name not in others]
        note = f"val is divided into {' and '.join(HALVES)}: {both}"
        return Content(own, whole.categories, faults, [*whole.notes, note])


def _key_of(name: str) -> str:
    """What a picture and its annotation have in common, as "val/ILSVRC2012_val_00000001"; "" for other tasks."""
    *folders, last = name.split("/")
    for place, folder in enumerate(folders):
        archive = ARCHIVE.fullmatch(folder)
        if archive or folder == TASK:
            part = [archive[1]] if archive else []
            below = [own for own in folders[place + 1 :] if not ARCHIVE.fullmatch(own)]
            return composed("/".join([*part, *below, last.rpartition(".")[0] or last]))
    return ""


def _synsets(tree: Tree) -> dict[str, tuple[int, str]]:
    """The id and the name of each synset, in order of the ids; none where there is no `map_det.txt`."""
    file = next(filter(CLASSES.fullmatch, tree.names), None)
    found: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(lines_in(tree.root / file) if file else (), start=1):
        own = CLASS.fullmatch(line.strip())
        if own is None:
            raise _not_a_line(tree.root / str(file), number, "a synset, a number and a name")
        found[own[1]] = int(own[2]), class_name(own[3].strip().replace("_", " "), tree.root / str(file))
    if len(dict(found.values())) < len(found):
        raise InputError(f"{tree.root / str(file)} has two synsets of one number; take the devkit's file as it is")
    return dict(sorted(found.items(), key=lambda own: own[1]))


def _object(names: Mapping[str, str], element: Element, source: str, found: Content) -> Object | None:
    """One object. The ends of its box are pixels that lie inside, counted from 0; `names` has the class of a synset."""
    made = read_object(element, source, found)
    if made is None:
        return None
    if names and made.name not in names:
        found.faults.append(Fault(source, "object", f"the class {made.name!r} is not in map_det.txt"))
        return None
    left, top, right, bottom = made.box
    box = left, top, right + (right > left), bottom + (bottom > top)
    return made._replace(name=names.get(made.name, made.name), box=box)


def _within(own: Object, width: int, height: int) -> tuple[float, float, float, float]:
    """The box of an object; one whose last pixel is just behind the border, as if counted from 1, ends there."""
    left, top, right, bottom = own.box
    return left, top, width if right == width + 1 else right, height if bottom == height + 1 else bottom


def _not_a_line(file: Path, number: int, wanted: str) -> InputError:
    return InputError(f"{file}, line {number}, is not {wanted}; take the devkit's file as it is")
