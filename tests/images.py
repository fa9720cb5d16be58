"""Small data sets for the tests: pictures, image folders, Parquet files, torchvision's layouts, and a web server."""

import contextlib
import gzip
import hashlib
import io
import json
import pickle
import struct
import tarfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from huggingface_hub import constants, file_download
from PIL import Image
from pyarrow import parquet as pq

CIFAR_FOLDER = "cifar-10-batches-py"


def isolate(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """Give the test its own cache folder and no shared data; return the cache folder."""
    monkeypatch.setenv("DEEPRES_CACHE", str(folder / "cache"))
    monkeypatch.delenv("DEEPRES_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    return folder / "cache"


def use_hub(monkeypatch: pytest.MonkeyPatch, address: str, cache: Path) -> None:
    """Let the hub's client look at an address, with a cache of its own."""
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)  # the copy of 0.36
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)


def picture(seed: int = 0, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Image.Image:
    """A picture of noise, `size` being width and height."""
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], len(mode))
    return Image.fromarray(np.random.RandomState(seed).randint(0, 256, shape, dtype=np.uint8), mode=None)


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def write_folder(root: Path, counts: Mapping[str, int], **how: object) -> Path:
    """An image folder: so many PNG files for each class; `how` goes to `picture`."""
    for number, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for index in range(count):
            picture(100 * number + index, **how).save(root / name / f"{index:03}.png")
    return root


def write_tar(file: Path, members: Mapping[str, bytes]) -> Path:
    """A tar shard of these members."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file


def samples(start: int, count: int, label: str = "cls") -> dict[str, bytes]:
    """WebDataset samples of noise in two classes in turn."""
    members: dict[str, bytes] = {}
    for number in range(start, start + count):
        value = number % 2
        members[f"{number:04}.jpg"] = png(picture(number))
        members[f"{number:04}.{label}"] = json.dumps({"label": value}).encode() if label == "json" else b"%d\n" % value
    return members


def hash_fraction(key: bytes) -> float:
    """The rule of the division of data, written anew: the first eight bytes of SHA-256 as a fraction."""
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big") / 2**64


def keys(label: str, is_test: bool, count: int) -> list[str]:
    """So many keys of pictures that the rule of the division puts into one part."""
    numbered = (f"{label}/{number}" for number in range(1000))
    return [key for key in numbered if (hash_fraction(key.encode()) < 0.2) == is_test][:count]


def write_parquet(
    file: Path,
    contents: Sequence[bytes | None],
    labels: Sequence[object],
    *,
    image: str = "img",
    label: str = "label",
    names: Sequence[str] | None = None,
) -> Path:
    """A Parquet file as the Hugging Face hub has them, small row groups, class names in the schema metadata."""
    rows = [{"bytes": content, "path": None} for content in contents]
    images = pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    table = pa.table({image: images, label: pa.array(labels)})
    if names is not None:
        info = {"info": {"features": {label: {"names": list(names), "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file, row_group_size=4)
    return file


def write_parquet_set(root: Path, train: int = 10, test: int = 4, **how: object) -> Path:
    """`train.parquet` and `test.parquet` of PNG noise in two classes in turn."""
    for start, (part, count) in enumerate({"train": train, "test": test}.items()):
        contents = [png(picture(1000 * start + index)) for index in range(count)]
        write_parquet(root / f"{part}.parquet", contents, [index % 2 for index in range(count)], **how)
    return root


def cifar_files(per_file: int = 2) -> dict[str, bytes]:
    """CIFAR-10 in small: the pickled files of torchvision's layout by name, random pixels, labels in turn."""
    random = np.random.RandomState(0)
    files: dict[str, bytes] = {}
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]:
        pixels = random.randint(0, 256, (per_file, 3072), dtype=np.uint8)
        files[name] = pickle.dumps({"data": pixels, "labels": [index % 10 for index in range(per_file)]})
    files["batches.meta"] = pickle.dumps({"label_names": [f"class{number}" for number in range(10)]})
    return files


def tar_gz(files: Mapping[str, bytes], folder: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def fashion_files(train: int = 4, test: int = 2) -> dict[str, bytes]:
    """Fashion-MNIST in small: the four gzip files by name, the label of image i being i, its pixels all i."""
    files: dict[str, bytes] = {}
    for prefix, count in (("train", train), ("t10k", test)):
        pixels = b"".join(bytes([index]) * 784 for index in range(count))
        images = struct.pack(">IIII", 0x803, count, 28, 28) + pixels
        files[f"{prefix}-images-idx3-ubyte.gz"] = gzip.compress(images)
        labels = struct.pack(">II", 0x801, count) + bytes(range(count))
        files[f"{prefix}-labels-idx1-ubyte.gz"] = gzip.compress(labels)
    return files


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@contextlib.contextmanager
def web(pages: Mapping[str, bytes], headers: Mapping[str, str] | None = None) -> Iterator[str]:
    """A web server of `pages` by path (without the query); other paths are 404. Yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = pages.get(self.path.split("?")[0])
            self.send_response(404 if content is None else 200)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("ETag", f'"{md5(content or b"")}"')
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content or b"")

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
