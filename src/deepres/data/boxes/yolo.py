"""YOLO: a text file for each picture, one object a line; class names are in a list or in a YAML file."""

import posixpath
import re
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NotRequired, TypedDict

from deepres.data.boxes.annotations import AnnotatedPicture, Box, Content, Fault, Object, Source, seconds
from deepres.data.boxes.tree import TRUTH_FOLDERS, Tree, by_folder, by_last, key_of, lines_in
from deepres.data.listing import MOST_CLASSES
from deepres.data.rgb import fault
from deepres.data.walk import class_name, composed, names_of
from deepres.runtime.errors import InputError, reason_of
from deepres.runtime.files import decoded_text, lines_of, read_bytes
from deepres.runtime.untrusted import convert

LAYOUT = "YOLO"
MOST_YAML, MOST_LABELS = 2**20, 2**22  # bytes
YAMLS = ("data", "dataset")  # preferred to other YAML files with names
NAME_LISTS = ("classes.txt", "obj.names", "_darknet.labels", "labels.txt", "predefined_classes.txt")
PARTS = ("train", "val", "valid", "test")
DRIVE = re.compile("^[A-Za-z]:(?=/)")  # of Windows
ROUNDED = 0.01  # by which a number may be above 1 or below 0


class _Yaml(TypedDict):
    """What we read of the YAML file of a data set. All scalars of it are read as text, so that a class may be `no`."""

    names: NotRequired[list[str] | dict[str, str]]
    path: NotRequired[str]
    train: NotRequired[str | list[str]]
    val: NotRequired[str | list[str]]
    valid: NotRequired[str | list[str]]
    test: NotRequired[str | list[str]]
    kpt_shape: NotRequired[list[str]]


def yolo_source(tree: Tree) -> Source:
    """A data set in YOLO's layout.

    Its sets are those of the YAML file (`data.yaml`), of lists of pictures (`train.txt`), or the folders named after
    parts; else it has one. The text of a picture lies beside it, or in `labels/` where the picture is in `images/`. A
    picture without one has no objects. Raises `InputError` for a YAML file that cannot be read, and `OSError`.
    """
    reader = _Reader(tree, *(described := _described(tree)))
    path = described[1].get("path", "")
    given = {name: own for name in PARTS if (own := described[1].get(name))}
    listed = {name: f"{name}.txt" for name in PARTS if f"{name}.txt" in tree.names}
    places = {name: reader.places(own, path) for name, own in given.items()}
    if not any(places.values()):
        places = {name: reader.places(own) for name, own in listed.items()}
    sets = {name: partial(reader.read, own) for name, own in places.items() if own}
    if not sets:
        sets = by_folder(tree.pictures, lambda keys: reader.read([name for key in keys for name in tree.pictures[key]]))
    notes = (*tree.notes, *reader.notes)
    return Source(LAYOUT, tree.root, tree.files, tree.count, sets, notes=notes, faults=tuple(reader.strays()))


def is_labels(file: Path) -> bool:
    """Whether all lines of a text file are objects of YOLO; an empty one has to lie in a folder of labels."""
    try:
        lines = lines_of(decoded_text(read_bytes(file, MOST_LABELS)))
        return bool(list(map(_read, lines))) or bool(TRUTH_FOLDERS & {part.casefold() for part in file.parts})
    except (OSError, ValueError):
        return False


def has_names(name: str) -> bool:
    """Whether a file of this name lists class names."""
    last = name.rpartition("/")[2].lower()
    return last in NAME_LISTS or last.endswith(".names")


def _described(tree: Tree) -> tuple[str, _Yaml]:
    """The YAML file with class names that is nearest to the root, and what it says; "" and nothing without one."""
    named = [name for name in tree.names if name.lower().endswith((".yaml", ".yml"))]
    for name in sorted(named, key=lambda name: (name.count("/"), Path(name).stem not in YAMLS, name)):
        found = _read_yaml(tree.root / name)
        if found.get("names"):
            return name, found
    return "", {}


def _read_yaml(file: Path) -> _Yaml:
    """Raises `InputError` for what is not YAML, or describes a data set wrongly; other YAML has no names."""
    import yaml

    try:
        text = decoded_text(read_bytes(file, MOST_YAML))
        value = yaml.load(text, yaml.BaseLoader)  # the safe loader, without its guesses at types
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InputError(f"{file} is not YAML that can be read ({reason_of(error)}); mend or remove it") from None
    if not isinstance(value, dict) or not value.get("names"):
        return {}
    return convert(value, _Yaml, str(file))


class _Reader:
    """Reads the labels of pictures."""

    def __init__(self, tree: Tree, file: str, described: _Yaml) -> None:
        self.tree, self.home = tree, file.rpartition("/")[0]
        self.names = self._class_names(described)
        self.skeleton = bool(described.get("kpt_shape"))  # key points follow the box
        self.by_path = {composed(name): name for own in tree.pictures.values() for name in own}
        self.by_name = {last: self.by_path[path] for last, path in by_last(self.by_path).items()}
        self.folders = {parent.as_posix() for name in self.by_path for parent in PurePosixPath(name).parents}
        self.lists = {name for name in tree.names if name.lower().endswith(".txt")}
        self.notes: list[str] = []
        # The labels of each picture: those in a folder of labels are preferred.
        self.texts = tree.ending(".txt")
        self.labels: dict[str, str] = {}
        for key, names in self.texts.items():
            apart = [name for name in names if TRUTH_FOLDERS & set(name.casefold().split("/"))]
            self.labels[key] = (apart or names)[0]

    def _class_names(self, described: _Yaml) -> dict[int, str]:
        """The class names by number; none where no file lists them."""
        names = described.get("names", [])
        if not names:
            lists = sorted(filter(has_names, self.tree.names), key=lambda name: (name.count("/"), name))
            names = lines_in(self.tree.root / lists[0]) if lists else []
        try:
            numbered = {int(number): name for number, name in names.items()} if isinstance(names, dict) else None
        except ValueError:
            raise InputError(f"{self.tree.root} has names whose keys are no numbers; write names: {{0: cat}}") from None
        found = dict(enumerate(names)) if numbered is None else numbered
        return {number: class_name(name.strip(), self.tree.root) for number, name in sorted(found.items())}

    def places(self, given: str | list[str], base: str = "") -> list[str]:
        """The pictures in folders, or in lists in text files, that a YAML file names; what is not here is noted."""
        found: dict[str, None] = {}
        for own in [given] if isinstance(given, str) else given:
            place = self._inside(*(DRIVE.sub("", path.replace("\\", "/")) for path in (own, base)))
            if place in self.lists:
                found |= dict.fromkeys(filter(None, map(self._listed, lines_in(self.tree.root / place))))
            elif place is not None:
                found |= dict.fromkeys(name for name in self.by_path.values() if name.startswith(f"{place}/"))
            else:
                self.notes.append(f"not used, since it is not there: {own}")
        return list(found)

    def _inside(self, given: str, base: str) -> str | None:
        """A path of a YAML file as one within the data set; None where it is not there.

        What leads out of the data set is left away: its folder may have been moved since the file was written.
        """
        for start in (f"{self.home}/{base}", self.home, ""):
            path = posixpath.normpath(posixpath.join(start, given))
            parts = [part for part in path.split("/") if part not in ("", ".", "..")]
            for skipped in range(max(len(parts) - 1, 1) if path.startswith("/") else 1):
                place = "/".join(parts[skipped:])
                if place in self.folders or place in self.lists:
                    return place
        return None

    def _listed(self, line: str) -> str | None:
        """The picture that a line names: the longest end of it that is a path here."""
        parts = composed(line.strip().replace("\\", "/")).split("/")
        ends = ("/".join(parts[start:]) for start in range(len(parts)))
        return next((self.by_path[end] for end in ends if end in self.by_path), self.by_name.get(parts[-1]))

    def read(self, names: list[str]) -> Content:
        """The objects of these pictures. A picture without labels has none."""
        found, background, classes = Content(), list[str](), self.names
        read = {name: self._one(name, found) for name in names}
        if not classes:
            most = max((number for lines in read.values() for number, _ in lines or ()), default=-1)
            classes = {number: str(number) for number in range(most + 1)}
        for name, lines in read.items():
            if lines is None:
                continue
            label = self.labels.get(key_of(name))
            objects = [Object(classes[number], box) for number, box in lines if number in classes]
            if unknown := [number for number, _ in lines if number not in classes]:
                reason = f"class {unknown[0]}, of which there is no name"
                found.faults.append(Fault(label or name, "object", reason, len(unknown)))
            background += [name] * (label is None)
            picture = AnnotatedPicture(
                self.tree.root / name, composed(name), key_of(name), label or name, objects, relative=True
            )
            found.annotated.append(picture)
        found.categories = {number + 1: name for number, name in classes.items()}
        if not self.names:
            found.notes.append("no file names the classes, which are called by their numbers (names: in data.yaml)")
        if background:
            found.notes.append(f"pictures without labels, kept as background: {names_of(background)}")
        return found

    def _one(self, name: str, found: Content) -> list[tuple[int, Box]] | None:
        """Class number and box of each line; None where the file cannot be read. Bad lines are left out."""
        label = self.labels.get(key_of(name))
        if label is None:
            return []
        try:
            lines = lines_of(decoded_text(read_bytes(self.tree.root / label, MOST_LABELS)))
        except (OSError, ValueError) as error:
            reason = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else fault(error)
            found.faults.append(Fault(label, "unread", reason))
            return None
        read, wrong = list[tuple[int, Box]](), list[str]()
        for number, line in enumerate(lines, start=1):
            try:
                read.append(_read(line, self.skeleton))
            except ValueError as error:
                wrong.append(f"line {number}: {error}")
        if wrong:
            found.faults.append(Fault(label, "object", wrong[0], len(wrong)))
        return read

    def strays(self) -> list[Fault]:
        """The labels without a picture, in folders where others have one, and second ones of a picture."""
        pictures = self.tree.pictures
        known = {name.rpartition("/")[0] for key, name in self.labels.items() if key in pictures}
        second = seconds(self.texts, {key: name for key, name in self.labels.items() if key in pictures})
        return second + [
            Fault(name, "missing", "the picture of these labels is not there")
            for key, name in self.labels.items()
            if key not in pictures and name.rpartition("/")[0] in known and is_labels(self.tree.root / name)
        ]


def _read(line: str, skeleton: bool = False) -> tuple[int, Box]:
    """The class number and the box of a line, in units of width and height. Raises `ValueError` for another line.

    A line has the centre, width and height of a box, or the corners of a polygon, whose box is taken. Key points behind
    a box are not read.
    """
    try:
        number, *values = map(float, line.split())
    except ValueError:
        raise ValueError("not numbers") from None
    if not (number.is_integer() and 0 <= number < MOST_CLASSES):
        raise ValueError(f"the class {number:g} is no number of a class")
    values = values[:4] if skeleton else values
    if len(values) < 4 or len(values) % 2:
        raise ValueError(f"{len(values)} numbers behind the class, where a box has 4")
    if not all(-ROUNDED <= value <= 1 + ROUNDED for value in values):
        raise ValueError("numbers that are not from 0 to 1")
    if len(values) == 4:
        x, y, width, height = values
        return int(number), (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    return int(number), (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
