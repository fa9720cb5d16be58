"""Image folders: the pictures in the class folders that `layouts` finds, torchvision's ImageNet among them."""

from collections.abc import Iterator
from pathlib import Path

from deepres.data.layouts import ClassFolders, Layout, layout_of
from deepres.data.listing import Listing, Part, Picture
from deepres.data.part_names import is_picture
from deepres.data.walk import Walk, composed, names_of
from deepres.runtime.errors import InputError, reason_of
from deepres.runtime.files import require_regular

IMAGENET_NAMES = "meta.bin"  # of `torchvision.datasets.ImageNet`: English names by WordNet id


def image_folder(root: Path, notes: tuple[str, ...] = ()) -> Listing:
    """The pictures under `root`, in sorted order, labelled by their class folder. `notes` go into the listing.

    Without a test part `data.division` divides the pictures. A test part may be there without a training part. Raises
    `InputError` where the class folders cannot be recognized, for a class folder without pictures, and for a test class
    that the training part does not have.
    """
    # Find the parts and their classes.
    walk = Walk()
    layout = layout_of(root, walk)
    classes = tuple(layout.test or () if layout.train is None else layout.train)
    if unknown := [name for name in layout.test or () if name not in set(classes)]:
        raise InputError(
            f"the test part of {root} has the class {unknown[0]!r}, which the training part lacks; make them agree"
        )
    # The pictures in the class folders.
    within = root.as_posix().rstrip("/") + "/"
    parts: tuple[tuple[Part, ClassFolders | None], ...] = (("train", layout.train), ("test", layout.test))
    pictures = [
        Picture(composed(path.removeprefix(within)), label, part, Path(path), key)
        for part, folders in parts
        for path, label, key in _files(folders or {}, classes, walk)
    ]
    names = root / IMAGENET_NAMES
    # The class names are read from `names`, so that the cache depends on it, too.
    every = (*(path for own in pictures if isinstance(path := own.content, Path)), *[names] * names.is_file())
    told = (*notes, *layout.notes, *_left_out(layout, names, walk), *walk.notes())
    return Listing(root, every, lambda: (_named(names, classes), pictures), layout.test is None, told)


def is_image_folder(root: Path) -> bool:
    """Whether there are pictures in the folders of `root`, in a layout with parts or several classes."""
    walk = Walk()
    try:
        layout = layout_of(root, walk)
    except InputError:
        # An unclear layout is still one of images if two folders hold some; `image_folder` then raises its error.
        folders = walk.folders_inside(root)
        return sum(any(map(is_picture, walk.files_below(folder))) for folder in folders) > 1
    parts = [own for own in (layout.train, layout.test) if own is not None]
    filled = {
        name
        for own in parts
        for name, folders in own.items()
        if any(is_picture(path) for folder in folders for path in walk.files_below(folder))
    }
    return len(filled) > 1 or (len(parts) > 1 and bool(filled))


def pictures_below(folder: Path, walk: Walk) -> Iterator[str]:
    """All picture files in and below a folder, in sorted order; `walk.unread` counts the other files by suffix."""
    for path in walk.files_below(folder):
        if is_picture(path):
            yield path
        else:
            walk.unread[Path(path).suffix.lower()] += 1


def _left_out(layout: Layout, names: Path, walk: Walk) -> list[str]:
    """A note about pictures beside the class folders; `walk.unread` counts the other files there by suffix."""
    lost = [path.name for path in layout.beside if is_picture(path.name)]
    walk.unread.update(path.suffix.lower() for path in layout.beside if not is_picture(path.name) and path != names)
    return [f"not read, since they lie beside the class folders: {names_of(lost)}"] if lost else []


def _files(folders: ClassFolders, classes: tuple[str, ...], walk: Walk) -> Iterator[tuple[str, int, str]]:
    """The picture files of a part, class by class and sorted: path, label, and key (the class and the name in it)."""
    for label, name in enumerate(classes):
        own = folders.get(name, ())
        found = [(folder, path) for folder in own for path in pictures_below(folder, walk)]
        if own and not found:
            raise InputError(f"the class folder {own[0]} has no pictures; fill it, or move it away")
        yield from ((path, label, name + path.removeprefix(str(folder))) for folder, path in found)


def _named(file: Path, classes: tuple[str, ...]) -> tuple[str, ...]:
    """The English class names where torchvision's ImageNet has them in `file`, else the names of the folders."""
    if not file.is_file():
        return classes
    from deepres.runtime import archive  # loads torch, which listing folders does not need

    try:
        require_regular(file)
        english = archive.load(file)[0]
        return tuple(", ".join(english.get(name, (name,))) for name in classes)
    except Exception as error:  # what unpickling raises depends on the byte
        raise InputError(f"{file} does not hold ImageNet's class names ({reason_of(error)}); remove it") from None
