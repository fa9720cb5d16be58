"""The verb `deepres detect`."""

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from deepres.commands.console import say
from deepres.commands.detection import DetectorOptions
from deepres.commands.options import Device, NetworkName, TestPrecision, grouped
from deepres.commands.pictures import Pictures, files_of, write_good
from deepres.runtime.printing import Console, marked, visible

if TYPE_CHECKING:
    from deepres.models.detection.outputs import Detections
    from deepres.workflows.detect import Sighting, Spotter

Listing = Literal["table", "csv", "jsonl", "coco"]
Row = tuple[str, float, tuple[float, ...]]  # class, score, and left, top, right, bottom
EDGES = ("left", "top", "right", "bottom")
DIGITS = 3  # of coordinates behind the point, in files for other programs


@dataclass(frozen=True)
class ExecutionOptions:
    """How the network is run: fields of `classification.scorer.Execution`."""

    device: Device = "auto"
    precision: TestPrecision = "auto"


@grouped
def detect(
    weights: Annotated[
        str,
        typer.Argument(
            help="A run, a weights file, or hf:owner/name, of a detector; an ensemble: with commas between."
        ),
    ],
    pictures: Pictures,
    protocol: DetectorOptions,
    execution: ExecutionOptions,
    form: Annotated[
        Listing, typer.Option("--format", help="coco is JSON as COCO's results are; all but table come as found.")
    ] = "table",
    draw: Annotated[
        Path | None, typer.Option(help="Draw boxes and masks with class and score, into pictures in this folder.")
    ] = None,
    network: NetworkName = None,
) -> None:
    """The objects that a detector finds in pictures, with boxes; a picture that cannot be read makes the exit code 1.

    Boxes are in pixels of the upright picture, as it is seen, also where a camera marked it as rotated.

    Pixel k reaches from k to k + 1, so that right - left is the width. COCO has left, top, width, height.

    Example: deepres detect runs/cells holiday/ --draw drawn --format csv > boxes.csv
    """
    from deepres.classification.scorer import Execution
    from deepres.detection.figures import SURE
    from deepres.workflows import detect
    from deepres.workflows.open_network import detector, open_network

    # The detector, the pictures, and where they are drawn.
    how = protocol.chosen(None if form == "coco" else SURE)
    nets = [detector(open_network(one, say, network, execution.device), one) for one in detect.places_of(weights)]
    files = files_of(pictures)
    places = [] if draw is None else detect.drawing_places(files, draw, pictures)
    spotter = detect.spotter(nets, how, Execution(**vars(execution)), say)
    # Detections are written as they are made; pictures that cannot be read are told at the end.
    found, empty = spotter.predict(files), list[str]()
    if places:
        found = _drawn(found, places, spotter.classes)
    found = _without_pixels(found, empty)
    write_good(
        found,
        partial(WRITERS[form], spotter=spotter, files=files),
        form,
        len(files),
        lambda: _tell(empty, how.threshold, draw),
    )


def _drawn(found: "Iterable[Sighting]", places: Sequence[Path], classes: Sequence[str]) -> "Iterator[Sighting]":
    """The same sightings, each drawn on the way."""
    from deepres.report import boxes

    for one, place in zip(found, places, strict=True):
        if one.pixels is not None:
            boxes.write(boxes.draw(one.pixels, boxes.of_detections(one.found, classes)), place)
        yield one


def _without_pixels(found: "Iterable[Sighting]", empty: list[str]) -> "Iterator[Sighting]":
    """The same sightings without their pixels; the names of those in which nothing is found go into `empty`."""
    for one in found:
        if one.fault is None and not len(one.found):
            empty.append(one.name)
        yield replace(one, pixels=None)


def _tell(empty: Sequence[str], least: float | None, draw: Path | None) -> None:
    from deepres.runtime.errors import few

    if draw is not None:
        say(f"drawn: the pictures with their boxes, in {draw}")
    if empty:
        score = f" with a score of {least:g} or more" if least else ""
        say(f"nothing found{score} in {len(empty):,} picture{'s' * (len(empty) > 1)}: {few(empty)}")


def _rows(found: "Detections", spotter: "Spotter") -> Iterator[Row]:
    columns = found.labels.tolist(), found.scores.tolist(), found.boxes.tolist()
    for label, score, box in zip(*columns, strict=True):
        yield spotter.classes[label], score, tuple(box)


def _masks(found: "Detections", name: str) -> list[dict[str, Any]]:
    """The mask of each detection under this name, in COCO's compressed run lengths; nothing where there are none."""
    if found.masks is None:
        return [{}] * len(found)
    return [{name: {"size": own["size"], "counts": own["counts"].decode()}} for own in found.masks.rles()]


def _write_table(found: "Iterable[Sighting]", spotter: "Spotter", files: Sequence[Path]) -> None:
    from deepres.findings import Cell, Table
    from deepres.report.console import print_tables

    parents = {str(file.parent) for file in files}
    folder = parents.pop() if len(parents) == 1 else ""  # stands once below the table
    rows: list[tuple[Cell, ...]] = [
        (
            "" if rank else Path(one.name).name if folder else one.name,
            name,
            f"{100 * score:.2f}",
            *(f"{edge:.1f}" for edge in box),
        )
        for one in found
        for rank, (name, score, box) in enumerate(_rows(one.found, spotter))
    ]
    where = f"Pictures in {folder}." if folder not in ("", ".") else ""
    if rows:
        print_tables(Console(), [Table("Detections", where, ("picture", "class", "score %", *EDGES), tuple(rows))])


def _write_csv(found: "Iterable[Sighting]", spotter: "Spotter", files: Sequence[Path]) -> None:
    """Names are written as they are, but for what a spreadsheet or, where it is shown in one, a terminal would obey."""
    shown = visible if sys.stdout.isatty() else str
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(("picture", "class", "score", *EDGES))
    for one in found:
        for name, score, box in _rows(one.found, spotter):
            edges = (f"{edge:.{DIGITS}f}" for edge in box)
            writer.writerow((marked(shown(one.name)), marked(shown(name)), f"{score:.6f}", *edges))


def _write_json_lines(found: "Iterable[Sighting]", spotter: "Spotter", files: Sequence[Path]) -> None:
    for one in found:
        boxes = [
            {"class": name, "score": round(score, 6), "box": [round(edge, DIGITS) for edge in box], **mask}
            for (name, score, box), mask in zip(_rows(one.found, spotter), _masks(one.found, "mask"), strict=True)
        ]
        height, width = one.size
        print(json.dumps({"picture": one.name, "width": width, "height": height, "detections": boxes}), flush=True)


def _write_coco(found: "Iterable[Sighting]", spotter: "Spotter", files: Sequence[Path]) -> None:
    """A list of results, as `loadRes` of COCO's tools takes them; `file_name` tells the pictures apart."""
    from deepres.workflows.detect import image_ids

    ids = dict(zip(map(str, files), image_ids(files), strict=True))
    lines = 0
    print("[", end="")
    for one in found:
        columns = one.found.labels.tolist(), _rows(one.found, spotter), _masks(one.found, "segmentation")
        for label, (_, score, (left, top, right, bottom)), mask in zip(*columns, strict=True):
            result: dict[str, Any] = {
                "image_id": ids[one.name],
                "category_id": spotter.category_ids[label],
                "bbox": [round(value, DIGITS) for value in (left, top, right - left, bottom - top)],
                "score": round(score, 6),
                "file_name": one.name,
                **mask,
            }
            print("," * (lines > 0), json.dumps(result), sep="\n" if lines else "", end="")
            lines += 1
    print("]")


WRITERS: "dict[Listing, Callable[..., None]]" = {
    "table": _write_table,
    "csv": _write_csv,
    "jsonl": _write_json_lines,
    "coco": _write_coco,
}
