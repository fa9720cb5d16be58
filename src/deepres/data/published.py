"""The data sets known by name, in torchvision's layouts, and how they are fetched."""

import socket
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPException
from itertools import islice
from pathlib import Path
from typing import Any

from deepres.data import debian
from deepres.data.listing import PARTS, Listing, Part, Picture
from deepres.runtime.cache_folder import cache_folder
from deepres.runtime.errors import InputError, Say, reason_of, require_packages

NETWORK_SECONDS = 20.0
ARCHIVES = (".gz", ".tgz")


def _parts(train: str, test: str, **how: Any) -> dict[Part, dict[str, Any]]:
    return {"train": {"split": train, **how}, "test": {"split": test, **how}}


# With `loader=Path`, torchvision's readers of folders give paths in place of decoded pictures.
BY_TRAIN: dict[Part, dict[str, Any]] = {"train": {"train": True}, "test": {"train": False}}
FILES: dict[str, Any] = {"loader": Path}


@dataclass(frozen=True)
class Published:
    """A named data set: the class of torchvision that reads it, and its arguments.

    `places` are the files and folders that it reads under its root; the first one shows which data set it is. `parts`
    has its arguments for each part, `packages` what it imports, `left_out` which pictures are in neither part.
    """

    reader_name: str
    places: tuple[str, ...]
    parts: dict[Part, dict[str, Any]] = field(default_factory=lambda: BY_TRAIN)
    packages: tuple[str, ...] = ()
    left_out: str = ""

    def reader(self, root: Path, part: Part, **how: bool) -> Any:
        """torchvision's data set of this part under `root`."""
        from torchvision import datasets  # here, since torchvision takes seconds to load

        return getattr(datasets, self.reader_name)(root, **self.parts[part], **how)

    @property
    def layout(self) -> str:
        """The places, in a sentence."""
        return " and ".join(place if Path(place).suffix else f"{place}/" for place in self.places)

    def files(self, root: Path) -> Iterator[Path]:
        """All files of the set under `root`."""
        for place in (root / place for place in self.places):
            yield from (path for path in (place.rglob("*") if place.is_dir() else [place]) if path.is_file())


PUBLISHED = {
    "cifar10": Published("CIFAR10", ("cifar-10-batches-py",)),
    "cifar100": Published("CIFAR100", ("cifar-100-python",)),
    "fashion-mnist": Published("FashionMNIST", ("FashionMNIST/raw",)),
    "mnist": Published("MNIST", ("MNIST/raw",)),
    "svhn": Published(
        "SVHN",
        ("train_32x32.mat", "test_32x32.mat"),
        _parts("train", "test"),
        packages=("scipy",),
        left_out="the 531,131 easier pictures of its part extra",
    ),
    "stl10": Published(
        "STL10", ("stl10_binary",), _parts("train", "test"), left_out="its 100,000 pictures without a label"
    ),
    "imagenette": Published("Imagenette", ("imagenette2",), _parts("train", "val", **FILES)),
    "flowers102": Published(
        "Flowers102",
        ("flowers-102/setid.mat", "flowers-102/imagelabels.mat", "flowers-102/jpg"),
        _parts("train", "test", **FILES),
        packages=("scipy",),
        left_out="its 1,020 validation pictures",
    ),
    "oxford-pets": Published(
        "OxfordIIITPet", ("oxford-iiit-pet/annotations", "oxford-iiit-pet/images"), _parts("trainval", "test")
    ),
    "food101": Published("Food101", ("food-101/meta", "food-101/images"), _parts("train", "test", **FILES)),
}


def torchvision_folder(root: Path) -> Listing | None:
    """The data set that lies under `root` in torchvision's layout, or None.

    Its `scan()` raises `InputError` where files are missing or damaged, or a package that reads them is missing.
    """
    for name, published in PUBLISHED.items():
        if (root / published.places[0]).exists():
            notes = (f"{published.left_out} are left out",) if published.left_out else ()
            files = tuple(sorted(published.files(root)))
            return Listing(root, files, lambda name=name: _scan(name, root), notes=notes)
    return None


def _scan(name: str, root: Path) -> tuple[tuple[str, ...] | None, Iterable[Picture]]:
    published = PUBLISHED[name]
    require_packages(published.packages, f"{name} is read by", "datasets")
    try:  # torchvision verifies checksums of all files but the pictures
        sets: dict[Part, Any] = {part: published.reader(root, part) for part in PARTS}
        classes, of_test = (_class_names(sets[part]) for part in PARTS)
        if classes != of_test:  # a class missing in one part would shift the labels of the others
            raise ValueError("its two parts have other classes")
    except Exception as error:  # its readers raise almost any exception for a damaged file
        reason = reason_of(error)
        raise InputError(f"{root} is not a whole copy of {name} ({reason}); put {published.layout} again") from None
    pictures = _TorchvisionPictures(root, sets)
    are_files = any(isinstance(picture.content, Path) for picture in islice(pictures, 1))
    return classes, list(pictures) if are_files else pictures


def _class_names(images: Any) -> tuple[str, ...] | None:
    """The class names of torchvision. Imagenette has several for each class, SVHN has none."""
    found = getattr(images, "classes", None)
    return found and tuple(name if isinstance(name, str) else ", ".join(name) for name in found)


@dataclass(frozen=True)
class _TorchvisionPictures:
    """The pictures of torchvision's data sets: already decoded, or paths of files."""

    root: Path
    sets: dict[Part, Any]

    def __iter__(self) -> Iterator[Picture]:
        for part, images in self.sets.items():
            for index, (content, label) in enumerate(_with_labels(images)):
                name = f"{part} image {index}"
                if isinstance(content, Path):
                    name = content.relative_to(self.root).as_posix()
                yield Picture(name, int(label), part, content)


def _with_labels(images: Any) -> Iterable[tuple[Any, Any]]:
    """Each picture (decoded, or its path) with its label."""
    if hasattr(images, "_images"):  # the reader of `oxford-pets` takes no loader
        return zip(images._images, images._labels, strict=True)
    return (images[index] for index in range(len(images)))


def fetched_folder(name: str) -> Path:
    """The folder of a named data set in the cache folder."""
    return cache_folder() / "datasets" / name


def fetch_published(name: str, say: Say) -> Path:
    """Download a named data set into the cache folder and return its folder, which appears only when complete.

    Fashion-MNIST is also tried from its Debian package. Raises `InputError` where no way works, or where a package
    that reads the data set is missing.
    """
    target, published = fetched_folder(name), PUBLISHED[name]
    # Before the download of gigabytes that could not be read.
    require_packages(published.packages, f"{name} is read by", "datasets")
    ways: list[tuple[str, Callable[[Path], None]]] = [("torchvision", lambda root: _download(published, root))]
    if name == "fashion-mnist" and debian.available():
        ways.append((f"Debian's package {debian.PACKAGE}", lambda root: debian.unpack(root / published.places[0])))
    # Try one way after another.
    failures: list[str] = []
    for way, run in ways:
        say(f"{name}: not on this machine; fetching it through {way}")
        try:
            _into(target, run)
            return target
        except (OSError, RuntimeError, HTTPException, tarfile.TarError) as error:
            reason = str(error).strip().splitlines()
            failures.append(f"{way}: {reason[-1].strip() if reason else type(error).__name__}")
            say(f"{name}: {failures[-1]}")
    raise InputError(
        f"{name} is not on this machine and could not be fetched ({'; '.join(failures)}); put "
        f"train*.parquet and test*.parquet, class folders, or {published.layout} into {target}"
    )


def _into(target: Path, run: Callable[[Path], None]) -> None:
    """Let `run` fill a temporary folder, then rename it to `target`, so that half a data set is never found."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as temporary:
        root = Path(temporary) / "set"
        root.mkdir()
        run(root)
        for archive in [file for file in root.rglob("*") if file.suffix in ARCHIVES]:
            archive.unlink()
        try:
            root.rename(target)  # replaces an empty folder
        except OSError:
            if not any(target.iterdir()):
                raise  # else another process was faster


def _download(published: Published, root: Path) -> None:
    """Download with torchvision, and with what it does not set: a timeout, and archives that stay in their folder."""
    seconds, unpack = socket.getdefaulttimeout(), vars(tarfile.TarFile)["extraction_filter"]
    socket.setdefaulttimeout(NETWORK_SECONDS)
    tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)  # the default from Python 3.14 on
    try:
        for part in PARTS:  # some data sets have a file for each part
            published.reader(root, part, download=True)
    finally:
        socket.setdefaulttimeout(seconds)
        tarfile.TarFile.extraction_filter = unpack
