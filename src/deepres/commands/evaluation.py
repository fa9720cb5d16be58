"""The verb `deepres eval`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from deepres.commands.console import counting, print_json, sayer
from deepres.commands.detection import PANEL, DetectorOptions
from deepres.commands.detector_evaluation import are_detectors, evaluate_detector
from deepres.commands.localizer_evaluation import are_localizers, evaluate_localizer
from deepres.commands.options import (
    AsJson,
    Device,
    NetworkName,
    SkipBad,
    TestPrecision,
    grouped,
    require_positive,
)
from deepres.runtime.errors import InputError
from deepres.runtime.files import refuse_input
from deepres.runtime.printing import Console

if TYPE_CHECKING:
    from deepres.classification.score_table import ScoreTable
    from deepres.classification.views import Protocol

ProtocolName = Literal["single", "center", "10-crop", "dense"]


@dataclass(frozen=True)
class ProtocolOptions:
    """The test protocol: which views of an image are scored."""

    protocol: Annotated[
        ProtocolName | None,
        typer.Option(
            help="single (whole images), center, 10-crop or dense. Default: center if trained on crops, else single."
        ),
    ] = None
    scales: Annotated[
        str | None,
        typer.Option(
            help="Shorter sides of dense, one of center and 10-crop. Default for 224: 224,256,384,480,640, and 256."
        ),
    ] = None
    flip: Annotated[bool | None, typer.Option(help="Whether dense averages over the flips, too. Default: yes.")] = None

    def chosen(self) -> "Protocol | None":
        """The protocol of the options. Raises `InputError` for scales and flips where it has none."""
        from deepres.classification.views import Protocol

        name, flip, scales = self.protocol, self.flip, numbers("--scales", self.scales, int)
        if name != "dense" and flip is not None:
            raise InputError(f"{'--flip' if flip else '--no-flip'} is for --protocol dense; give that, or leave it out")
        if scales and name in (None, "single"):
            raise InputError("--scales is for --protocol dense, center and 10-crop; give one of these, or leave it out")
        if name != "dense" and len(scales) > 1:
            raise InputError(
                f"--protocol {name} takes one shorter side; give --scales {scales[0]}, or --protocol dense"
            )
        if any(scale < 1 for scale in scales):
            raise InputError(
                "a scale is below 1; give shorter sides in pixels, for example --scales 224,256,384,480,640"
            )
        return None if name is None else Protocol(name, tuple(scales), flip is not False)


@dataclass(frozen=True)
class ExecutionOptions:
    """How the network is run: the fields of `classification.scorer.Execution`."""

    batch_size: Annotated[int | None, typer.Option(help="Views at a time; changes no figure.")] = None
    device: Device = "auto"
    precision: TestPrecision = "auto"


@dataclass(frozen=True)
class TestOptions:
    """What is tested, and on which images: fields of `workflows.evaluate.Setting`."""

    data: Annotated[
        str | None,
        typer.Option("--data", help="A name, a folder, hf:owner/name, or wds:PATTERN. Default for a run: its own."),
    ] = None
    network: NetworkName = None
    part: Annotated[
        Literal["train", "test", "all"], typer.Option(help="What of the data to test on: one part, or all pictures.")
    ] = "test"
    split: Annotated[str | None, typer.Option(help="Test on the held-out part of the training set: 45k/5k.")] = None
    image_size: Annotated[int | None, typer.Option(help="For single: resize and crop to this many pixels.")] = None
    skip_bad: SkipBad = False
    kernels: Annotated[str, typer.Option(help="The project's own kernels for processors: auto, on, off.")] = "auto"
    by_place: Annotated[
        bool, typer.Option("--by-place", help="Take classes of other names than the network's by their place.")
    ] = False


@dataclass(frozen=True)
class OutputOptions:
    """Where the scores and the list of errors go, and how much each member of an ensemble counts."""

    member_weights: Annotated[
        str | None, typer.Option(help="Of the members of an ensemble, with commas. Default: all the same.")
    ] = None
    save_scores: Annotated[
        Path | None,
        typer.Option(help="Keep each image's softmax scores in this file: safetensors, or JSON for a name in .json."),
    ] = None
    wrong: Annotated[
        Path | None,
        typer.Option(
            help="List the images taken for another class in this CSV file; of a detector: draw its mistakes with a "
            "score of 0.5 or more, and the missed objects, into this new folder."
        ),
    ] = None

    @property
    def shares(self) -> list[float]:
        """The numbers of `--member-weights`; none where it is not given."""
        return numbers("--member-weights", self.member_weights, float)

    def check(self, weights: Sequence[Path]) -> None:
        """Raise `InputError` for files that must not be overwritten, and for other than one weight for each member."""
        from deepres.classification import ensemble, score_table
        from deepres.workflows import evaluate

        shares, file = self.shares, self.save_scores
        if file is not None and file.is_dir():
            raise InputError(f"--save-scores {file} is a folder; name a file")
        if file is not None:
            refuse_input("--save-scores", file, weights)
            if file.suffix == ".csv" or (file.exists() and not score_table.is_scores(file)):
                raise InputError(f"--save-scores {file} is not a file of scores; give another name")
        if self.wrong is not None:
            score_table.refuse_other_list(self.wrong)
        ensemble.member_weights(evaluate.member_count(weights), shares)

    def write_and_print(self, table: "ScoreTable", json: bool) -> None:
        """Write the files and print the figures; the figures also where a file cannot be written."""
        from deepres.classification import score_table
        from deepres.report import console as tables
        from deepres.workflows import evaluate

        try:
            if self.save_scores is not None:
                score_table.write_scores(self.save_scores, table)
            if self.wrong is not None:
                score_table.write_wrong(self.wrong, table, self.shares)
        finally:  # an error is shown after the figures
            report = evaluate.report(table, self.shares)
            if json:
                print_json(report, allow_nan=False)
            else:
                tables.print_evaluation(Console(), report)


@grouped
def evaluate(
    weights: Annotated[
        list[Path],
        typer.Argument(
            help="Run folders, weights files, files of --save-scores, or FILE.onnx or .xml of export --preprocess."
        ),
    ],
    test: TestOptions,
    protocol: ProtocolOptions,
    execution: ExecutionOptions,
    output: OutputOptions,
    detection: DetectorOptions,
    test_set: Annotated[
        str | None, typer.Option(rich_help_panel=PANEL, help="The image sets to test on, as 2007:test, with commas.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Test a trained network, or several as an ensemble: errors, error of each class, confusion; of a detector mAP;
    of a localizer, with its R-CNN stage and with classifiers beside it, the localization error.

    A run of a detector keeps the detections in its test pictures, so that a second test takes no time.

    Example: deepres eval runs/resnet34 runs/resnet50 --data photos --protocol dense --scales 224,256,384,480,640
    """
    from deepres.classification.scorer import Execution
    from deepres.runtime.ranks import joined
    from deepres.workflows import evaluate

    # Localizers and detectors have tests of their own.
    if are_localizers(weights):
        options = vars(detection) | vars(execution) | vars(output) | vars(test)
        evaluate_localizer(weights, test, protocol.chosen(), test_set, options, json)
        return
    if are_detectors(weights, test.network):
        options = vars(protocol) | vars(execution) | vars(output) | vars(test)
        evaluate_detector(weights, test, detection, test_set, options, json)
        return
    if needless := [*detection.given, *["test_set"] * (test_set is not None)]:
        option = f"--{needless[0].replace('_', '-')}"
        raise InputError(f"{option} is for detectors, and {weights[0]} is a classifier; leave it out")
    # Refuse wrong options before anything is loaded.
    require_positive([("--image-size", test.image_size), ("--batch-size", execution.batch_size)])
    output.check(weights)
    setting = evaluate.Setting(**vars(test), protocol=protocol.chosen(), execution=Execution(**vars(execution)))
    # All ranks share the images; the first one alone counts them, and tells the figures.
    with joined(execution.device) as ranks:
        err = Console(stderr=True, quiet=not ranks.first)
        say = sayer(err)
        with counting("images tested", say, err) as tick:
            table = evaluate.evaluate(weights, setting, say, tick, ranks)
    if ranks.first:
        output.write_and_print(table, json)


def numbers(option: str, text: str | None, kind: type[int] | type[float]) -> list[Any]:
    """The numbers of an option, with commas between; none where it is not given."""
    try:
        return [kind(part) for part in text.split(",")] if text is not None else []
    except ValueError:
        raise InputError(f"{option} is {text!r}; give numbers with commas between") from None
