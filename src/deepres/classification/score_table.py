"""Softmax scores of test images in a file, evaluated or joined to an ensemble later without the networks."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

import torch
from safetensors import SafetensorError
from safetensors.torch import save as to_bytes
from torch import Tensor

from deepres.classification.accuracy import Scores
from deepres.classification.ensemble import average, member_weights
from deepres.data.classes import Classes, columns
from deepres.data.pictures import Tested
from deepres.records import Json
from deepres.runtime import archive, untrusted
from deepres.runtime.errors import InputError, Say, silent
from deepres.runtime.files import replacing

HEADER = "deepres.scores"
ANEW = "write it again with --save-scores"
MOST_BYTES = 2**31  # a score in JSON takes some twenty
WRONG = ("image", "true", "predicted", "score", "score_of_true")


class _Member(TypedDict):
    network: str
    weights: str
    protocol: str


class _Header(TypedDict):
    """The fields of a file's header that are read; it may hold more."""

    data: str
    names: list[str]
    classes: list[str]
    skipped: list[str]
    members: list[_Member]


@dataclass(frozen=True)
class Member:
    """One network's softmax scores (N, K), float32, and facts about it: weights, network, protocol, ..."""

    facts: Json
    scores: Tensor


@dataclass(frozen=True)
class ScoreTable:
    """The scores of members for N images of the data set `data`: names, true labels int64 (N,), and K class names.

    `skipped` names the images that did not decode and were left out; `part` is the part of the data that was tested.
    """

    data: str
    names: tuple[str, ...]
    labels: Tensor
    classes: tuple[str, ...]
    members: tuple[Member, ...]
    skipped: tuple[str, ...] = ()
    part: Tested = "test"


def is_scores(file: Path) -> bool:
    """Whether `file` was written by `write_scores`; False for weights, and where there is no file."""
    try:
        if file.suffix == ".json":
            return HEADER in untrusted.read(file, Json, own=True, most=MOST_BYTES)
        with archive.opened(file) as stream:
            return HEADER in (stream.metadata() or {})
    except (OSError, SafetensorError, InputError):
        return False


def write_scores(file: Path, table: ScoreTable) -> None:
    """Write a table to a file, atomically: as safetensors, or as JSON where the name ends in .json.

    The tensors (in JSON: lists) are `labels` and `scores.0`, `scores.1`, ..., one for each member; the metadata hold
    the rest as JSON. Raises `InputError` where `file` cannot be written.
    """
    tensors = {"labels": table.labels} | {f"scores.{n}": own.scores for n, own in enumerate(table.members)}
    fields = {name: getattr(table, name) for name in ("data", "names", "classes", "skipped", "part")}
    header = fields | {"members": [own.facts for own in table.members]}
    if file.suffix == ".json":
        lists = {name: tensor.tolist() for name, tensor in tensors.items()}
        content = json.dumps({HEADER: header} | lists).encode()
    else:
        whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
        content = to_bytes(whole, {HEADER: json.dumps(header)})
    try:
        with replacing(file) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise InputError(f"the scores cannot be written to {file} ({error}); give another --save-scores") from None


def write_wrong(file: Path, table: ScoreTable, weights: Sequence[float] | None = None) -> None:
    """Write a CSV of the images that the ensemble of the members misclassifies, those with the highest score first.

    Columns: image, true class, predicted class, and the scores of both, from 0 to 1; names that a spreadsheet would
    take for formulas are marked (`printing.marked`). Raises `InputError` where `file` cannot be written.
    """
    from deepres.runtime.printing import marked

    # The misclassified images.
    shares = member_weights(len(table.members), weights)
    found = Scores(average([own.scores for own in table.members], shares), table.labels)
    best = found.predicted()
    sure = found.scores.gather(1, best[:, None])[:, 0]
    wrong = [row for row in sure.argsort(descending=True).tolist() if best[row] != table.labels[row]]
    # A row for each.
    try:
        with (
            replacing(file) as partial,
            partial.open("w", encoding="utf-8", errors="surrogateescape", newline="") as text,
        ):
            writer = csv.writer(text)
            writer.writerow(WRONG)
            for row in wrong:
                true, taken = int(table.labels[row]), int(best[row])
                both = (found.scores[row, taken].item(), found.scores[row, true].item())
                names = (table.names[row], table.classes[true], table.classes[taken])
                writer.writerow((*map(marked, names), *both))
    except OSError as error:
        raise InputError(f"the list cannot be written to {file} ({error}); give another --wrong") from None


def refuse_other_list(file: Path) -> None:
    """Raise `InputError` where `file` does not end in .csv, or exists and was not written by `write_wrong`."""
    if (file.exists() and not file.is_file()) or file.suffix != ".csv":
        raise InputError(f"--wrong {file} is to be a file whose name ends in .csv")
    if file.exists():
        with file.open(encoding="utf-8", errors="replace", newline="") as text:
            if next(csv.reader(text), list(WRONG)) != list(WRONG):
                raise InputError(f"--wrong {file} holds something else than such a list; give another name")


def read_scores(file: Path) -> ScoreTable:
    """The table of a file that `write_scores` wrote. Raises `InputError` for one that is damaged."""
    try:
        header, tensors = _content(file)
        labels, members = tensors["labels"].long(), list[Member]()
        names, classes, skipped = (tuple(header[name]) for name in ("names", "classes", "skipped"))
        for number, facts in enumerate(header["members"]):
            own = tensors[f"scores.{number}"]
            if own.shape != (len(names), len(classes)) or labels.shape != (len(names),):
                raise ValueError(f"{len(names)} images of {len(classes)} classes have scores {tuple(own.shape)}")
            members.append(Member(facts, own))
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(classes):
            raise ValueError(f"a label is none of {len(classes)} classes")
        part = header.get("part", "test")
        return ScoreTable(header["data"], names, labels, classes, tuple(members), skipped, part)
    except (OSError, RuntimeError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"the scores file {file} is damaged ({error}); {ANEW}") from None


def _content(file: Path) -> tuple[Json, dict[str, Tensor]]:
    if file.suffix == ".json":
        values = untrusted.read(file, Json, ANEW, own=True, most=MOST_BYTES)
        header, tensors = values.pop(HEADER), {name: torch.tensor(value) for name, value in values.items()}
    else:
        with archive.opened(file) as stream:
            names: list[str] = stream.keys()
            header = untrusted.decode(stream.metadata()[HEADER], Json, str(file), ANEW, own=True, most=MOST_BYTES)
            tensors = {name: stream.get_tensor(name) for name in names}
    untrusted.convert(header, _Header, f"the scores file {file} is damaged", ANEW)
    return header, tensors


def joined(tables: Sequence[ScoreTable], by_place: bool = False, say: Say = silent) -> ScoreTable:
    """The members of all tables, in their order, over the images of the first.

    Classes are matched by name; `by_place` is that of `classes.columns`. Raises `InputError` where the tables
    differ in images, labels or classes.
    """
    first = tables[0]
    known = Classes("the first member", first.classes)
    place = {name: number for number, name in enumerate(first.names)}
    members: list[Member] = []
    for table in tables:
        if set(table.names) != set(place):
            raise InputError(
                f"the members were tested on different images: {len(first.names)} of {first.data} and "
                f"{len(table.names)} of {table.data}, which are not the same names; test them on the same data"
            )
        # The rows in the order of the first table, the columns in the order of its classes.
        order = sorted(range(len(table.names)), key=lambda number, own=table: place[own.names[number]])
        own = (
            known if table is first else Classes(str(table.members[0].facts.get("weights", table.data)), table.classes)
        )
        same = columns(own, known, by_place, say)
        if not torch.tensor(same).argsort()[table.labels[order]].equal(first.labels):
            raise InputError(
                f"the members were tested on images of the same names, but other labels, in {first.data} and "
                f"{table.data}; test them on the same data"
            )
        members += [replace(one, scores=one.scores[order][:, same]) for one in table.members]
    return replace(first, members=tuple(members))
