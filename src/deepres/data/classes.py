"""Class names of networks and of data, brought together: by name where they agree, by place where there are none."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from deepres.data.listing import numbered
from deepres.runtime.errors import InputError
from deepres.runtime.say import Say

Names = Sequence[str]
SHOWN = 10  # names of a list in a sentence
NUMBER = re.compile(r"[0-9]{1,7}")
WORDNET = re.compile(r"n\d{8}")  # as ImageNet's folders are called


@dataclass(frozen=True)
class Classes:
    """Classes and whose they are, in a sentence; where nothing names them, they are called "0", "1", ..."""

    whose: str
    names: tuple[str, ...]

    @property
    def numbers(self) -> bool:
        """Whether these are no names, but the numbers from 0 of so many classes, in whatever order."""
        return self.named_by_numbers and sorted(map(int, self.names)) == list(range(len(self.names)))

    @property
    def named_by_numbers(self) -> bool:
        """Whether each of these is a number, as 1 to 10, which are names where they are not those from 0."""
        return all(map(NUMBER.fullmatch, self.names))


@dataclass(frozen=True)
class Match:
    """The classes that are scored, where among them each class of the data is, and where each member has its scores.

    `classes` are the data's in their order, or where these are a part of them, all that the members know.
    """

    classes: tuple[str, ...]
    labels: list[int]
    columns: list[list[int]]


def classes_of(whose: str, names: Names | None, count: int) -> Classes:
    """The classes of a network or of data that may have no names."""
    return Classes(whose, tuple(names or numbered(range(count))))


def match(data: Names | None, name: str, members: Sequence[Classes], by_place: bool, say: Say) -> Match:
    """The classes of `members` and of the data `name` that they are tested on, which may have a part of theirs.

    `data` is None where nothing names its classes. Names count where both have some, numbers that are not those from 0
    among them; else, and with `by_place`, classes are taken by their place, which `say` hears. Raises `InputError`
    where names or counts differ.
    """
    first = next((member for member in members if not member.numbers), members[0])
    own = [columns(member, first, by_place, say) for member in members]
    wanted = classes_of(name, data, len(first.names))
    found = _places(wanted, first, by_place, say)
    if len(found) < len(first.names):
        say(f"{name} has {len(found):,} of the {len(first.names):,} classes; the scores are over all of them")
        return Match(first.names, found, own)
    shown = first if wanted.numbers else wanted  # whose names are the better ones
    order = found if shown is wanted else list(range(len(found)))
    labels = list(range(len(found))) if shown is wanted else found
    return Match(shown.names, labels, [[member[place] for place in order] for member in own])


def columns(member: Classes, first: Classes, by_place: bool, say: Say) -> list[int]:
    """Where a member has its score of each class of the `first`. Raises `InputError` where names or counts differ."""
    if member is not first and not by_place and len(member.names) != len(first.names):
        raise _refusal(member, first)
    return _places(first, member, by_place, say)


def head_rows(known: Classes, wanted: Classes, say: Say) -> list[int] | None:
    """Which rows of a head that knows the classes `known` are those of the `wanted`; None where it takes a new head."""
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
    """Where `known` has each of `wanted`, whatever their Unicode form; None where it lacks one, or has one twice."""
    ones, others = (list(map(_form, names)) for names in (wanted, known))
    if ones == others:
        return list(range(len(ones)))
    counts, place = Counter(others), {name: number for number, name in enumerate(others)}
    unique = len(set(ones)) == len(ones) and all(counts[name] == 1 for name in ones)
    return [place[name] for name in ones] if unique else None


def listed(names: Names) -> str:
    """Names in a sentence, the first of many with their number."""
    return ", ".join(names[:SHOWN]) + f", ... ({len(names):,} in all)" * (len(names) > SHOWN)


def _places(wanted: Classes, known: Classes, by_place: bool, say: Say) -> list[int]:
    """Where `known` has each of the classes `wanted`."""
    found = same_names(wanted.names, known.names)
    many = len(wanted.names)
    # Numbers from 0 stand for any names, but not for other numbers.
    others = wanted.named_by_numbers and known.named_by_numbers and not (wanted.numbers and known.numbers)
    numbers = (wanted.numbers or known.numbers) and not others
    if found is not None and (not by_place or found == list(range(len(known.names)))):
        return found
    imagenet = _is_imagenet(wanted.names) and _is_imagenet(known.names)
    if many != len(known.names) or not (by_place or numbers or imagenet):
        raise _refusal(known, wanted)
    why = "as --by-place has it"
    if not by_place:
        nameless = wanted if wanted.numbers else known
        why = f"since {nameless.whose} does not name them" if numbers else "since both have ImageNet's"
    say(f"the classes of {known.whose} and {wanted.whose} are taken by their place, {why}")
    # Folders that are called by numbers lie in the order of text: 0, 1, 10, 100, ...
    if by_place:
        return list(range(many))
    places = list(map(int, wanted.names)) if wanted.numbers else range(many)
    own = sorted(range(many), key=lambda place: int(known.names[place])) if known.numbers else range(many)
    return [own[place] for place in places]


def _is_imagenet(names: Names) -> bool:
    """Whether these are ImageNet's thousand in their order, in English or by their numbers in WordNet."""
    english = names[0].startswith("tench") and names[-1].startswith("toilet tissue")
    return len(names) == 1000 and (english or (list(names) == sorted(names) and all(map(WORDNET.fullmatch, names))))


def _refusal(member: Classes, other: Classes) -> InputError:
    """The error where a member and `other` do not have the same classes."""
    counts = len(member.names), len(other.names)
    if counts[0] != counts[1] and (member.numbers or other.numbers):
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
