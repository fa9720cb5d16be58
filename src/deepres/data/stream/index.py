"""Where each picture of a data set lies, so that any of them can be read at random: made once, then kept."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypedDict, overload

import torch
from filelock import FileLock
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from deepres import untrusted
from deepres.data import sources
from deepres.data.cache import cache_file
from deepres.data.listing import Content, Listing, Part, Picture, Say, Span, check_label, each, numbered
from deepres.errors import InputError
from deepres.files import DAY, replacing, sweep

PARTS: tuple[Part, ...] = ("train", "test")


class _Facts(TypedDict):
    classes: list[str]
    fingerprints: list[str]


@dataclass(frozen=True)
class Strings(Sequence[str]):
    """Many short strings in two tensors: UTF-8 `text` uint8 and `ends` int64 (N,).

    A list of a million takes ten times the memory, and worker processes would copy it.
    """

    text: Tensor
    ends: Tensor

    @classmethod
    def of(cls, strings: Iterable[str]) -> "Strings":
        """The same strings, packed."""
        parts = [os.fsencode(string) for string in strings]
        lengths = torch.tensor([len(part) for part in parts], dtype=torch.int64)
        return cls(torch.frombuffer(bytearray(b"".join(parts) or b"\0"), dtype=torch.uint8), lengths.cumsum(0))

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        if not 0 <= place < len(self):
            raise IndexError(place)
        start = int(self.ends[place - 1]) if place else 0
        return os.fsdecode(self.text[start : int(self.ends[place])].numpy().tobytes())


@dataclass(frozen=True)
class Index:
    """One part of a data set of N pictures, none of them read.

    `labels` int64 (N,); picture i is `size[i]` bytes (all where -1) of the file `files[file[i]]` from `offset[i]`
    on, int64 (N,) each. `fingerprint` is a SHA-256 over class names, labels and encoded bytes: the same pictures
    give the same one in whichever layout and place.
    """

    root: Path
    classes: tuple[str, ...]
    fingerprint: str
    names: Strings
    labels: Tensor
    files: Strings
    file: Tensor
    offset: Tensor
    size: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, place: int) -> bytes:
        """The encoded bytes of one picture. Raises `OSError`."""
        path = self.root / self.files[int(self.file[place])]
        return Span(path, int(self.offset[place]), int(self.size[place])).read()


class Parts(NamedTuple):
    """The two parts of a data set."""

    train: Index
    test: Index


def open_index(data: str, say: Say) -> Parts:
    """The training part and the test part of `data`: a folder, `hf:owner/name`, `wds:PATTERN`, or a name.

    The first time all of it is read once, to know its content; Parquet, which cannot be read at random, is unpacked
    then into the cache folder, which takes the space of the pictures again. Later only names, sizes and times of the
    files are looked at. Raises `InputError` for data that cannot be found or has a label out of range, for sets that
    are not files of pictures, and for a full disk.
    """
    try:
        listing = sources.find(data, say)
        file = cache_file(listing, "index")
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            parts = _load(file, listing.root)
            if parts is None:
                parts = _build(data, listing, file, say)
                _save(file, parts)
        return parts
    except (OSError, SafetensorError) as error:
        raise InputError(f"{data} cannot be indexed ({error}); check permissions and free space") from None


def describe(name: str, parts: Parts) -> dict[str, Any]:
    """What there is to know of an indexed data set, ready for JSON."""

    def part(index: Index) -> dict[str, Any]:
        counts = index.labels.bincount(minlength=len(index.classes)).tolist()
        return {"images": len(index), "per_class": dict(zip(index.classes, counts, strict=True))}

    train, test = parts
    facts = {"name": name, "source": str(train.root), "classes": list(train.classes), "size": "as on disk"}
    return facts | {"train": part(train), "test": part(test), "fingerprint": train.fingerprint}


class _Builder:
    """Collects the entries of one part."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.labels: list[int] = []
        self.files: dict[str, int] = {}
        self.spans: list[tuple[int, int, int]] = []
        self.digest = hashlib.sha256()

    def add(self, picture: Picture, span: Span, root: Path, content: bytes) -> None:
        path = span.path.relative_to(root) if span.path.is_relative_to(root) else span.path
        number = self.files.setdefault(str(path), len(self.files))
        self.names.append(picture.name)
        self.labels.append(picture.label)
        self.spans.append((number, span.offset, span.size))
        self.digest.update(picture.label.to_bytes(8, "little") + content)

    def finish(self, root: Path, classes: tuple[str, ...]) -> Index:
        self.digest.update(json.dumps(classes).encode())
        spans = torch.tensor(self.spans, dtype=torch.int64).view(-1, 3).unbind(1)
        labels = torch.tensor(self.labels, dtype=torch.int64)
        files = Strings.of(self.files)
        places = (span.contiguous() for span in spans)
        return Index(root, classes, self.digest.hexdigest(), Strings.of(self.names), labels, files, *places)


def _build(data: str, listing: Listing, file: Path, say: Say) -> Parts:
    """Go through all pictures once; `file` tells where pictures are unpacked to, if they have to be."""
    say(f"{data}: indexing, which reads all pictures once")
    classes, pictures = listing.read()
    builders = {part: _Builder() for part in PARTS}
    unpacked = file.with_suffix(".pictures")
    partial = unpacked.with_suffix(".partial")
    try:
        with partial.open("wb") as blob:
            for picture, digest in each(pictures, _digest, say, data, "indexed"):
                check_label(listing.root, picture, classes)
                span = _span(data, picture.content, blob, unpacked)
                builders[picture.part].add(picture, span, listing.root, digest)
            written = blob.tell()
            blob.flush()
            os.fsync(blob.fileno())
        if written:
            partial.replace(unpacked)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    for part, builder in builders.items():
        if not builder.labels:
            raise InputError(f"{listing.root} has no {part} pictures; a class needs five to give one to the test set")
    if classes is None:
        classes = numbered(label for builder in builders.values() for label in builder.labels)
    return Parts(*(builders[part].finish(listing.root, classes) for part in PARTS))


def _span(data: str, content: Content, blob: BinaryIO, unpacked: Path) -> Span:
    """Where the picture can be read from, which for bytes is the end of `blob`, later called `unpacked`."""
    if isinstance(content, Span):
        return content
    if isinstance(content, Path):
        return Span(content)
    if isinstance(content, Image.Image):
        raise InputError(
            f"{data} has its pixels in a file of its own, from which no crops are taken; give a folder, Parquet or tar "
            "shards, or --image-size for whole images"
        )
    return Span(unpacked, blob.tell(), blob.write(content))


def _digest(picture: Picture) -> bytes:
    """SHA-256 of the encoded bytes; of a file that cannot be read that of none: whoever reads it names it."""
    content = picture.content
    try:
        if isinstance(content, Path):
            content = content.read_bytes()
        elif isinstance(content, Span):
            content = content.read()
    except OSError:
        content = b""
    return hashlib.sha256(content if isinstance(content, bytes) else b"").digest()


def _save(file: Path, parts: Parts) -> None:
    tensors: dict[str, Tensor] = {}
    for part, index in zip(PARTS, parts, strict=True):
        tensors |= {f"{part}.{name}": getattr(index, name) for name in ("labels", "file", "offset", "size")}
        for name in ("names", "files"):
            strings = getattr(index, name)
            tensors |= {f"{part}.{name}.text": strings.text, f"{part}.{name}.ends": strings.ends}
    facts = {"classes": parts.train.classes, "fingerprints": [index.fingerprint for index in parts]}
    sweep(file.parent, DAY)
    with replacing(file) as partial:
        save_file(tensors, partial, {"facts": json.dumps(facts)})


def _load(file: Path, root: Path) -> Parts | None:
    """The kept index; None where there is none, where it is damaged, or where the unpacked pictures are gone."""
    if not file.exists():
        return None
    unpacked = file.with_suffix(".pictures")
    try:
        with safe_open(file, framework="pt") as stored:
            facts = untrusted.decode(stored.metadata()["facts"], _Facts, str(file), own=True)

            def index(part: str, fingerprint: str) -> Index:
                names, files = (
                    Strings(*(stored.get_tensor(f"{part}.{name}.{half}") for half in ("text", "ends")))
                    for name in ("names", "files")
                )
                if unpacked.name in files[0]:  # wherever the cache folder was then
                    files = Strings.of([str(unpacked)])
                labels, *spans = (stored.get_tensor(f"{part}.{name}") for name in ("labels", "file", "offset", "size"))
                return Index(root, tuple(facts["classes"]), fingerprint, names, labels, files, *spans)

            parts = Parts(*map(index, PARTS, facts["fingerprints"]))
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, InputError):
        return None
    needed = max((int((part.offset + part.size).max()) for part in parts if unpacked.name in part.files[0]), default=0)
    return parts if not needed or (unpacked.is_file() and unpacked.stat().st_size >= needed) else None
