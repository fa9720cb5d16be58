"""Which folders of a data set are its parts and which its classes; an unclear layout is refused with the reason."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from deepres.data.part_names import PartName, is_filling, is_picture, part_name
from deepres.data.walk import Inside, Walk, class_name, composed, names_of
from deepres.runtime.errors import InputError

WRAPPINGS = 4  # levels of folders that archives may add around a data set
HINTS = 200  # folders searched for the one that the user may have meant
ClassFolders = dict[str, tuple[Path, ...]]  # several folders where names differ only in their Unicode form


@dataclass
class Layout:
    """The class folders of both parts, of which one may be missing. Files `beside` them are not read."""

    train: ClassFolders | None = None
    test: ClassFolders | None = None
    beside: list[Path] = field(default_factory=list[Path])
    notes: list[str] = field(default_factory=list[str])


class _PartFolder(NamedTuple):
    """A folder named after a part, and its `home`: the folder that holds its class folders, if there is one."""

    folder: Path
    name: PartName
    home: Path | None = None

    @property
    def is_training(self) -> bool:
        return self.name.split == "train"


def has_training_part(root: Path) -> bool:
    """Whether one of the folders in `root` is named after the training part."""
    return any(part.is_training for part in _parts(Walk().folders_inside(root)))


def inner_parts(root: Path, walk: Walk) -> dict[bool, Path]:
    """The folders in `root` that are named after parts: the training part at key True, the test part at False."""
    return {part.is_training: part.folder for part in reversed(_parts(walk.folders_inside(_unwrapped(root, walk))))}


def layout_of(root: Path, walk: Walk) -> Layout:
    """The layout of a folder: parts with classes in them, classes with parts in them, or classes alone.

    Outer folders that hold a single folder are skipped. Raises `InputError` where the classes cannot be recognized,
    and `OSError`.
    """
    # Skip the folders around the data set.
    found, place = Layout(), _unwrapped(root, walk)
    if place != root:
        found.notes.append(f"read from {place.relative_to(root)}/, the only folder")
        found.beside += _around(root, place, walk)
    # Folders named after parts, with class folders in them.
    folders, files = _inside(place, walk)
    found.beside += files
    parts = [part._replace(home=_home(part, walk)) for part in _parts(folders)]
    others = [folder for folder in folders if not any(part.folder == folder for part in parts)]
    if _are_parts(place, parts, others, walk):
        _take_parts(root, parts, others, found, walk)
        return found
    # Else classes, which may be divided themselves.
    classes = _classes(place, folders)
    if not _take_divided_classes(place, classes, found, walk):
        _require_classes(root, place, classes, found, walk)
        found.train = classes
    return found


def _inside(folder: Path, walk: Walk) -> Inside:
    """The folders and files in a folder. Raises `InputError` for a dangling link, which may have been a class."""
    found = walk.inside(folder)
    links = (file for file in found.files if not file.suffix and file.is_symlink())
    if lost := next((link for link in links if not link.exists()), None):
        raise InputError(f"{lost} is a link that leads nowhere; mend or remove it")
    return found


def _unwrapped(root: Path, walk: Walk) -> Path:
    """The innermost folder of a chain of single folders from `root` on; a part and a single class are not entered."""
    place = root
    for _ in range(WRAPPINGS):
        folders = walk.folders_inside(place)
        if len(folders) != 1 or part_name(folders[0].name) is not None or _holds_pictures(place, walk):
            break
        if _holds_pictures(folders[0], walk) or not walk.folders_inside(folders[0]):
            break  # a single class
        place = folders[0]
    return place


def _parts(folders: Sequence[Path]) -> list[_PartFolder]:
    """The folders named after parts, in the order of preference of their names.

    A name with another word counts only where a training part and a test part share that word (`oak_train`,
    `oak_test`).
    """
    named = [_PartFolder(folder, name) for folder in folders if (name := part_name(folder.name)) is not None]
    plain = [part for part in named if part.name.is_plain]
    if not any(part.is_training for part in plain):
        rests = [{part.name.rest for part in named if part.is_training is kind} for kind in (True, False)]
        plain += [part for part in named if part.name.rest in rests[0] & rests[1] and part not in plain]
    return sorted(plain, key=lambda part: (part.name.rank, len(part.name.rest), part.folder.name))


def _home(part: _PartFolder, walk: Walk) -> Path | None:
    """The folder that holds the class folders of a part, as `seg_train/seg_train/`; None where there is none."""
    home = _unwrapped(part.folder, walk)
    folders = walk.folders_inside(home)
    if len(folders) == 1 and part_name(folders[0].name) == part.name and walk.folders_inside(folders[0]):
        return folders[0]
    if len(folders) == 1 and is_filling(folders[0].name) and _holds_pictures(folders[0], walk):
        return None  # pictures without classes, as `test/images/` in data of contests
    return home if folders else None


def _are_parts(place: Path, parts: list[_PartFolder], others: list[Path], walk: Walk) -> bool:
    """Whether folders named after parts are parts, not classes. Raises `InputError` where that is unclear."""
    # Training parts with class folders, test parts, and folders with pictures that are neither.
    whole = [part.folder.name for part in parts if part.is_training and part.home]
    tests = [part.folder.name for part in parts if not part.is_training]
    if whole and any(part.home for part in parts if not part.is_training):
        beside = []  # both parts are there, so that pictures elsewhere belong to neither
    else:
        beside = [folder.name for folder in others if _holds_pictures(folder, walk)]
    if beside and whole:
        raise InputError(f"{place} has class folders in {whole[0]}/ and {beside[0]}/ beside it; move one of them away")
    if beside and tests:
        raise InputError(
            f"{place} has {tests[0]}/ but no train/; add train/ with one folder a class, or rename {tests[0]}/ if it "
            "is a class"
        )
    if len(whole) > 1:
        raise InputError(
            f"{place} has {len(whole)} training parts ({', '.join(whole)}); move all but one away, or give the folder "
            "of one data set"
        )
    return bool(parts) and not beside  # else a class has the name of a part


def _take_parts(root: Path, parts: list[_PartFolder], others: list[Path], found: Layout, walk: Walk) -> None:
    """Set the parts of `found`. Of several test parts, the first that has class folders is taken.

    In data of contests, `test/` has no class folders, but `val/` has.
    """
    # Choose a folder for each part.
    trains, tests = ([part for part in parts if part.is_training is kind] for kind in (True, False))
    train, test = (next((part for part in named if part.home), None) for named in (trains, tests))
    empty = [part for part in parts if not part.home and not any(map(is_picture, walk.files_below(part.folder)))]
    if (trains and train is None) or (test is None and (empty or train is None)):
        lacking = (empty or trains or tests)[0].folder
        raise InputError(f"{lacking} has no class folders; fill it with one of images a class, or remove it")
    # Tell what is not used.
    for part in parts:
        if part not in (train, test):
            reason = f"{test.folder.name}/ is the test part" if part.home and test else "it has no class folders"
            found.notes.append(f"{part.folder.name}/ is not used, since {reason}")
    found.notes += [f"{folder.name}/ is not used, since its name is not that of a part" for folder in others]
    # Read the class folders.
    for part in (train, test):
        if part is not None and part.home is not None:
            folders, files = _inside(part.home, walk)
            classes = _classes(part.home, folders)
            _require_classes(root, part.home, classes, found, walk)
            found.beside += [*_around(part.folder, part.home, walk), *files]
            setattr(found, "train" if part is train else "test", classes)


def _take_divided_classes(place: Path, classes: ClassFolders, found: Layout, walk: Walk) -> bool:
    """Set the parts of a data set that is divided within each class, as `rose/train/`. False where it is not."""
    # Find the folders in the classes that are named after parts.
    subfolders = {
        name: [sub for own in folders for sub in walk.folders_inside(own)] for name, folders in classes.items()
    }
    parts = {name: _parts(folders) for name, folders in subfolders.items()}
    every = [part for own in parts.values() for part in own]
    if not every:
        return False
    # Every class needs a training part, and no pictures beside it.
    _require_level(place, {name: [part.folder for part in own] for name, own in parts.items()}, found, walk)
    for name, own in parts.items():
        if not any(part.is_training for part in own) or any(_holds_pictures(folder, walk) for folder in classes[name]):
            example = every[0].folder.relative_to(place)
            raise InputError(
                f"{place} seems to be divided within its classes, as {example}/ says, but {name}/ has no training part "
                "or has pictures beside it; let every class have train/ and test/, or none"
            )
    # All classes take the same kind of test part.
    first = min((part.name.rank for part in every if not part.is_training), default=None)
    used = [part for part in every if part.is_training or part.name.rank == first]
    unused = {sub for own in subfolders.values() for sub in own} - {part.folder for part in used}
    found.notes += [f"{folder.relative_to(place)}/ is not used" for folder in sorted(unused)]
    found.beside += [file for own in classes.values() for folder in own for file in walk.inside(folder).files]
    # Enter the parts.
    for kind in (True, False):
        own = {
            name: tuple(part.folder for part in parts[name] if part in used and part.is_training is kind)
            for name in classes
        }
        setattr(found, "train" if kind else "test", {name: folders for name, folders in own.items() if folders} or None)
    return True


def _classes(place: Path, folders: Sequence[Path]) -> ClassFolders:
    """The class folders by their names in composed form, sorted. Raises `InputError` where there are none."""
    if not folders:
        raise InputError(f"{place} has no Parquet files and no class folders; give a folder with one of images a class")
    if len(folders) == 1 and is_filling(folders[0].name):
        raise InputError(
            f"{place} has its pictures in {folders[0].name}/ alone, which names no class; give a folder with one of "
            "images a class"
        )
    found: dict[str, list[Path]] = {}
    for folder in folders:
        found.setdefault(class_name(folder.name, place), []).append(folder)
    return {name: tuple(found[name]) for name in sorted(found)}


def _require_classes(root: Path, place: Path, classes: ClassFolders, found: Layout, walk: Walk) -> None:
    """Raise `InputError` where the folders in `place` cannot be its classes.

    That is so where they are parts, where they hold only folders, and where they all hold the same folders.
    """
    folders = [folder for own in classes.values() for folder in own]
    if len({part.is_training for part in _parts(folders)}) == 2:
        raise InputError(f"{place} is divided into parts by itself ({', '.join(classes)}); give that folder")
    if any(_holds_pictures(folder, walk) for folder in folders):
        _require_level(place, classes, found, walk)
        return
    for folder in folders:
        within = walk.folders_inside(_unwrapped(folder, walk))
        if len(within) > 1:
            raise InputError(
                f"{place} has only folders in its folders ({names_of(classes)}), as {within[0].relative_to(place)}/, "
                f"so that it cannot be told which are the classes; give {_meant(root, walk)}, or put the pictures "
                "into the class folders themselves"
            )


def _require_level(place: Path, classes: Mapping[str, Sequence[Path]], found: Layout, walk: Walk) -> None:
    """Raise `InputError` where the folders in `place` (folds, years, sources) hold the same folders, the real classes.

    That is so where at least two names are in most of them and hardly a picture lies beside these. With more pictures
    beside (originals beside edited copies), the inner folders belong to the class around them, and a note says so.
    """
    # Count the names of inner folders.
    homes = [[_unwrapped(folder, walk) for folder in own] for own in classes.values()]
    within = [[sub for home in own for sub in walk.folders_inside(home)] for own in homes]
    counts = Counter(name for own in within for name in {_folded(sub) for sub in own})
    same = [sub for own in within for sub in own if 2 * counts[_folded(sub)] > len(classes)]
    names = {_folded(sub): sub.name for sub in reversed(same)}.values()
    if len(classes) < 2 or len(names) < 2 or 2 * len(same) < sum(map(len, within)):
        return
    beside = sum(is_picture(path) for own in homes for home in own for path in walk.files_inside(home))
    below = sum(is_picture(path) for sub in same for path in walk.files_below(sub))
    both = f"{names_of(classes)}, in most of which are the same folders: {names_of(names)}"
    if beside <= max(len(classes), below // 10):
        raise InputError(
            f"{place} seems to have its classes one level further down. It has the folders {both}; give one of them, "
            f"as {place / next(iter(classes))}, or bring the pictures of each class together in one folder"
        )
    found.notes.append(f"read as the classes: {both}, whose pictures are of the class around them")


def _folded(folder: Path) -> str:
    return composed(folder.name).casefold()


def _around(outer: Path, inner: Path, walk: Walk) -> list[Path]:
    """The files beside `inner` in the folders around it, up to `outer`."""
    around = [place for place in inner.parents if place.is_relative_to(outer)]
    return [file for place in reversed(around) for file in _inside(place, walk).files]


def _meant(root: Path, walk: Walk) -> str:
    """A hint for an error: a folder below `root` that has both parts, or what to look for."""
    waiting = [root]
    for place in waiting:
        folders = walk.folders_inside(place)
        if place != root and len({part.is_training for part in _parts(folders)}) == 2:
            return f"{place}, which has parts"
        waiting += folders[: HINTS - len(waiting)]
    return "the folder that holds the class folders"


def _holds_pictures(folder: Path, walk: Walk) -> bool:
    """Whether there are pictures directly in the folder."""
    return any(map(is_picture, walk.files_inside(folder)))
