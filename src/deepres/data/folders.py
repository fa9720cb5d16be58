"""Image folders: `class/name.jpg`, or `train/` and `test/` (or `val/`) of such."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from deepres.data.listing import Listing, Part, Picture, divided
from deepres.errors import InputError

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"))  # torchvision's

TEST_FOLDERS = ("test", "val", "valid", "validation")


@dataclass(frozen=True)
class _File:
    path: Path
    label: int
    part: Part


def image_folder(root: Path) -> Listing:
    """The pictures under `root`, in sorted order, labelled by their class folder.

    Without a test folder, every fifth picture of each class is a test picture. Raises `InputError` for a
    folder without class folders, a class folder without pictures, or a test class that the training set
    lacks.
    """
    train = root / "train"
    test = next((root / name for name in TEST_FOLDERS if (root / name).is_dir()), None)
    if not train.is_dir():
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
        pictures = [Picture(file.path.relative_to(root).as_posix(), file.label, file.part, file.path) for file in files]
        return classes, pictures if test is not None else list(divided(pictures))

    return Listing(root, tuple(file.path for file in files), read)


def _classes(folder: Path) -> tuple[str, ...]:
    """Sorted names of the class folders; hidden folders (`.git`, `__MACOSX`) are none."""
    found = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))
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
        found = sorted(
            path for path in (folder / name).rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
        )
        if not found:
            raise InputError(f"the class folder {folder / name} has no pictures; fill it or remove it")
        yield from (_File(path, label, part) for path in found if not path.name.startswith("."))
