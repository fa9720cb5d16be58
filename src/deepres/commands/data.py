"""The verbs `deepres data info`, `stats` and `check`."""

from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepres.commands import boxes
from deepres.commands.boxes import TestSet, TrainSet
from deepres.commands.console import counting, print_json, print_lines, say
from deepres.commands.options import AsJson, ImageSize, SkipBad, Split
from deepres.runtime.errors import InputError
from deepres.runtime.printing import CommandGroup, Console

if TYPE_CHECKING:
    from deepres.data.stream.check import Copies
    from deepres.data.stream.index import Parts

MOST_COPIES = 20


class DataGroup(CommandGroup):
    """`deepres data NAME` is `deepres data info NAME`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert the verb `info` where a data set is named first."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["info", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=DataGroup,
    no_args_is_help=True,
    help="Describe, measure or check a data set.\n\nExample: deepres data stats PHOTOGRAPHS",
)

DataName = Annotated[
    str, typer.Argument(help="A folder, a name such as food101, hf:owner/name, or wds:PATTERN of tar shards.")
]
Workers = Annotated[
    int | None, typer.Option(min=0, help="Processes that decode; default: one a processor, sixteen at most.")
]


@app.command()
def info(
    name: Annotated[
        str, typer.Argument(help="cifar10, mnist, imagenette, ... (docs/recipes.md), a folder, hf: or wds:.")
    ],
    split: Split = None,
    image_size: ImageSize = None,
    skip_bad: SkipBad = False,
    train_set: TrainSet = None,
    test_set: TestSet = None,
    json: AsJson = False,
) -> None:
    """Find, fetch, decode and describe a data set; photographs of all sizes, and data with boxes, are not decoded.

    `deepres data NAME` does the same.

    Example: deepres data info fashion-mnist
    """
    from deepres.data.boxes.layouts import is_boxes
    from deepres.data.decode import NotResidentError
    from deepres.data.sources import describe_data_set, load_data_set
    from deepres.data.stream import index
    from deepres.report import console

    if is_boxes(name) and not (split or image_size):
        boxes.print_boxes(name, train_set, test_set, json)
        return
    boxes.refuse_sets(name, train_set, test_set)
    say_once = cache(say)  # both ways of reading tell some of the same
    try:
        facts = describe_data_set(
            load_data_set(name, split=split, image_size=image_size, skip_bad=skip_bad, progress=say_once)
        )
    except NotResidentError:
        if split or image_size:
            raise
        facts = index.describe_index(name, index.open_index(name, say_once))
    if json:
        print_json(facts)
    else:
        console.print_facts(Console(), facts)


@app.command()
def stats(
    name: DataName,
    crop: Annotated[int, typer.Option(min=1, help="Pixels a side of the mean image.")] = 224,
    side: Annotated[int | None, typer.Option(min=1, help="Shorter side before the crop; default: crop * 8/7.")] = None,
    workers: Workers = None,
    skip_bad: SkipBad = False,
    json: AsJson = False,
) -> None:
    """Mean image and colour axes of the training images, computed once and kept beside the data.

    Example: deepres data stats PHOTOGRAPHS
    """
    from deepres.data.boxes.layouts import told_of_boxes
    from deepres.data.stream.index import open_index
    from deepres.data.stream.loader import Reading
    from deepres.data.stream.statistics import statistics

    with told_of_boxes(name):
        index = open_index(name, say).train
    if not len(index):
        raise InputError(f"{name} has no training pictures; give data that has")
    with counting("images seen") as tick:
        found = statistics(
            index,
            crop=crop,
            side=round(crop * 256 / 224) if side is None else side,
            reading=Reading(workers, skip_bad, say),
            progress=lambda done: tick(done, len(index)),
        )
    facts = {
        "images": found.images,
        "skipped": list(found.skipped),
        "mean_image": list(found.mean.shape),
        "shorter_side": found.side,
        "channel_mean": found.channel_mean.tolist(),
        "eigenvalues": found.values.tolist(),
        "eigenvectors": found.vectors.T.tolist(),
        "fingerprint": index.fingerprint,
    }
    if json:
        print_json(facts)
        return
    for label, value in facts.items():
        print_lines(f"{label.replace('_', ' ')}: {_as_text(value)}")


@app.command()
def check(
    name: DataName,
    workers: Workers = None,
    train_set: TrainSet = None,
    test_set: TestSet = None,
    json: AsJson = False,
) -> None:
    """Decode every image, read all boxes, and print what is wrong; exit code 1 where something is.

    Images that are there more than once are named, those in both parts first; they are no fault of the files.

    Example: deepres data check flowers
    """
    from deepres.data.boxes.layouts import is_boxes
    from deepres.data.listing import counted
    from deepres.data.stream.check import copies
    from deepres.data.stream.index import open_index

    # What is wrong with boxes.
    wrong: list[dict[str, Any]] = []
    if is_boxes(name):
        parts, wrong, summary = boxes.boxes_to_check(name, train_set, test_set)
    else:
        boxes.refuse_sets(name, train_set, test_set)
        parts = open_index(name, say)
        summary = counted(len(parts.train), len(parts.test), parts.train.classes)
    # Decode every image of both parts.
    of_boxes, images = len(wrong), sum(map(len, parts))
    wrong += _undecoded(parts, workers)
    say(f"{name}: {summary}")
    # Images with the same content, and the result.
    same = copies(parts)
    if json:
        found = {"images": images, "wrong": wrong, "copies": list(map(asdict, same))}
        print_json(found)
    else:
        for fault in wrong:
            print_lines(f"{fault['name']}: {fault['reason']}")
        _print_copies(same)
        bad = len(wrong) - of_boxes
        faulty = f", {of_boxes:,} faults of boxes and files" * bool(of_boxes)
        print_lines(f"{images:,} images, " + (f"{bad:,} do not decode" if bad else "all decode") + faulty)
    if wrong:
        raise typer.Exit(1)


def _undecoded(parts: "Parts", workers: int | None) -> list[dict[str, Any]]:
    """The images of both parts that do not decode, and why."""
    from deepres.data.stream.check import faults

    images, before, wrong = sum(map(len, parts)), 0, list[dict[str, Any]]()
    with counting("images checked") as tick:
        for index in parts:
            for done, found in faults(index, workers=workers):
                tick(before + done, images)
                wrong += [{"name": name, "reason": reason} for name, reason in found]
            before += len(index)
    return wrong


def _print_copies(same: "list[Copies]") -> None:
    """Warn of images that are there more than once."""
    for copy in same[:MOST_COPIES]:
        where = [*["in both parts"] * copy.both_parts, *[f"in {', '.join(copy.classes)}"] * (len(copy.classes) > 1)]
        print_lines(f"warning: the same content{' ' * bool(where)}{' and '.join(where)}: {', '.join(copy.names)}")
    if len(same) > MOST_COPIES:
        print_lines(f"... and {len(same) - MOST_COPIES:,} more that are there more than once; --json has them all")
    if both := sum(copy.both_parts for copy in same):
        print_lines(
            f"warning: {both:,} images are in the training part and in the test part: its error will be too low"
        )


def _as_text(value: Any) -> str:
    if isinstance(value, list):
        entries = (f"({_as_text(entry)})" if isinstance(entry, list) else _as_text(entry) for entry in value)
        return ", ".join(entries) or "none"
    return f"{value:.6f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
