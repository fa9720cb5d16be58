"""What `deepres data info` and `deepres data check` do for data with boxes."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepres.commands.console import print_json, say
from deepres.runtime.errors import InputError
from deepres.runtime.printing import Console

if TYPE_CHECKING:
    from deepres.data.boxes.annotations import Fault
    from deepres.data.boxes.index import Opened
    from deepres.data.stream.index import Parts
    from deepres.findings import Table

TrainSet = Annotated[
    str | None,
    typer.Option(help="Image sets of data with boxes to train on: train, trainval,test, 07+12, 2012:trainval."),
]
TestSet = Annotated[str | None, typer.Option(help="Image sets of data with boxes to test on: test, val, none.")]
MOST_CLASSES = 30  # rows of a table


def print_boxes(name: str, train_set: str | None, test_set: str | None, json: bool) -> None:
    """Describe data with boxes."""
    from deepres.data.boxes.facts import describe_boxes
    from deepres.data.boxes.opening import opened
    from deepres.report import console

    facts = describe_boxes(name, opened(name, say, train_set, test_set, masks=True))
    if json:
        print_json(facts)
        return
    parts = {"training": facts.pop("train"), "test": facts.pop("test")}
    for hidden in ("classes", "category_ids"):
        facts.pop(hidden)
    console.print_facts(Console(), facts)
    console.print_tables(Console(), _tables(parts))


def _tables(parts: dict[str, dict[str, Any]]) -> "list[Table]":
    """The counts of both parts side by side, and those of their most frequent classes."""
    from deepres.findings import Table

    train, test = parts.values()
    names = [name for name in train if name not in ("per_class", "sides")]
    rows = [(name.replace("_", " "), train[name], test[name]) for name in names]
    rows += [
        (
            f"side of a box, pixels: {which}",
            *(part["sides"][place] if part["sides"] else None for part in (train, test)),
        )
        for place, which in ((0, "least"), (2, "median"), (4, "most"))
    ]
    counts = {name: (count, test["per_class"][name]) for name, count in train["per_class"].items()}
    shown = sorted(counts.items(), key=lambda own: -sum(own[1]))[:MOST_CLASSES]
    rest = f"{len(counts) - len(shown)} more classes: --json has them all" if len(counts) > len(shown) else ""
    return [
        Table("Pictures and boxes", "", ("", *parts), tuple(rows)),
        Table("Boxes of each class", rest, ("class", *parts), tuple((name, *own) for name, own in shown)),
    ]


def boxes_to_check(name: str, train_set: str | None, test_set: str | None) -> "tuple[Parts, list[dict[str, Any]], str]":
    """The pictures of data with boxes, what is wrong with their annotations, and their numbers in a sentence."""
    from deepres.data.boxes.opening import opened
    from deepres.data.stream.index import Parts

    found = opened(name, say, train_set, test_set, masks=True)
    wrong = [{"name": own.name, "kind": own.kind, "reason": _reason(own)} for own in found.wrong]
    return Parts(*(part.pictures for part in found.parts)), wrong, _counted(found)


def _reason(fault: "Fault") -> str:
    return fault.reason + (f", and {fault.times - 1:,} more" if fault.times > 1 else "")


def _counted(found: "Opened") -> str:
    from deepres.data.listing import counted

    train, test = found.parts
    boxes = f"{len(train.objects):,} and {len(test.objects):,} boxes"
    masks = [int(part.objects.masks.known.sum()) for part in found.parts if part.objects.masks is not None]
    with_masks = f", {masks[0]:,} and {masks[1]:,} masks" if masks else ""
    return f"{found.layout}: {counted(len(train), len(test), train.classes)}, with {boxes}{with_masks}"


def refuse_sets(name: str, train_set: str | None, test_set: str | None) -> None:
    """Raise `InputError` where image sets are named of data without boxes."""
    if train_set or test_set:
        raise InputError(
            f"{name} has no boxes in a layout that is known, so that --train-set and --test-set do not apply"
        )
