"""Image folders: `class/name.jpg`, or `train/` and `test/` (or `val/`) of such; torchvision's ImageNet is one."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from deepres.data.listing import Listing, Part, Picture, divided
from deepres.errors import InputError

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"))  # torchvision's

IMAGENET_NAMES = "meta.bin"  # written by `torchvision.datasets.ImageNet`: from a folder's WordNet id to English
TEST_FOLDERS = ("test", "val", "valid", "validation")


@dataclass(frozen=True)
class _File:
    path: Path
    label: int
    part: Part


def image_folder(root: Path) -> Listing:
    """The pictures under `root`, in sorted order, labelled by their class folder.

    The test folder is the first of `TEST_FOLDERS` that has class folders, which that of a contest has not. Without
    one, every fifth picture of each class is a test picture. Raises `InputError` for a
    folder without class folders, a class folder without pictures, or a test class that the training set
    lacks.
    """
    train = root / "train"
    named = [root / name for name in TEST_FOLDERS if (root / name).is_dir()]
    beside = [name for name in _class_folders(root) if name not in ("train", *TEST_FOLDERS)] if train.is_dir() else []
    beside = [name for name in beside if any(map(_is_picture, (root / name).iterdir()))]
    if beside and _class_folders(train):
        raise InputError(f"{root} has class folders in train/ and {beside[0]}/ beside it; move one of them away")
    test = next((folder for folder in named if _class_folders(folder)), named[0] if named else None)
    if not train.is_dir() or beside:  # a class may be called train
        if test is not None:
            raise InputError(f"{root} has {test.name}/ but no train/; add train/ with one folder a class")
        train = root
    classes = _classes(train)
    files = list(_files(train, classes, "train"))
    if test is not None:
        known = set(classes)
        if unknown := [name for name in _classes(test) if name not in known]:
            raise InputError(f"{test} has the class {unknown[0]!r}, which {train} lacks; make the class folders agree")
        files += _files(test, classes, "test")

    def read() -> tuple[tuple[str, ...], Iterable[Picture]]:
        within = root.as_posix().rstrip("/") + "/"
        pictures = [
            Picture(file.path.as_posix().removeprefix(within), file.label, file.part, file.path) for file in files
        ]
        return _named(root, classes), pictures if test is not None else list(divided(pictures))

    names = root / IMAGENET_NAMES
    return Listing(root, (*(file.path for file in files), *[names] * names.is_file()), read, divides=test is None)


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


def _files(folder: Path, classes: tuple[str, ...], part: Part) -> Iterator[_File]:
    """The picture files of each class that `folder` has, in sorted order."""
    for label, name in enumerate(classes):
        if not (folder / name).is_dir():
            continue
        found = pictures_below(folder / name)
        if not found:
            raise InputError(f"the class folder {folder / name} has no pictures; fill it or remove it")
        yield from (_File(path, label, part) for path in found)


def pictures_below(folder: Path) -> list[Path]:
    """All picture files in a folder and those below it, sorted; hidden ones (`._1.jpg`) are none."""
    found = (Path(place, name) for place, _, names in os.walk(folder) for name in names)
    return sorted(filter(_is_picture, found))


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
