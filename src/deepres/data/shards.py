"""WebDataset tar shards: `0001.jpg` with `0001.cls` or `0001.json`, or class folders put into a tar."""

import contextlib
import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from deepres import untrusted
from deepres.data.layouts import is_picture
from deepres.data.listing import Listing, Part, Picture, Span
from deepres.data.names import Split, split_of
from deepres.data.patterns import expand, files_of
from deepres.data.walk import class_name, composed, is_hidden, names_of
from deepres.errors import InputError
from deepres.files import lines_of, read_text, require_regular

PREFIX = "wds:"
NAMES_FILE = "classnames.txt"
SAMPLE = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)")  # WebDataset's key ends at the first dot of the file's name
BLOCK = 512
MOST_PADDING = 2**24  # empty bytes at the end
MOST_LABEL = 2**20  # bytes of a `.cls` or `.json`
MOST_HEAD = 2**20  # bytes of what a tar says of a member, its long name among it
HEADS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)


class _Head(tarfile.TarInfo):
    """What a tar says of a member, refused where it claims a size that would fill the memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        head = super().frombuf(buf, encoding, errors)
        if head.type in HEADS and head.size > MOST_HEAD:
            raise _DamagedError(f"a member is described by {head.size:,} bytes")
        return head


class _DamagedError(Exception):
    """A tar that is not to be read, and why."""


@dataclass
class _Sample:
    """One picture of a shard; `label` is the number of `.cls` or else of `.json`, or else the name of a class."""

    name: str
    content: Span | None = None
    label: int | str | None = None


@dataclass
class _Shard:
    path: Path
    part: Part
    samples: dict[str, _Sample] = field(default_factory=dict[str, _Sample])


def shard_listing(pattern: str) -> Listing:
    """The pictures of the tar shards that `pattern` names: braces as in a shell, globs, both.

    `data.patterns` says what it names; the order is that of the pattern, of a glob the sorted one. The part is told by
    the word train, test or val in the name of the shard, or else by a folder of that name; without test shards,
    `data.division` divides. Class names are those of the folders in the tars, or of `classnames.txt` beside the first
    shard. Raises `InputError` where no shard is
    found, and where some shards name their part and others not; `read()` raises it for a damaged or compressed shard
    and for a picture without a label.
    """
    splits: dict[Path, Split | None] = {path: split_of(path) for path in _found(pattern)}
    silent = [path for path, split in splits.items() if split is None]
    if silent and len(silent) < len(splits):
        raise InputError(f"{silent[0]} does not say which part it is of, as others do; put train, val or test into it")
    # With Parquet as here, a validation part is the test part where there is no other.
    unused = {path for path, split in splits.items() if split == "val" and "test" in splits.values()}
    part_of: dict[Split | None, Part] = {None: "train", "train": "train", "test": "test", "val": "test"}
    shards = [_Shard(path, part_of[split]) for path, split in splits.items() if path not in unused]
    root = Path(os.path.commonpath([shard.path.parent for shard in shards]))
    names = shards[0].path.with_name(NAMES_FILE)
    files = [shard.path for shard in shards] + [names] * names.is_file()

    divides = all(shard.part == "train" for shard in shards)

    def read() -> tuple[tuple[str, ...] | None, Iterable[Picture]]:
        for shard in shards:
            _read(shard)
        classes = _class_names(shards, names)
        return classes, list(_pictures(shards, root, classes or ()))

    left_out = names_of(path.name for path in unused)
    notes = (f"not used, since there are test shards: {left_out}",) if unused else ()
    return Listing(root, tuple(files), read, divides, notes)


def _found(pattern: str) -> list[Path]:
    """The files of a pattern, each once."""
    if "://" in pattern:
        raise InputError(f"{PREFIX}{pattern}: shards are read from disk; fetch them, and give the files' pattern")
    paths: dict[Path, None] = {}
    for name in expand(str(Path(pattern).expanduser().absolute())):
        found = files_of(name)
        if not found:
            raise InputError(f"{PREFIX}{pattern}: there is no shard {name}; check the pattern")
        paths |= dict.fromkeys(found)
    for path in paths:
        try:
            require_regular(path)
        except OSError as error:
            raise InputError(f"the shard {path} cannot be read ({error.strerror}); mend or remove it") from None
    return list(paths)


def _read(shard: _Shard) -> None:
    """Fill in the samples of a shard from the heads of its members, whose content is not read but for labels."""
    shard.samples.clear()
    end = 0
    try:
        with tarfile.open(shard.path, "r:", tarinfo=_Head) as tar:
            for member in tar:
                end = member.offset_data + (member.size + BLOCK - 1) // BLOCK * BLOCK
                if member.isreg():
                    _take(shard, tar, member)
                elif is_picture(member.name) and not member.isdir() and not _is_hidden(member.name):
                    what = f"a link to {member.linkname}" if member.linkname else "no file"
                    raise InputError(
                        f"{shard.path}: {member.name} is {what}; make the shard with tar --dereference "
                        "--hard-dereference"
                    )
    except (tarfile.TarError, _DamagedError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{shard.path} is not a whole, uncompressed tar shard ({reason}); make it again") from None
    if not _ends_at(shard.path, end):  # where `tarfile` stops at damage, as if all were well
        raise InputError(f"{shard.path} is damaged or cut short after {end:,} bytes; fetch it again")


def _ends_at(file: Path, end: int) -> bool:
    """Whether a tar has members, and after them a little that is empty."""
    rest = file.stat().st_size - end
    return end > 0 and BLOCK <= rest <= MOST_PADDING and not any(Span(file, end, rest).read())


def _is_hidden(member: str) -> bool:
    return any(map(is_hidden, member.removeprefix("./").split("/")))


def _take(shard: _Shard, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    """Enter one member into its sample."""
    name = member.name.removeprefix("./")
    split = SAMPLE.fullmatch(name)
    if split is None or _is_hidden(name):
        return
    if member.issparse():
        raise InputError(f"{shard.path}: {name} is stored as sparse; make the shard without tar --sparse")
    key, ending = split[1], split[2].lower()
    sample = shard.samples.setdefault(key, _Sample(name))
    if is_picture(ending):
        if sample.content is not None:
            raise InputError(
                f"{shard.path} has two pictures of one sample, {sample.name} and {name}; the name of a sample ends "
                "at the first dot"
            )
        sample.name, sample.content = name, Span(shard.path, member.offset_data, member.size)
    elif ending in ("cls", "json"):
        if member.size > MOST_LABEL:
            raise InputError(f"{shard.path}: {name} has {member.size:,} bytes, too many for a label; mend it")
        file = tar.extractfile(member)
        text = file.read() if file else b""
        if ending == "cls":
            try:
                sample.label = int(text)
            except ValueError:
                raise InputError(f"{shard.path}: {name} holds no label, a whole number; mend it") from None
        elif sample.label is None:
            # It may hold what else is known of the picture.
            with contextlib.suppress(InputError, ValueError, TypeError, KeyError, OverflowError):
                sample.label = int(untrusted.decode(text, dict[str, Any], name, own=True)["label"])


def _pictures(shards: list[_Shard], root: Path, classes: tuple[str, ...]) -> Iterator[Picture]:
    numbers = {name: number for number, name in enumerate(classes)}
    for shard in shards:
        place = shard.path.relative_to(root).as_posix()
        for key, sample in shard.samples.items():
            if sample.content is None:
                continue
            label = _label(shard, key, sample)
            if label is None:
                raise InputError(
                    f"{shard.path}: {sample.name} has no label; add {key}.cls, or put it into a class folder"
                )
            number = numbers[label] if isinstance(label, str) else label
            name = sample.name.rpartition("/")[2] if isinstance(label, str) else sample.name
            said = composed(f"{place} {sample.name}")
            yield Picture(said, number, shard.part, sample.content, f"{label}/{name}")


def _label(shard: _Shard, key: str, sample: _Sample) -> int | str | None:
    """The number beside the picture, or else the name of its folder."""
    if sample.label is not None:
        return sample.label
    folder = key.rpartition("/")[0].rpartition("/")[2]
    return class_name(folder, shard.path) if folder else None


def _class_names(shards: list[_Shard], file: Path) -> tuple[str, ...] | None:
    """Names of the class folders where these are the labels, else those of `file`, if it is there."""
    samples = [(shard, *pair) for shard in shards for pair in shard.samples.items() if pair[1].content]
    labels = {_label(*sample) for sample in samples}
    named = sorted(label for label in labels if isinstance(label, str))
    if named and any(isinstance(label, int) for label in labels):
        raise InputError(f"{shards[0].path} and its like give some pictures a number and some only a folder; mend them")
    if named:
        return tuple(named)
    try:
        names = lines_of(read_text(file)) if file.exists() else []
    except (UnicodeDecodeError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not in UTF-8"
        raise InputError(f"{file} cannot be read ({reason}); save it as text, a name a line") from None
    return tuple(class_name(name.strip(), file) for name in names) or None
