"""The data sets that are known by name, in torchvision's own layouts, and where they are fetched from."""

import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from deepres.cache import cache_folder
from deepres.data import debian
from deepres.data.listing import Listing, Part, Picture, Say
from deepres.errors import InputError

NETWORK_SECONDS = 20.0
PARTS: tuple[Part, ...] = ("train", "test")


@dataclass(frozen=True)
class Published:
    """A named data set: torchvision's reader and the folder that it looks for under its root."""

    reader_name: str
    folder: str

    def reader(self, root: Path, **how: bool) -> Any:
        """torchvision's data set under `root`."""
        from torchvision import datasets  # here, since torchvision takes seconds to load

        return getattr(datasets, self.reader_name)(root, **how)


PUBLISHED = {
    "cifar10": Published("CIFAR10", "cifar-10-batches-py"),
    "cifar100": Published("CIFAR100", "cifar-100-python"),
    "fashion-mnist": Published("FashionMNIST", "FashionMNIST/raw"),
}


def torchvision_folder(root: Path) -> Listing | None:
    """The data set that lies under `root` in torchvision's layout, or None.

    `read()` raises `InputError` where the copy is not whole.
    """
    for name, published in PUBLISHED.items():
        folder = root / published.folder
        if folder.is_dir():
            files = tuple(sorted(path for path in folder.rglob("*") if path.is_file()))
            return Listing(root, files, lambda name=name: _read(name, root))
    return None


def _read(name: str, root: Path) -> tuple[tuple[str, ...], Iterable[Picture]]:
    published = PUBLISHED[name]
    try:  # torchvision compares the sums of CIFAR's files before it unpickles them
        sets: dict[Part, Any] = {part: published.reader(root, train=part == "train") for part in PARTS}
        classes = tuple(str(name) for name in sets["train"].classes)
    except Exception as error:  # what its readers raise for a damaged file depends on the byte
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        folder = root / published.folder
        raise InputError(f"{folder} is not a whole copy of {name} ({reason}); delete it or put it again") from None
    return classes, _Pictures(sets)


@dataclass(frozen=True)
class _Pictures:
    """The pictures of torchvision's data sets, already decoded."""

    sets: dict[Part, Any]

    def __iter__(self) -> Iterator[Picture]:
        for part, images in self.sets.items():
            for index in range(len(images)):
                image, label = images[index]
                yield Picture(f"{part} image {index}", int(label), part, image)


def fetched_folder(name: str) -> Path:
    """The place of a named data set in the cache folder."""
    return cache_folder() / "datasets" / name


def fetch(name: str, say: Say) -> Path:
    """Download a named data set into the cache folder and return its place, written in one move.

    Fashion-MNIST falls back to Debian's package of it. Raises `InputError` where no way works.
    """
    target, published = fetched_folder(name), PUBLISHED[name]
    ways: list[tuple[str, Callable[[Path], None]]] = [
        ("torchvision", lambda root: _download(published.reader, root)),
    ]
    if name == "fashion-mnist" and debian.available():
        ways.append((f"Debian's package {debian.PACKAGE}", lambda root: debian.unpack(root / published.folder)))
    failures: list[str] = []
    for way, run in ways:
        say(f"{name}: not on this machine; fetching it through {way}")
        try:
            _into(target, run)
            return target
        except (OSError, RuntimeError, HTTPException) as error:
            reason = str(error).strip().splitlines()
            failures.append(f"{way}: {reason[-1].strip() if reason else type(error).__name__}")
            say(f"{name}: {failures[-1]}")
    raise InputError(
        f"{name} is not on this machine and could not be fetched ({'; '.join(failures)}); put "
        f"train*.parquet and test*.parquet, class folders, or {published.folder}/ into {target}"
    )


def _into(target: Path, run: Callable[[Path], None]) -> None:
    """Let `run` fill a folder beside `target`, then move it there, so that half a set is never found."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as temporary:
        root = Path(temporary) / "set"
        root.mkdir()
        run(root)
        for archive in root.rglob("*.gz"):
            archive.unlink()
        try:
            root.rename(target)  # over an empty folder too
        except OSError:
            if not any(target.iterdir()):
                raise  # else another process was first, with the same files


def _download(reader: Callable[..., Any], root: Path) -> None:
    """Download by torchvision, which sets no timeout of its own, so that a closed network fails soon."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_SECONDS)
    try:
        reader(root, train=True, download=True)
    finally:
        socket.setdefaulttimeout(before)
