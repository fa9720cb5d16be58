"""Image folders: `class/name.jpg`, or `train/` and `test/` (or `val/`) of such; torchvision's ImageNet is one."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from deepres.data.listing import Listing, Part, Picture
from deepres.errors import InputError

# torchvision's, and two more that Pillow decodes
IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".jfif", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif"))
IMAGENET_NAMES = "meta.bin"  # written by `torchvision.datasets.ImageNet`: from a folder's WordNet id to English
TRAIN_FOLDERS = ("train", "training")  # in any case
TEST_FOLDERS = ("test", "testing", "val", "valid", "validation")


@dataclass(frozen=True)
class _File:
    path: Path
    label: int
    part: Part


def image_folder(root: Path) -> Listing:
    """The pictures under `root`, in sorted order, labelled by their class folder.

    The test folder is the first of `TEST_FOLDERS` that has class folders, which that of a contest has not. Without
    one, `data.division` divides; a test folder alone has no training pictures. Raises `InputError` for a
    folder without class folders, a class folder without pictures, or a test class that the training set
    lacks.
    """
    parts = {path.name.lower(): path for path in sorted(root.iterdir()) if path.is_dir()}
    train = next((parts[name] for name in TRAIN_FOLDERS if name in parts), None)
    named = [parts[name] for name in TEST_FOLDERS if name in parts]
    others = [name for name in _class_folders(root) if name.lower() not in (*TRAIN_FOLDERS, *TEST_FOLDERS)]
    beside = [name for name in others if any(map(_is_picture, (root / name).iterdir()))]
    if train is not None and beside and _class_folders(train):
        raise InputError(f"{root} has class folders in {train.name}/ and {beside[0]}/ beside it; move one of them away")
    tests = [folder for folder in named if _class_folders(folder)]
    test = (tests or named or [None])[0]
    if beside and test is not None:  # a class may be called train
        raise InputError(f"{root} has {test.name}/ but no train/; add train/ with one folder a class")
    if beside or (train is None and test is None):
        train = root
    classes, unread = _classes(train or test or root), Counter[str]()
    files = [] if train is None else list(_files(train, classes, "train", unread))
    if test is not None:
        known = set(classes)
        if unknown := [name for name in _classes(test) if name not in known]:
            raise InputError(f"{test} has the class {unknown[0]!r}, which {train} lacks; make the class folders agree")
        files += _files(test, classes, "test", unread)

    def read() -> tuple[tuple[str, ...], Iterable[Picture]]:
        within, home = (place.as_posix().rstrip("/") + "/" for place in (root, train or root))
        pictures: list[Picture] = []
        for file in files:
            path = file.path.as_posix()
            key = path.removeprefix(home) if test is None else None
            pictures.append(Picture(path.removeprefix(within), file.label, file.part, file.path, key))
        return _named(root, classes), pictures

    names = root / IMAGENET_NAMES
    notes = [f"{folder.name}/ is not used, since {tests[0].name}/ is the test part" for folder in tests[1:]]
    if unread:
        kinds = ", ".join(f"{count:,} {suffix or 'without a suffix'}" for suffix, count in unread.most_common(5))
        notes.append(f"not read, by the names of the files: {kinds}")
    every = (*(file.path for file in files), *[names] * names.is_file())
    return Listing(root, every, read, divides=test is None, notes=tuple(notes))


def _named(root: Path, classes: tuple[str, ...]) -> tuple[str, ...]:
    """The class names in English where torchvision's ImageNet has them beside the folders."""
    file = root / IMAGENET_NAMES
    if not file.is_file():
        return classes
    import torch  # here, as all who only list folders do without

    try:
        english = torch.load(file, weights_only=True)[0]
        return tuple(", ".join(english.get(name, (name,))) for name in classes)
    except Exception as error:  # what unpickling raises depends on the byte
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{file} does not hold ImageNet's class names ({reason}); remove it") from None


def _class_folders(folder: Path) -> list[str]:
    """Sorted names of the class folders; hidden folders (`.git`, `__MACOSX`) are none."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))


def _classes(folder: Path) -> tuple[str, ...]:
    found = _class_folders(folder)
    if not found:
        raise InputError(
            f"{folder} has no Parquet files and no class folders; give a folder with one of images a class"
        )
    return tuple(found)


def _files(folder: Path, classes: tuple[str, ...], part: Part, unread: Counter[str]) -> Iterator[_File]:
    """The picture files of each class that `folder` has, in sorted order; `unread` counts the others by suffix."""
    for label, name in enumerate(classes):
        if not (folder / name).is_dir():
            continue
        visible = list(_files_below(folder / name))
        found = sorted(filter(_is_picture, visible))
        if not found:
            raise InputError(f"the class folder {folder / name} has no pictures; fill it or remove it")
        if len(found) < len(visible):
            unread.update(path.suffix.lower() for path in visible if not _is_picture(path))
        yield from (_File(path, label, part) for path in found)


def pictures_below(folder: Path) -> list[Path]:
    """All picture files in a folder and those below it, sorted; hidden ones (`._1.jpg`) are none."""
    return sorted(filter(_is_picture, _files_below(folder)))


def _files_below(folder: Path) -> Iterator[Path]:
    """All files in a folder and those below it, but for hidden ones."""
    return (Path(place, name) for place, _, names in os.walk(folder) for name in names if not name.startswith("."))


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
