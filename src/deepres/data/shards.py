"""WebDataset tar shards: `0001.jpg` with `0001.cls` or `0001.json`, or class folders put into a tar."""

import contextlib
import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from deepres.data.folders import IMAGE_SUFFIXES
from deepres.data.listing import Listing, Part, Picture, Span
from deepres.errors import InputError

PREFIX = "wds:"
NAMES_FILE = "classnames.txt"
SAMPLE = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)")  # WebDataset's key ends at the first dot of the file's name
SPLIT = re.compile(r"(?<![a-z])(train|test|val)(?:ing|id|idate|idation)?(?![a-z])")
BLOCK = 512


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

    `{000..146}` and `{train,val}` are expanded; the order is that of the pattern, of a glob the sorted one. The
    part is told by the word train, test or val in the name of the shard, or else by a folder of that name; without
    test shards, `data.division` divides. Class names are those of the folders in the
    tars, or of `classnames.txt` beside the first shard. Raises `InputError` where no shard is
    found, and where some shards name their part and others not; `read()` raises it for a damaged or compressed shard
    and for a picture without a label.
    """
    paths = _found(pattern)
    silent = [path for path in paths if _split(path) is None]
    if silent and len(silent) < len(paths):
        raise InputError(f"{silent[0]} does not say which part it is of, as others do; put train, val or test into it")
    shards = [_Shard(path, part) for path in paths if (part := _part(path, paths)) is not None]
    root = Path(os.path.commonpath([shard.path.parent for shard in shards]))
    names = shards[0].path.with_name(NAMES_FILE)
    files = [shard.path for shard in shards] + [names] * names.is_file()

    divides = all(shard.part == "train" for shard in shards)

    def read() -> tuple[tuple[str, ...] | None, Iterable[Picture]]:
        for shard in shards:
            _read(shard)
        classes = _class_names(shards, names)
        return classes, list(_pictures(shards, root, classes or ()))

    return Listing(root, tuple(files), read, divides)


def expand(pattern: str) -> list[str]:
    """`pattern` with its braces written out, as a shell does: `a-{08..10}` and `{train,val}`."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if found is None:
        return [pattern]
    ends = re.fullmatch(r"(\d+)\.\.(\d+)", found[1])
    if ends:
        choices = [f"{number:0{len(ends[1])}}" for number in range(int(ends[1]), int(ends[2]) + 1)]
    else:
        choices = found[1].split(",")
    before, after = pattern[: found.start()], pattern[found.end() :]
    return [whole for choice in choices for whole in expand(before + choice + after)]


def _found(pattern: str) -> list[Path]:
    """The files of a pattern, each once."""
    if "://" in pattern:
        raise InputError(f"{PREFIX}{pattern}: shards are read from disk; fetch them, and give the files' pattern")
    paths: dict[Path, None] = {}
    for name in expand(str(Path(pattern).expanduser().absolute())):
        path = Path(name)
        found = sorted(file for file in Path(path.anchor).glob(str(path.relative_to(path.anchor))) if file.is_file())
        if not found:
            raise InputError(f"{PREFIX}{pattern}: there is no shard {name}; check the pattern")
        paths |= dict.fromkeys(found)
    return list(paths)


def _split(path: Path) -> str | None:
    """`train`, `test` or `val`, by the name of the file or else of its folder; None where neither tells."""
    found = SPLIT.search(path.name.lower()) or SPLIT.fullmatch(path.parent.name.lower())
    return found[1] if found else None


def _part(path: Path, paths: list[Path]) -> Part | None:
    """The part of a shard; None of a validation shard where there are test shards, as with Parquet."""
    split = _split(path)
    if split == "val":
        return None if any(_split(other) == "test" for other in paths) else "test"
    return "test" if split == "test" else "train"


def _read(shard: _Shard) -> None:
    """Fill in the samples of a shard from the heads of its members, whose content is not read but for labels."""
    shard.samples.clear()
    end = 0
    try:
        with tarfile.open(shard.path, "r:") as tar:
            for member in tar:
                end = member.offset_data + (member.size + BLOCK - 1) // BLOCK * BLOCK
                if member.isreg():
                    _take(shard, tar, member)
                elif member.islnk() and Path(member.name).suffix.lower() in IMAGE_SUFFIXES:
                    raise InputError(
                        f"{shard.path}: {member.name} is a link to {member.linkname}; make the shard with "
                        "tar --hard-dereference"
                    )
    except (tarfile.TarError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{shard.path} is not a whole, uncompressed tar shard ({reason}); make it again") from None
    if Span(shard.path, end, BLOCK).read() != bytes(BLOCK):  # where `tarfile` stops at damage, as if all were well
        raise InputError(f"{shard.path} is damaged or cut short after {end:,} bytes; fetch it again")


def _take(shard: _Shard, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    """Enter one member into its sample."""
    name = member.name.removeprefix("./")
    split = SAMPLE.fullmatch(name)
    if split is None:
        return
    key, ending = split[1], split[2].lower()
    sample = shard.samples.setdefault(key, _Sample(name))
    if f".{ending.rpartition('.')[2]}" in IMAGE_SUFFIXES:
        if sample.content is not None:
            raise InputError(
                f"{shard.path} has two pictures of one sample, {sample.name} and {name}; the name of a sample ends "
                "at the first dot"
            )
        sample.name, sample.content = name, Span(shard.path, member.offset_data, member.size)
    elif ending in ("cls", "json"):
        file = tar.extractfile(member)
        text = file.read() if file else b""
        if ending == "cls":
            try:
                sample.label = int(text)
            except ValueError:
                raise InputError(f"{shard.path}: {name} holds no label, a whole number; mend it") from None
        elif sample.label is None:
            # It may hold what else is known of the picture.
            with contextlib.suppress(ValueError, TypeError, KeyError, OverflowError):
                sample.label = int(json.loads(text)["label"])


def _pictures(shards: list[_Shard], root: Path, classes: tuple[str, ...]) -> Iterator[Picture]:
    numbers = {name: number for number, name in enumerate(classes)}
    for shard in shards:
        place = shard.path.relative_to(root).as_posix()
        for key, sample in shard.samples.items():
            if sample.content is None:
                continue
            label = _label(key, sample)
            if label is None:
                raise InputError(
                    f"{shard.path}: {sample.name} has no label; add {key}.cls, or put it into a class folder"
                )
            number = numbers[label] if isinstance(label, str) else label
            name = sample.name.rpartition("/")[2] if isinstance(label, str) else sample.name
            yield Picture(f"{place} {sample.name}", number, shard.part, sample.content, f"{label}/{name}")


def _label(key: str, sample: _Sample) -> int | str | None:
    """The number beside the picture, or else the name of its folder."""
    return sample.label if sample.label is not None else key.rpartition("/")[0].rpartition("/")[2] or None


def _class_names(shards: list[_Shard], file: Path) -> tuple[str, ...] | None:
    """Names of the class folders where these are the labels, else those of `file`, if it is there."""
    samples = [(key, sample) for shard in shards for key, sample in shard.samples.items() if sample.content]
    labels = {_label(key, sample) for key, sample in samples}
    named = sorted(label for label in labels if isinstance(label, str))
    if named and any(isinstance(label, int) for label in labels):
        raise InputError(f"{shards[0].path} and its like give some pictures a number and some only a folder; mend them")
    if named:
        return tuple(named)
    try:
        return (tuple(file.read_text(encoding="utf-8").splitlines()) or None) if file.is_file() else None
    except UnicodeDecodeError:
        raise InputError(f"{file} is not in UTF-8; save it so") from None
