"""The verb `deepres predict`."""

import csv
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from deepres.commands.console import progress_bar, sayer, ticker
from deepres.commands.evaluation import PRECISION, Name, chosen_protocol, numbers
from deepres.runtime.errors import InputError
from deepres.runtime.printing import Console, marked, visible

if TYPE_CHECKING:
    from deepres.workflows.predict import Prediction

Format = Literal["table", "csv", "jsonl"]


def predict(
    weights: Annotated[
        Path,
        typer.Argument(
            help="A run, a weights file of any kind, hf:owner/name, or FILE.onnx or .xml of export --preprocess."
        ),
    ],
    pictures: Annotated[list[str], typer.Argument(help="Files, folders, or - for file names on standard input.")],
    form: Annotated[Format, typer.Option("--format", help="csv and jsonl are written as they are found.")] = "table",
    top: Annotated[int, typer.Option(help="So many classes a picture.")] = 5,
    protocol: Annotated[
        Name | None, typer.Option(help="single (the whole image), center, 10-crop or dense. Default: by the network.")
    ] = None,
    scales: Annotated[
        str | None, typer.Option(help="Shorter sides of dense, with commas between; one of center and 10-crop.")
    ] = None,
    flip: Annotated[bool | None, typer.Option(help="Whether dense averages over the flips, too. Default: yes.")] = None,
    engine: Annotated[
        str, typer.Option(help="eager, compile, onnxruntime, openvino, or auto: all are timed, the fastest is kept.")
    ] = "eager",
    network: Annotated[str | None, typer.Option(help="For weights that do not say which net they are of.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Views at a time.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    precision: Annotated[str, typer.Option(help=PRECISION)] = "auto",
) -> None:
    """The best classes of pictures; one that cannot be read is reported, left out, and makes the exit code 1.

    Example: deepres predict runs/resnet34 holiday/ --format csv > classes.csv
    """
    from deepres.workflows import predict
    from deepres.workflows.open_network import open_network

    for name, value in (("--top", top), ("--batch-size", batch_size)):
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}, but must be 1 or more")
    err = Console(stderr=True)
    streamed = form != "table" and sys.stdout.isatty()  # a bar would stand between the lines
    say = sayer(err)
    how = chosen_protocol(protocol, numbers("--scales", scales, int), flip)
    net = open_network(weights, say, network)
    files = list(predict.files_of(pictures, _listed, say))
    maker = predict.predictor(
        net, how, engine=engine, batch_size=batch_size, device=device, precision=precision, say=say
    )
    bad: list[Prediction] = []

    def good(found: "Iterable[Prediction]") -> "Iterable[Prediction]":
        """Those without a fault, while the bar moves."""
        with progress_bar(Console(quiet=True) if streamed else err) as bar:
            tick = ticker(bar, say, "pictures seen")
            for number, one in enumerate(found, 1):
                tick(number, len(files))
                if one.fault is None:
                    yield one
                else:
                    bad.append(one)

    WRITERS[form](good(maker.predict(files, top)))
    for one in bad:
        say(f"{one.name}: {one.fault}")
    if bad:
        say(f"left out: {len(bad):,} of {len(files):,} picture{'s' * (len(files) > 1)}")
        raise typer.Exit(1)


def _listed() -> bytes:
    """What comes by standard input, which may be closed."""
    return sys.stdin.buffer.read() if sys.stdin else b""


def _table(found: "Iterable[Prediction]") -> None:
    from deepres.findings import Cell, Table
    from deepres.report.console import print_tables

    rows: list[tuple[Cell, ...]] = []
    for one in found:
        for rank, (name, score) in enumerate(one.top):
            rows.append((one.name if rank == 0 else "", name, f"{100 * score:.2f}"))
    if rows:
        print_tables(Console(), [Table("Predictions", "", ("picture", "class", "score %"), tuple(rows))])


def _csv(found: "Iterable[Prediction]") -> None:
    """Names as they are, but for what would command a spreadsheet or, where it is shown in one, the terminal."""
    shown = visible if sys.stdout.isatty() else str
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(("picture", "rank", "class", "score"))
    for one in found:
        for rank, (name, score) in enumerate(one.top, 1):
            writer.writerow((marked(shown(one.name)), rank, marked(shown(name)), f"{score:.6f}"))


def _json_lines(found: "Iterable[Prediction]") -> None:
    for one in found:
        top = [{"class": name, "score": round(score, 6)} for name, score in one.top]
        print(json.dumps({"picture": one.name, "top": top}), flush=True)


WRITERS: "dict[Format, Callable[[Iterable[Prediction]], None]]" = {
    "table": _table,
    "csv": _csv,
    "jsonl": _json_lines,
}
