"""Published data sets in small, in the archives that torchvision downloads, for a web server on this machine."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision import datasets

import images

SIZES = ((20, 30), (33, 21), (40, 40), (24, 50))  # width and height of pictures in files, in turn


def jpegs(count: int, seed: int = 0) -> list[bytes]:
    """JPEG files of several sizes."""
    files: list[bytes] = []
    for number in range(count):
        stream = io.BytesIO()
        images.picture(seed + number, SIZES[number % len(SIZES)]).save(stream, "JPEG")
        files.append(stream.getvalue())
    return files


def mat(**arrays: Any) -> bytes:
    """A MATLAB file."""
    from scipy.io import savemat

    stream = io.BytesIO()
    savemat(stream, arrays, do_compression=True)
    return stream.getvalue()


def mnist(patch: pytest.MonkeyPatch, address: str) -> dict[str, bytes]:
    """The files of Fashion-MNIST in small, whose layout is the same."""
    files = images.fashion_files()
    patch.setattr(datasets.MNIST, "mirrors", [f"{address}/"])
    patch.setattr(datasets.MNIST, "resources", [(name, images.md5(content)) for name, content in files.items()])
    return files


def svhn(patch: pytest.MonkeyPatch, address: str) -> dict[str, bytes]:
    """Ten digits to train, of which 0 is written as 10, and three to test."""
    files: dict[str, bytes] = {}
    for part, labels in (("train", range(1, 11)), ("test", (3, 10, 1))):
        pixels = np.random.RandomState(0).randint(0, 256, (32, 32, 3, len(labels)), dtype=np.uint8)
        files[f"{part}_32x32.mat"] = mat(X=pixels, y=np.array(labels, dtype=np.uint8)[:, None])
    found = {name.split("_")[0]: [f"{address}/{name}", name, images.md5(files[name])] for name in files}
    patch.setattr(datasets.SVHN, "split_list", found)
    return files


def stl10(patch: pytest.MonkeyPatch, address: str) -> dict[str, bytes]:
    """Three birds and cars to train, two to test."""
    files = {"class_names.txt": b"airplane\nbird\ncar\n"}
    for part, labels in (("train", (2, 3, 2)), ("test", (3, 2)), ("unlabeled", ())):
        shape = (len(labels) or 1, 3, 96, 96)
        files[f"{part}_X.bin"] = np.random.RandomState(len(labels)).randint(0, 256, shape, dtype=np.uint8).tobytes()
        files[f"{part}_y.bin"] = bytes(labels)
    archive = images.tar_gz(files, "stl10_binary")
    patch.setattr(datasets.STL10, "url", f"{address}/stl10_binary.tar.gz")
    patch.setattr(datasets.STL10, "tgz_md5", images.md5(archive))
    for part, names in (("train", ("train_X.bin", "train_y.bin", "unlabeled_X.bin")), ("test", ("test_X.bin",))):
        both = [*names, *["test_y.bin"] * (part == "test")]
        patch.setattr(datasets.STL10, f"{part}_list", [[name, images.md5(files[name])] for name in both])
    return {"stl10_binary.tar.gz": archive}


def imagenette(patch: pytest.MonkeyPatch, address: str) -> dict[str, bytes]:
    """Two classes, three pictures of each to train and one to test."""
    content = iter(jpegs(8))
    files = {
        f"{part}/{wnid}/{number}.jpeg": next(content)
        for part, count in (("train", 3), ("val", 1))
        for wnid in ("n01440764", "n03028079")
        for number in range(count)
    }
    archive = images.tar_gz(files, "imagenette2")
    found = {"full": (f"{address}/imagenette2.tgz", images.md5(archive))}
    patch.setattr(datasets.Imagenette, "_ARCHIVES", found)
    return {"imagenette2.tgz": archive}


def flowers102(patch: pytest.MonkeyPatch, address: str) -> dict[str, bytes]:
    """Ten pictures: 8, 2 and 5 to train, 1 to validate, the others to test; the label of picture i is i."""
    jpg = {f"image_{number:05}.jpg": content for number, content in enumerate(jpegs(10), 1)}
    files = {
        "102flowers.tgz": images.tar_gz(jpg, "jpg"),
        "imagelabels.mat": mat(labels=np.arange(1, 11, dtype=np.uint8)[None]),
        "setid.mat": mat(trnid=np.array([[8, 2, 5]]), valid=np.array([[1, 3]]), tstid=np.array([[4, 6, 7, 9, 10]])),
    }
    kinds = {"image": "102flowers.tgz", "label": "imagelabels.mat", "setid": "setid.mat"}
    patch.setattr(datasets.Flowers102, "_download_url_prefix", f"{address}/")
    found = {kind: (name, images.md5(files[name])) for kind, name in kinds.items()}
    patch.setattr(datasets.Flowers102, "_file_dict", found)
    return files


def oxford_pets(patch: pytest.MonkeyPatch, address: str) -> dict[str, bytes]:
    """Two breeds, two pictures of each to train and one to test."""
    content = iter(jpegs(6))
    names = [f"{breed}_{number}" for number in (1, 2, 3) for breed in ("Abyssinian", "basset_hound")]
    lines = [f"{name} {1 + place % 2} {1 + place % 2} 1\n" for place, name in enumerate(names)]
    lists = {"trainval.txt": "".join(lines[:4]).encode(), "test.txt": "".join(lines[4:]).encode()}
    files = {
        "images.tar.gz": images.tar_gz({f"{name}.jpg": next(content) for name in names}, "images"),
        "annotations.tar.gz": images.tar_gz(lists, "annotations"),
    }
    found = tuple((f"{address}/{name}", images.md5(content)) for name, content in files.items())
    patch.setattr(datasets.OxfordIIITPet, "_RESOURCES", found)
    return files


def food101(patch: pytest.MonkeyPatch, address: str) -> dict[str, bytes]:
    """Two dishes, two pictures of each to train and one to test."""
    content = iter(jpegs(6))
    listed = {
        part: {dish: [f"{dish}/{number}" for number in numbers] for dish in ("apple_pie", "waffles")}
        for part, numbers in (("train", (7, 4)), ("test", (5,)))
    }
    pictures = [name for dishes in listed.values() for names in dishes.values() for name in names]
    files = {f"images/{name}.jpg": next(content) for name in pictures}
    files |= {f"meta/{part}.json": json.dumps(dishes).encode() for part, dishes in listed.items()}
    archive = images.tar_gz(files, "food-101")
    patch.setattr(datasets.Food101, "_URL", f"{address}/food-101.tar.gz")
    patch.setattr(datasets.Food101, "_MD5", images.md5(archive))
    return {"food-101.tar.gz": archive}


SETS = {
    "mnist": mnist,
    "svhn": svhn,
    "stl10": stl10,
    "imagenette": imagenette,
    "flowers102": flowers102,
    "oxford-pets": oxford_pets,
    "food101": food101,
}


def files_below(root: Path) -> Sequence[str]:
    """All files in a folder, as its names for them."""
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def pages(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files as pages of a web server."""
    return {f"/{name}": content for name, content in files.items()}
