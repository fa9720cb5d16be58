"""The index of a data set: where each picture is stored, so that it can be read at random. Made once, then kept."""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypedDict

import torch
from filelock import FileLock
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from deepres.data import sources
from deepres.data.division import Division
from deepres.data.listing import PARTS, Content, Listing, Picture, Span, check_label, digest_of, each, numbered
from deepres.data.manifest import Manifest, Strings
from deepres.data.resident import per_class, tell_lacking
from deepres.data.resident_cache import cache_file, write_kept
from deepres.runtime import archive, untrusted
from deepres.runtime.cache_folder import REMEDY
from deepres.runtime.errors import InputError, Say

TENSORS = ("digests", "labels", "file", "offset", "size")


class _Facts(TypedDict):
    classes: list[str]
    fingerprints: list[str]


@dataclass(frozen=True)
class Index:
    """One part of a data set of N pictures, none of them in memory.

    `labels` and `digests` (see `Manifest`) are int64 (N,). Picture i is `size[i]` bytes (all if it is -1) of the file
    `files[file[i]]` from `offset[i]` on; these are int64 (N,) each. `fingerprint` is a SHA-256 over class names, labels
    and encoded bytes, so that the same pictures have the same one in any layout and folder.
    """

    root: Path
    classes: tuple[str, ...]
    fingerprint: str
    names: Strings
    digests: Tensor
    labels: Tensor
    files: Strings
    file: Tensor
    offset: Tensor
    size: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def manifest(self) -> Manifest:
        """Names and digests."""
        return Manifest(self.names, self.digests)

    def label(self, place: int) -> int:
        """The class of one picture."""
        return int(self.labels[place])

    def encoded(self, place: int) -> bytes:
        """The encoded bytes of one picture. Raises `OSError`."""
        path = self.root / self.files[int(self.file[place])]
        return Span(path, int(self.offset[place]), int(self.size[place])).read()


class Parts(NamedTuple):
    """The two parts of a data set."""

    train: Index
    test: Index


def open_index(data: str, say: Say, division: Division = "hash") -> Parts:
    """The training part and the test part of `data`: a folder, `hf:owner/name`, `wds:PATTERN`, or a name.

    One of them may be empty. `division` is the rule for data without a test part.

    The first time, all pictures are read for their digests. Parquet, which cannot be read at random, is then unpacked
    into the cache folder, which takes the space of the pictures once more. Later, only names, sizes and modification
    times of the files are read. Raises `InputError` for data that cannot be found or has a label out of range, for data
    that are not files of pictures, and for a full disk.
    """
    try:
        listing = sources.find_data_set(data, say, division)
        file = cache_file(listing, "index")
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            parts = _read_index(file, listing.root)
            if parts is None:
                parts = _make_index(data, listing, file, say)
                _write_index(file, parts)
        for part, kind in zip(parts, ("training", "test"), strict=True):
            tell_lacking(data, kind, part.classes, part.labels, say)
        return parts
    except (OSError, SafetensorError) as error:
        raise InputError(f"{data} cannot be indexed ({error}); check permissions and free space, or {REMEDY}") from None


def describe_index(name: str, parts: Parts) -> dict[str, Any]:
    """Facts about an indexed data set, ready for JSON."""

    def part(index: Index) -> dict[str, Any]:
        return {"images": len(index), "per_class": per_class(index.labels, index.classes)}

    train, test = parts
    facts = {"name": name, "source": str(train.root), "classes": list(train.classes), "size": "as on disk"}
    return facts | {"train": part(train), "test": part(test), "fingerprint": train.fingerprint}


class Builder:
    """Collects the pictures of one part for their index."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.digests: list[bytes] = []
        self.files: dict[str, int] = {}
        self.rows: list[tuple[int, int, int, int]] = []  # label, number of the file, offset and size
        self.digest = hashlib.sha256()

    def add(self, picture: Picture, span: Span, root: Path, digest: bytes) -> None:
        """Add a picture, which can be read from `span`, and the SHA-256 of its encoded bytes."""
        path = span.path.relative_to(root) if span.path.is_relative_to(root) else span.path
        number = self.files.setdefault(str(path), len(self.files))
        self.names.append(picture.name)
        self.rows.append((picture.label, number, span.offset, span.size))
        self.digests.append(digest)
        self.digest.update(picture.label.to_bytes(8, "little") + digest)

    def index(self, root: Path, classes: tuple[str, ...]) -> Index:
        """The index of all pictures that were added."""
        self.digest.update(json.dumps(classes).encode())
        columns = torch.tensor(self.rows, dtype=torch.int64).view(-1, 4).unbind(1)
        labels, *places = (column.contiguous() for column in columns)
        own = Manifest.of(self.names, self.digests)
        return Index(root, classes, self.digest.hexdigest(), *own, labels, Strings.of(self.files), *places)


def _make_index(data: str, listing: Listing, file: Path, say: Say) -> Parts:
    """The index of all pictures, which are read once. Some layouts are unpacked to a file beside the index `file`."""
    say(f"{data}: indexing, which reads all pictures once")
    # Pictures that are unpacked go to a partial file, renamed once it is complete.
    classes, pictures = listing.scan()
    builders = {part: Builder() for part in PARTS}
    unpacked = file.with_suffix(".pictures")
    partial = unpacked.with_suffix(".partial")
    try:
        with partial.open("wb") as blob:
            for picture, digest in each(pictures, digest_of, say, data, "indexed"):
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
    if classes is None:
        classes = numbered(row[0] for builder in builders.values() for row in builder.rows)
    return Parts(*(builders[part].index(listing.root, classes) for part in PARTS))


def _span(data: str, content: Content, blob: BinaryIO, unpacked: Path) -> Span:
    """Where the picture can be read from. Bytes are written to `blob`, which is `unpacked` later."""
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


def stored(index: Index, part: str) -> dict[str, Tensor]:
    """The tensors of an index for a file, the name of each with `part` before it. `restored` is the way back."""
    tensors: dict[str, Tensor] = {f"{part}.{name}": getattr(index, name) for name in TENSORS}
    for name in ("names", "files"):
        strings = getattr(index, name)
        tensors |= {f"{part}.{name}.text": strings.text, f"{part}.{name}.ends": strings.ends}
    return tensors


def restored(tensor: Callable[[str], Tensor], part: str, root: Path, classes: Sequence[str], fingerprint: str) -> Index:
    """The index of which `tensor(name)` gives the tensors that `stored` has named."""
    names, files = (
        Strings(*(tensor(f"{part}.{name}.{half}") for half in ("text", "ends"))) for name in ("names", "files")
    )
    digests, labels, *spans = (tensor(f"{part}.{name}") for name in TENSORS)
    return Index(root, tuple(classes), fingerprint, names, digests, labels, files, *spans)


def _write_index(file: Path, parts: Parts) -> None:
    tensors = {name: own for part, index in zip(PARTS, parts, strict=True) for name, own in stored(index, part).items()}
    facts = {"classes": parts.train.classes, "fingerprints": [index.fingerprint for index in parts]}
    write_kept(file, tensors, facts)


def _read_index(file: Path, root: Path) -> Parts | None:
    """The kept index; None where there is none, where it is damaged, or where unpacked pictures are missing."""
    if not file.exists():
        return None
    unpacked = file.with_suffix(".pictures")
    try:
        with archive.opened(file) as kept:
            facts = untrusted.decode(kept.metadata()["facts"], _Facts, str(file), own=True)
            parts = Parts(
                *(
                    restored(kept.get_tensor, part, root, facts["classes"], fingerprint)
                    for part, fingerprint in zip(PARTS, facts["fingerprints"], strict=True)
                )
            )
        if any(_lies_in(part.files, unpacked) for part in parts):  # also where the cache folder was moved
            own = Strings.of([str(unpacked)])
            parts = Parts(*(replace(part, files=own) if _lies_in(part.files, unpacked) else part for part in parts))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError, InputError):
        return None
    # The unpacked file must be as long as the index says.
    ends = [int((part.offset + part.size).max()) for part in parts if _lies_in(part.files, unpacked)]
    needed = max(ends, default=0)
    return parts if not needed or (unpacked.is_file() and unpacked.stat().st_size >= needed) else None


def _lies_in(files: Strings, unpacked: Path) -> bool:
    """Whether the pictures are in an unpacked file of this name. A part without pictures has no files."""
    return any(unpacked.name in name for name in files[:1])
