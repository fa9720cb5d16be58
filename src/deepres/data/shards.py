"""WebDataset tar shards: `0001.jpg` with `0001.cls` or `0001.json`, or class folders put into a tar."""

import contextlib
import os
import posixpath
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Self

from deepres.data.layouts import inner_parts, layout_of
from deepres.data.listing import Listing, Part, Picture, Span
from deepres.data.members import Members
from deepres.data.part_names import Split, is_picture, split_of
from deepres.data.patterns import expand, files_of, missing
from deepres.data.walk import Walk, class_name, composed, is_hidden, names_of
from deepres.runtime import untrusted
from deepres.runtime.errors import InputError, Say, reason_of
from deepres.runtime.files import lines_of, read_text, require_regular

PREFIX = "wds:"
NAMES_FILE = "classnames.txt"
SAMPLE = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)")  # in WebDataset, the name of a sample ends at the first dot
BLOCK = 512
MOST_PADDING = 2**24  # zero bytes at the end
MOST_LABEL = 2**20  # bytes of a `.cls` or `.json`
MOST_HEAD = 2**20  # bytes of the description of a member, as its long name
HEADS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)


class _Head(tarfile.TarInfo):
    """The head of a member of a tar. A description large enough to fill the memory is refused."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        head = super().frombuf(buf, encoding, errors)
        if head.type in HEADS and head.size > MOST_HEAD:
            raise _DamagedError(f"a member is described by {head.size:,} bytes")
        return head


class _DamagedError(Exception):
    """A tar that must not be read, and why."""


@dataclass
class _Sample:
    """One picture of a shard; `label` is the number in its `.cls` file, or else in its `.json` file."""

    name: str
    content: Span | None = None
    label: int | None = None


@dataclass
class _Shard:
    path: Path
    part: Part
    samples: dict[str, _Sample] = field(default_factory=dict[str, _Sample])

    def of_folders(self, are: bool) -> list[str]:
        """The names of the pictures without a number, whose class is their folder, or of those with one."""
        return [own.name for own in self.samples.values() if own.content and (own.label is None) is are]


def shard_listing(pattern: str, say: Say) -> Listing:
    """The pictures of the tar shards of a `pattern` with braces and globs (see `data.patterns`), in its order.

    The word train, test or val in the name of a shard, or else of its folder, says the part. Without test shards,
    `data.division` divides. Classes are the folders in the tars, which `data.layouts` finds as on disk, or are named by
    `classnames.txt` beside the first shard.

    Raises `InputError` where no shard is found, where one of a series is missing, and where only some shards name their
    part. `scan()` raises it for a damaged or compressed shard, for one with both parts in it, and for a picture without
    a label; it tells `say` what is left out.
    """
    # Find the shards and their parts.
    splits: dict[Path, Split | None] = {path: split_of(path) for path in _found(pattern)}
    silent = [path for path, split in splits.items() if split is None]
    if silent and len(silent) < len(splits):
        raise InputError(f"{silent[0]} does not say which part it is of, as others do; put train, val or test into it")
    # As with Parquet, a validation part is the test part where there is no other.
    unused = {path for path, split in splits.items() if split == "val" and "test" in splits.values()}
    part_of: dict[Split | None, Part] = {None: "train", "train": "train", "test": "test", "val": "test"}
    shards = [_Shard(path, part_of[split]) for path, split in splits.items() if path not in unused]
    root = Path(os.path.commonpath([shard.path.parent for shard in shards]))
    names = shards[0].path.with_name(NAMES_FILE)
    files = [shard.path for shard in shards] + [names] * names.is_file()
    divides = all(shard.part == "train" for shard in shards)

    def scan() -> tuple[tuple[str, ...] | None, Iterable[Picture]]:
        left_out = Walk()
        for shard in shards:
            _scan(shard, left_out)
        whole = Path(f"{PREFIX}{pattern}")
        folders, told = _folders(shards, whole)
        for note in (*told, *left_out.notes()):
            say(f"{whole}: {note}")
        classes = _class_names(shards, folders, names)
        return classes, list(_pictures(shards, root, folders, classes or ()))

    unread = names_of(path.name for path in unused)
    notes = (f"not used, since there are test shards: {unread}",) if unused else ()
    return Listing(root, tuple(files), scan, divides, notes)


def _found(pattern: str) -> list[Path]:
    """The files of a pattern, each once. Raises `InputError` where one is missing or not a regular file."""
    if "://" in pattern:
        raise InputError(f"{PREFIX}{pattern}: shards are read from disk; fetch them, and give the files' pattern")
    paths: dict[Path, None] = {}
    every = expand(str(Path(pattern).expanduser().absolute()))
    for name in every:
        found = files_of(name)
        if not found:
            raise InputError(f"{PREFIX}{pattern}: there is no shard {name}; check the pattern")
        paths |= dict.fromkeys(found)
    asked = {Path(name).name for name in every}
    if lost := [path.name for path in missing(paths) if any(fnmatchcase(path.name, name) for name in asked)]:
        raise InputError(f"{PREFIX}{pattern} lacks {names_of(lost)} of the shards that its names count; fetch them")
    for path in paths:
        try:
            require_regular(path)
        except OSError as error:
            raise InputError(f"the shard {path} cannot be read ({error.strerror}); mend or remove it") from None
    return list(paths)


def _scan(shard: _Shard, left_out: Walk) -> None:
    """Set the samples of a shard, from the heads of its members. Of their contents only labels are read."""
    shard.samples.clear()
    end = 0
    try:
        with tarfile.open(shard.path, "r:", tarinfo=_Head) as tar:
            for member in tar:
                end = member.offset_data + (member.size + BLOCK - 1) // BLOCK * BLOCK
                if member.isreg():
                    _enter(shard, tar, member, left_out)
                elif is_picture(member.name) and not member.isdir() and not _is_hidden(member.name):
                    what = f"a link to {member.linkname}" if member.linkname else "no file"
                    raise InputError(
                        f"{shard.path}: {member.name} is {what}; make the shard with tar --dereference "
                        "--hard-dereference"
                    )
    except (tarfile.TarError, _DamagedError, OSError) as error:
        reason = reason_of(error)
        raise InputError(f"{shard.path} is not a whole, uncompressed tar shard ({reason}); make it again") from None
    if not _ends_at(shard.path, end):  # `tarfile` stops at damage without an error
        raise InputError(f"{shard.path} is damaged or cut short after {end:,} bytes; fetch it again")


def _ends_at(file: Path, end: int) -> bool:
    """Whether a tar has members, and only a few zero bytes after them."""
    rest = file.stat().st_size - end
    return end > 0 and BLOCK <= rest <= MOST_PADDING and not any(Span(file, end, rest).read())


def _is_hidden(member: str) -> bool:
    return any(map(is_hidden, _normal(member).split("/")))


def _normal(member: str) -> str:
    """The name of a member without `./` and `a/../`."""
    return posixpath.normpath(member).lstrip("/")


def _enter(shard: _Shard, tar: tarfile.TarFile, member: tarfile.TarInfo, left_out: Walk) -> None:
    """Enter one member into its sample, or into `left_out`."""
    # Leave out what is hidden or no part of a sample.
    name = _normal(member.name)
    if _is_hidden(name):
        left_out.hidden.add(f"{shard.path}/{name}")
        return
    split = SAMPLE.fullmatch(name)
    if split is None or not (is_picture(split[2]) or split[2].lower() in ("cls", "json")):
        left_out.unread[Path(name).suffix.lower()] += 1
        return
    if member.issparse():
        raise InputError(f"{shard.path}: {name} is stored as sparse; make the shard without tar --sparse")
    # A picture, or a label.
    key, ending = split[1], split[2].lower()
    sample = shard.samples.setdefault(key, _Sample(name))
    if is_picture(ending):
        if sample.content is not None:
            raise InputError(
                f"{shard.path} has two pictures of one sample, {sample.name} and {name}; the name of a sample ends "
                "at the first dot"
            )
        sample.name, sample.content = name, Span(shard.path, member.offset_data, member.size)
    else:
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
            # A `.json` file may hold other facts than the label.
            with contextlib.suppress(InputError, ValueError, TypeError, KeyError, OverflowError):
                sample.label = int(untrusted.decode(text, dict[str, Any], name, own=True)["label"])


def _folders(shards: list[_Shard], whole: Path) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """The class of each picture without a number, with its name in the class, by the layout of folders; and notes.

    Raises `InputError` for a picture in no folder, for unclear classes, and for the folder of a part in shards that are
    named after the other part.
    """
    found: dict[str, tuple[str, str]] = {}
    notes: list[str] = []
    for part in ("train", "test"):
        # Pictures with a number must not be in folders of another part; the others must be in folders.
        own = [shard for shard in shards if shard.part == part]
        walk = Members(whole, (name for shard in own for name in shard.of_folders(False)))
        parts = inner_parts(whole, walk)
        _require_part(whole, part, parts.get(True), parts.get(False))
        for shard in own:
            if alone := next((name for name in shard.of_folders(True) if "/" not in name), None):
                key = alone.partition(".")[0]
                raise InputError(f"{shard.path}: {alone} has no label; add {key}.cls, or put it into a class folder")
        # The classes of the others, as if the folders were on disk.
        walk = Members(whole, (name for shard in own for name in shard.of_folders(True)))
        if not walk.folders_inside(whole):
            continue
        layout = layout_of(whole, walk)
        train, test = (next((own[0] for own in (side or {}).values()), None) for side in (layout.train, layout.test))
        _require_part(whole, part, train, test)
        for name, folders in (layout.train or layout.test or {}).items():
            for folder in folders:
                inside = str(folder.relative_to(whole))
                found |= {member: (name, name + member.removeprefix(inside)) for member in walk.below(folder)}
        beside = [file.name for file in layout.beside]
        notes += layout.notes
        notes += [f"not read, since they lie beside the class folders: {names_of(beside)}"] if beside else []
    return found, notes


def _require_part(whole: Path, part: Part, train: Path | None, test: Path | None) -> None:
    """Raise `InputError` where shards of one part have the folder of the other part in them."""
    if test is not None and (part == "train" or train is not None):
        raise InputError(
            f"{whole} has a part of its own in {test.relative_to(whole)}/, and a shard is of the part that its name "
            "tells; make a tar of each part, as train-0.tar and test-0.tar"
        )


def _pictures(
    shards: list[_Shard], root: Path, folders: dict[str, tuple[str, str]], classes: tuple[str, ...]
) -> Iterator[Picture]:
    """The pictures that have a label, by their number or by their class folder."""
    numbers = {name: number for number, name in enumerate(classes)}
    for shard in shards:
        place = shard.path.relative_to(root).as_posix()
        for sample in shard.samples.values():
            if sample.content is None or (sample.label is None and sample.name not in folders):
                continue
            if sample.label is None:
                label, key = folders[sample.name]
                number = numbers[label]
            else:
                number, key = sample.label, f"{sample.label}/{sample.name}"
            yield Picture(composed(f"{place} {sample.name}"), number, shard.part, sample.content, key)


def _class_names(shards: list[_Shard], folders: dict[str, tuple[str, str]], file: Path) -> tuple[str, ...] | None:
    """The class folders where pictures are labelled by them, else the lines of `file`, else None."""
    named = sorted({name for name, _ in folders.values()})
    if named and any(shard.of_folders(False) for shard in shards):
        raise InputError(f"{shards[0].path} and its like give some pictures a number and some only a folder; mend them")
    if named:
        return tuple(named)
    try:
        names = lines_of(read_text(file)) if file.exists() else []
    except (UnicodeDecodeError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not in UTF-8"
        raise InputError(f"{file} cannot be read ({reason}); save it as text, a name a line") from None
    return tuple(class_name(name.strip(), file) for name in names) or None
