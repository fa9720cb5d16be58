"""The verb `deepres predict`."""

import csv
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deepres.commands.console import say
from deepres.commands.evaluation import ExecutionOptions, ProtocolName, ProtocolOptions
from deepres.commands.options import NetworkName, grouped, require_positive
from deepres.commands.pictures import Listing, Pictures, files_of, write_good
from deepres.runtime.printing import Console, marked, visible

if TYPE_CHECKING:
    from deepres.workflows.predict import Prediction


@dataclass(frozen=True)
class PredictionProtocolOptions(ProtocolOptions):
    """The test protocol, which a run's data do not decide here."""

    protocol: Annotated[
        ProtocolName | None,
        typer.Option(help="single (the whole image), center, 10-crop or dense. Default: by the network."),
    ] = None
    scales: Annotated[
        str | None, typer.Option(help="Shorter sides of dense, with commas between; one of center and 10-crop.")
    ] = None


@grouped
def predict(
    weights: Annotated[
        Path,
        typer.Argument(
            help="A run, a weights file of any kind, hf:owner/name, or FILE.onnx or .xml of export --preprocess."
        ),
    ],
    pictures: Pictures,
    protocol: PredictionProtocolOptions,
    execution: ExecutionOptions,
    form: Annotated[Listing, typer.Option("--format", help="csv and jsonl are written as they are found.")] = "table",
    top: Annotated[int, typer.Option(help="So many classes a picture.")] = 5,
    engine: Annotated[
        str,
        typer.Option(
            help="eager, compile, onnxruntime, tensorrt, openvino, or auto: all are timed, the fastest is kept."
        ),
    ] = "eager",
    network: NetworkName = None,
) -> None:
    """The best classes of pictures; one that cannot be read is reported, left out, and makes the exit code 1.

    Example: deepres predict runs/resnet34 holiday/ --format csv > classes.csv
    """
    from deepres.classification.scorer import Execution
    from deepres.workflows import predict
    from deepres.workflows.open_network import classifier, open_network

    # The network with its protocol and engine, and the pictures.
    require_positive([("--top", top), ("--batch-size", execution.batch_size)])
    how = protocol.chosen()
    net = classifier(open_network(weights, say, network, execution.device), weights)
    files = files_of(pictures)
    predictor = predict.predictor(net, how, Execution(**vars(execution)), engine, say)
    # Predictions are written as they are made; pictures that cannot be read are told at the end.
    write_good(predictor.predict(files, top), WRITERS[form], form, len(files))


def _write_table(found: "Iterable[Prediction]") -> None:
    from deepres.findings import Cell, Table
    from deepres.report.console import print_tables

    rows: list[tuple[Cell, ...]] = [
        ("" if rank else one.name, name, f"{100 * score:.2f}")
        for one in found
        for rank, (name, score) in enumerate(one.top)
    ]
    if rows:
        print_tables(Console(), [Table("Predictions", "", ("picture", "class", "score %"), tuple(rows))])


def _write_csv(found: "Iterable[Prediction]") -> None:
    """Names are written as they are, but for what a spreadsheet or, where it is shown in one, a terminal would obey."""
    shown = visible if sys.stdout.isatty() else str
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(("picture", "rank", "class", "score"))
    for one in found:
        for rank, (name, score) in enumerate(one.top, 1):
            writer.writerow((marked(shown(one.name)), rank, marked(shown(name)), f"{score:.6f}"))


def _write_json_lines(found: "Iterable[Prediction]") -> None:
    for one in found:
        top = [{"class": name, "score": round(score, 6)} for name, score in one.top]
        print(json.dumps({"picture": one.name, "top": top}), flush=True)


WRITERS: "dict[Listing, Callable[[Iterable[Prediction]], None]]" = {
    "table": _write_table,
    "csv": _write_csv,
    "jsonl": _write_json_lines,
}
