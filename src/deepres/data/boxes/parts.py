"""Which image sets of a data set with boxes are trained on, and which are tested on."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deepres.data.boxes.annotations import AnnotatedPicture, Content, Source
from deepres.data.division import Division, divided
from deepres.data.listing import Picture
from deepres.data.part_names import Split, part_name
from deepres.data.sources import RULES
from deepres.runtime.errors import InputError, few

# What the paper calls the sets of PASCAL VOC: trained on, tested on.
SHORT = {
    "07+12": ("2007:trainval,2012:trainval", "2007:test"),
    "07++12": ("2007:trainval,2007:test,2012:trainval", "2012:test"),
}
NOTHING = "none"  # as a test set
CLOSED = "2012:test"  # without public annotations


@dataclass
class Divided:
    """The pictures of both parts, the ids and names of the classes if they are listed, and what is said of it all."""

    train: list[AnnotatedPicture]
    test: list[AnnotatedPicture]
    read: list[Content] = field(default_factory=list[Content])
    notes: list[str] = field(default_factory=list[str])


def divide(source: Source, train_set: str | None, test_set: str | None, division: Division) -> Divided:
    """The parts of a data set. `train_set` and `test_set` name its sets, with commas or plus between them.

    By default the test sets are tested on, where one has boxes, else the validation sets; training and validation sets
    are trained on, as far as they are not tested on. Of several years, the test sets of the first that has any are
    tested on, so that VOC 07 and 12 are the paper's "07+12"; of ImageNet detection, train and val1 are trained on, and
    val2 is tested on, as in Table 12. Data with neither are divided by the rule `division`. Raises `InputError` for a
    set that is not there, and for one to be tested on that has no boxes.
    """
    if train_set is None and test_set is None and source.usual is not None:
        train_set, test_set = source.usual
    if train_set in SHORT:
        train_set, test = SHORT[train_set]
        test_set = test_set or test
    sets = _Sets(source)
    tests, trains = [] if test_set == NOTHING else sets.named(test_set), sets.named(train_set)
    if tests is None or trains is None:
        sets.refuse_editions()
    # The names of the sets decide where none are given.
    if tests is None:
        tests = sets.tested(trains)
    if tests and test_set and not any(picture.objects for picture in sets.annotated(tests)):
        raise _without_boxes(source, test_set)
    if trains is None and test_set is None and not tests:
        return _by_rule(source, sets, division)
    tested = sets.annotated(tests)
    if trains is None:
        known = {picture.file for picture in tested}
        trains = sets.needed(sets.trained(tests), known)
        trained = [picture for picture in sets.annotated(trains) if picture.file not in known]
    else:
        trained = sets.annotated(trains)
        known = {picture.file for picture in trained}
        tested = tested if test_set else [picture for picture in tested if picture.file not in known]
    note = f"trained on {_names(trains)}, tested on {_names(tests)}"
    unused = sets.unused({picture.file for picture in (*trained, *tested)}, {*trains, *tests})
    more = [f"not used: {_names(unused)}"] if unused else []
    return Divided(trained, tested, sets.read(trains, tests), [note, *more])


class _Sets:
    """The sets of a source, each read at most once."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._content = dict[str, Content]()
        self.splits: dict[str, Split] = {}
        for name in source.sets:
            part = part_name(name.rpartition(":")[2])
            if part is not None and part.is_plain and name not in source.apart:
                self.splits[name] = part.split

    def content(self, name: str) -> Content:
        if name not in self._content:
            self._content[name] = self.source.sets[name]()
        return self._content[name]

    def annotated(self, names: Iterable[str]) -> list[AnnotatedPicture]:
        """The pictures of several sets, each once."""
        return list({picture.file: picture for name in names for picture in self.content(name).annotated}.values())

    def refuse_editions(self) -> None:
        """Raise `InputError` where there are train2014 and train2017, which have pictures in common."""
        names = [] if self.source.shared else list(self.splits)
        for split in ("train", "val", "test"):
            same = [name for name in names if self.splits[name] == split and any(map(str.isdecimal, name))]
            if len(same) > 1:
                raise InputError(
                    f"{self.source.root} has {_names(same)}, editions that share pictures; name the set to train on "
                    "and the set to test on"
                )

    def trained(self, tests: Sequence[str]) -> list[str]:
        """The sets to train on by default, as far as they are not tested on; of data that are not divided, all."""
        named = [name for name, split in self.splits.items() if split != "test"]
        return [name for name in (named if self.splits else self.source.sets) if name not in tests]

    def needed(self, names: Iterable[str], known: set[Path]) -> list[str]:
        """Those sets that have pictures, or faults alone, which no other one has; `known` pictures do not count."""
        own = {name: {picture.file for picture in self.content(name).annotated} for name in names}
        seen, needed = set(known), list[str]()
        for name in sorted(own, key=lambda name: (len(own[name] & known), -len(own[name]))):
            needed += [name] * bool(own[name] - seen or (self.content(name).faults and not own[name]))
            seen |= own[name]
        return sorted(needed)

    def unused(self, known: set[Path], used: set[str]) -> list[str]:
        """The sets named after parts, and the pictures in no set, that are not `used` and not all in `known`."""
        apart = [name for name in self.source.sets if (name in self.splits or not name) and name not in used]
        if not self.source.shared:
            return apart
        return [name for name in apart if any(picture.file not in known for picture in self.content(name).annotated)]

    def read(self, *names: Sequence[str]) -> list[Content]:
        """The content of these sets."""
        return [self.content(name) for name in dict.fromkeys(name for some in names for name in some)]

    def named(self, given: str | None) -> list[str] | None:
        """The sets that the user names; None where none are given. Raises `InputError` for one that is not there."""
        if given is None:
            return None
        names = list[str]()
        for name in filter(None, re.split(r"[,+\s]+", given)):
            known = [own for own in self.source.sets if name in (own, own.rpartition(":")[2])]
            if name in self.source.sets:
                known = [name]
            if not known and self.source.year and name.removeprefix(f"{self.source.year}:") in self.source.sets:
                known = [name.removeprefix(f"{self.source.year}:")]
            if not known:
                raise _without_boxes(self.source, name) if name == CLOSED else self._unknown(name)
            names += known
        if not names:
            raise self._unknown(given)
        return names

    def tested(self, trains: list[str] | None) -> list[str]:
        """The sets to test on by default: those that have boxes, and pictures that are not trained on."""
        trained = {picture.file for picture in self.annotated(trains or ())}
        for split in ("test", "val"):
            years: dict[str, list[str]] = {}
            for name, own in self.splits.items():
                if own == split:
                    years.setdefault(name.rpartition(":")[0], []).append(name)
            for names in years.values():
                if any(picture.objects and picture.file not in trained for picture in self.annotated(names)):
                    return names
        return []

    def _unknown(self, name: str) -> InputError:
        have = f"it has {few(self.source.sets)}" if set(self.source.sets) - {""} else "it is not divided into sets"
        return InputError(f"{self.source.root} has no image set {name!r}; {have}")


def _by_rule(source: Source, sets: _Sets, division: Division) -> Divided:
    """Data without a test part, divided by the house's rule: the sets to be trained on, or else all."""
    names = sets.trained(())
    annotated = sets.annotated(names)
    listed = [Picture(picture.name, 0, "train", picture.file, picture.key) for picture in annotated]
    parts = {"train": list[AnnotatedPicture](), "test": list[AnnotatedPicture]()}
    for picture, own in zip(annotated, divided(listed, division), strict=True):
        parts[own.part].append(picture)
    notes = [f"there is no test part with boxes: {RULES[division]}"]
    if unused := sets.unused({picture.file for picture in annotated}, set(names)):
        notes.append(f"not used: {_names(unused)}")
    return Divided(parts["train"], parts["test"], sets.read(names), notes)


def _names(names: Iterable[str]) -> str:
    return " + ".join(name or "pictures in no set" for name in names) or "nothing"


def _without_boxes(source: Source, name: str) -> InputError:
    """The error for a set to be tested on that has no boxes, as VOC 2012's, whose annotations are not public."""
    if name == CLOSED:
        return InputError(
            f"{source.root} has no boxes for VOC 2012's test set, which are not public; train on 07+12, tested on "
            "2007:test, or test on 2012:val, which is trained on, and send detections to the server of the challenge"
        )
    return InputError(
        f"{source.root} has no boxes in the image set {name!r}, on which nothing can be tested; name another"
    )
