"""Matches the classes of networks and of data: by name where both have names, by place where one has none."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from deepres.data.listing import numbered
from deepres.runtime.errors import InputError, Say

Names = Sequence[str]
SHOWN = 10  # names of a list in a sentence
NUMBER = re.compile(r"[0-9]{1,7}")
WORDNET = re.compile(r"n\d{8}")  # as ImageNet's folders are called


@dataclass(frozen=True)
class Classes:
    """Class names, and `whose` they are as error messages say it. Classes without names are called "0", "1", ..."""

    whose: str
    names: tuple[str, ...]

    @property
    def numbers(self) -> bool:
        """Whether the names are just the numbers from 0 to the number of classes - 1, in any order."""
        return self.named_by_numbers and sorted(map(int, self.names)) == list(range(len(self.names)))

    @property
    def named_by_numbers(self) -> bool:
        """Whether every name is a number. Numbers that do not start at 0 (1 to 10) are real names."""
        return all(map(NUMBER.fullmatch, self.names))


@dataclass(frozen=True)
class Match:
    """How the classes of the data and those of the members of an ensemble fit together.

    `classes` are those that are scored: the data's, or all of the members' where the data have only a part of them.
    `labels` gives the place in `classes` of each class of the data, `columns` for each member the column of each class
    in its scores.
    """

    classes: tuple[str, ...]
    labels: list[int]
    columns: list[list[int]]


def classes_of(whose: str, names: Names | None, count: int) -> Classes:
    """The classes of a network or of data that may have no names."""
    return Classes(whose, tuple(names or numbered(range(count))))


def match(data: Names | None, name: str, members: Sequence[Classes], by_place: bool, say: Say) -> Match:
    """Match the classes of `members` with those of the data `name`, which may have only a part of them.

    `data` is None where the data have no class names. Classes are matched by name where both sides have names;
    otherwise, and with `by_place`, by place, and `say` is told. Numbers that do not start at 0 count as names. Raises
    `InputError` where names or numbers of classes differ.
    """
    first = next((member for member in members if not member.numbers), members[0])
    own = [columns(member, first, by_place, say) for member in members]
    wanted = classes_of(name, data, len(first.names))
    found = _places(wanted, first, by_place, say)
    if len(found) < len(first.names):
        say(f"{name} has {len(found):,} of the {len(first.names):,} classes; the scores are over all of them")
        return Match(first.names, found, own)
    shown = first if wanted.numbers else wanted  # names are shown rather than numbers
    order = found if shown is wanted else list(range(len(found)))
    labels = list(range(len(found))) if shown is wanted else found
    return Match(shown.names, labels, [[member[place] for place in order] for member in own])


def columns(member: Classes, first: Classes, by_place: bool, say: Say) -> list[int]:
    """The column of a member's scores for each class of the `first`. Raises `InputError` where they do not match."""
    if member is not first and not by_place and len(member.names) != len(first.names):
        raise _refusal(member, first)
    return _places(first, member, by_place, say)


def head_rows(known: Classes, wanted: Classes, say: Say) -> list[int] | None:
    """The rows of a classifier of the classes `known` for the `wanted` ones; None where a new head must be trained."""
    if len(known.names) == len(wanted.names):
        try:
            return _places(wanted, known, False, say)
        except InputError:
            pass
    kept = len(set(map(_form, wanted.names)) & set(map(_form, known.names)))
    both = f"{listed(wanted.names)}) are not those of the weights ({listed(known.names)}; {kept:,} are in both)"
    say(f"the classes of the data ({both}: a new head is trained")
    return None


def same_names(wanted: Names, known: Names) -> list[int] | None:
    """The place in `known` of each of `wanted`, in any Unicode form; None where one is missing or there twice."""
    ones, others = (list(map(_form, names)) for names in (wanted, known))
    if ones == others:
        return list(range(len(ones)))
    counts, place = Counter(others), {name: number for number, name in enumerate(others)}
    unique = len(set(ones)) == len(ones) and all(counts[name] == 1 for name in ones)
    return [place[name] for name in ones] if unique else None


def listed(names: Names) -> str:
    """Names joined for a sentence; of many names the first ten and their number."""
    return ", ".join(names[:SHOWN]) + f", ... ({len(names):,} in all)" * (len(names) > SHOWN)


def _places(wanted: Classes, known: Classes, by_place: bool, say: Say) -> list[int]:
    """The place in `known` of each of the classes `wanted`. Raises `InputError` where they do not match."""
    # By name.
    found = same_names(wanted.names, known.names)
    many = len(wanted.names)
    # Numbers from 0 stand for any names, but not for other numbers.
    others = wanted.named_by_numbers and known.named_by_numbers and not (wanted.numbers and known.numbers)
    numbers = (wanted.numbers or known.numbers) and not others
    if found is not None and (not by_place or found == list(range(len(known.names)))):
        return found
    # By place, if one side has only numbers, both are ImageNet's, or the user says so.
    imagenet = _is_imagenet(wanted.names) and _is_imagenet(known.names)
    if many != len(known.names) or not (by_place or numbers or imagenet):
        raise _refusal(known, wanted, by_place)
    why = "as --by-place has it"
    if not by_place:
        nameless = wanted if wanted.numbers else known
        why = f"since {nameless.whose} does not name them" if numbers else "since both have ImageNet's"
    say(f"the classes of {known.whose} and {wanted.whose} are taken by their place, {why}")
    # Folders named by numbers are sorted as text (0, 1, 10, 100, ...), so their place is not their number.
    if by_place:
        return list(range(many))
    places = list(map(int, wanted.names)) if wanted.numbers else range(many)
    own = sorted(range(many), key=lambda place: int(known.names[place])) if known.numbers else range(many)
    return [own[place] for place in places]


def _is_imagenet(names: Names) -> bool:
    """Whether these are ImageNet's 1,000 classes in their order, by English names or by WordNet ids."""
    english = names[0].startswith("tench") and names[-1].startswith("toilet tissue")
    return len(names) == 1000 and (english or (list(names) == sorted(names) and all(map(WORDNET.fullmatch, names))))


def _refusal(member: Classes, other: Classes, by_place: bool = False) -> InputError:
    """The error for a member and `other` that do not have the same classes, or as many where they go by place."""
    counts = len(member.names), len(other.names)
    if counts[0] != counts[1] and (by_place or member.numbers or other.numbers):
        return InputError(
            f"{member.whose} knows {counts[0]:,} classes, {other.whose} has {counts[1]:,}; "
            "give what was made for the same"
        )
    known = set(map(_form, member.names))
    missing = [name for name in other.names if _form(name) not in known]
    reason = f"the first lacks {listed(missing)}" if missing else "they are not the same"
    way = ", or --by-place where the same places mean the same classes" * (counts[0] == counts[1])
    return InputError(
        f"{member.whose} knows the classes {listed(member.names)}, and {other.whose} has {listed(other.names)}: "
        f"{reason}; give what was made for the same classes{way}"
    )


def _form(name: str) -> str:
    return unicodedata.normalize("NFC", name)
