"""Patterns of file names as in a shell: globs, and braces, whose names are counted before they are made."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import chain, product
from math import prod
from pathlib import Path

from deepres.data.walk import Walk, on_disk
from deepres.runtime.errors import InputError

MOST_NAMES = 100_000
COUNTED = 10**15  # names are counted up to this many
MOST_LEVELS = 20  # of nested braces
RANGE = re.compile(r"(-?\d{1,18})\.\.(-?\d{1,18})(?:\.\.(-?\d{1,18}))?")
MAGIC = re.compile(r"[*?[]")
ANY_DEPTH = "**"
PART_OF = re.compile(r"(.*?)(\d{1,6})-of-(\d{1,6})(?!\d).*")


@dataclass
class _Choice:
    """The content of braces: alternative sequences, or a range of numbers that are as wide as the first one."""

    sequences: "list[_Sequence]"
    numbers: range | None = None
    width: int = 0

    def count(self) -> int:
        return sum(map(_count, self.sequences)) if self.numbers is None else len(self.numbers)

    def names(self) -> Iterable[str]:
        if self.numbers is not None:
            return (f"{number:0{self.width}}" for number in self.numbers)
        return chain.from_iterable(map(_names, self.sequences))


_Sequence = list[str | _Choice]  # pieces one after another


def _count(sequence: _Sequence) -> int:
    return min(COUNTED, prod(piece.count() for piece in sequence if isinstance(piece, _Choice)))


def _names(sequence: _Sequence) -> Iterable[str]:
    return map("".join, product(*([piece] if isinstance(piece, str) else piece.names() for piece in sequence)))


def expand(pattern: str) -> list[str]:
    """All names of a pattern with braces, as a shell makes them: `a-{08..10}`, `{train,val}`, `{a,b{1..3}}`.

    Raises `InputError` for more than `MOST_NAMES` names, before they are made, and for deeply nested braces.
    """
    parsed = _parsed(pattern)
    if (count := _count(parsed)) > MOST_NAMES:
        many = f"{count:,}" if count < COUNTED else f"{COUNTED:,} or more"
        raise InputError(f"{_short(pattern)} makes {many} names, where {MOST_NAMES:,} are allowed; give a glob with *")
    return list(_names(parsed))


def files_of(pattern: str) -> list[Path]:
    """The files of a glob without braces, sorted: `*`, `?`, `[ab]`, and `**` for folders at any depth.

    Hidden and tool-made entries match only where the pattern has their exact name. Links are followed.
    """
    path = on_disk(Path(pattern))
    return [found for found in _matches(Path(path.anchor), path.parts[1:], Walk()) if not found.is_dir()]


def _matches(place: Path, parts: Sequence[str], walk: Walk) -> Iterator[Path]:
    """The paths in `place` that match the parts of a pattern, in sorted order."""
    if not parts:
        yield place
        return
    first, rest = parts[0], parts[1:]
    if first == ANY_DEPTH:
        for folder in dict.fromkeys(walk.folders_below(place)):
            yield from _matches(folder, rest or ("*",), walk)
    elif not MAGIC.search(first):
        if (place / first).exists() or (place / first).is_symlink():
            yield from _matches(place / first, rest, walk)
    elif place.is_dir():
        folders, files = walk.inside(place)
        for path in sorted(folders if rest else (*folders, *files)):
            if fnmatchcase(path.name, first):
                yield from _matches(path, rest, walk)


def missing(files: Iterable[Path]) -> list[Path]:
    """The missing files of numbered series, sorted: of `train-00000-of-00002` and the like, from 0 or 1 on."""
    found: dict[tuple[Path, str, str, str], dict[int, str]] = {}
    for file in files:
        if part := PART_OF.fullmatch(file.name):
            found.setdefault((file.parent, part[1], part[3], file.suffix), {})[int(part[2])] = part[2]
    lost: list[Path] = []
    for (folder, before, total, after), numbers in found.items():
        start, width = int(0 not in numbers and int(total) in numbers), len(next(iter(numbers.values())))
        wanted = (number for number in range(start, start + int(total)) if number not in numbers)
        lost += [folder / f"{before}{number:0{width}}-of-{total}{after}" for number in wanted]
    return sorted(lost)


def _parsed(pattern: str) -> _Sequence:
    """The braces of a pattern as a tree. A brace without its partner is text."""
    whole: _Sequence = [""]
    open_ones: list[tuple[_Sequence, _Choice]] = []  # for each open brace the sequence around it, and its choice
    now = whole
    for sign in re.findall(r"[{},]|[^{},]+", pattern):
        if sign == "{":
            if len(open_ones) >= MOST_LEVELS:
                raise InputError(f"{_short(pattern)} has braces nested more than {MOST_LEVELS} deep; write it out")
            choice = _Choice([[""]])
            open_ones.append((now, choice))
            now = choice.sequences[0]
        elif sign == "," and open_ones:
            now = _Sequence()
            open_ones[-1][1].sequences.append(now)
        elif sign == "}" and open_ones:
            around, choice = open_ones.pop()
            around.append(_ranged(choice))
            now = around
        else:
            now.append(sign)
    while open_ones:  # a brace that is never closed
        now, choice = open_ones.pop()
        now.append("{")
        for number, sequence in enumerate(choice.sequences):
            now += [*[","] * (number > 0), *sequence]
    return whole


def _ranged(choice: _Choice) -> _Choice:
    """The choice as a range of numbers if it is written as one, else unchanged."""
    if len(choice.sequences) > 1 or not all(isinstance(piece, str) for piece in choice.sequences[0]):
        return choice
    found = RANGE.fullmatch("".join(map(str, choice.sequences[0])))
    if found is None:
        return choice
    first, last, step = int(found[1]), int(found[2]), abs(int(found[3] or 1)) or 1
    way = 1 if last >= first else -1
    return _Choice([], range(first, last + way, way * step), len(found[1]))


def _short(pattern: str) -> str:
    return pattern if len(pattern) <= 80 else f"{pattern[:80]}..."
