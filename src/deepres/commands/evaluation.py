"""The verb `deepres eval`."""

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from deepres.commands.console import progress_bar, sayer, ticker
from deepres.runtime.errors import InputError
from deepres.runtime.files import refuse_input
from deepres.runtime.printing import Console

if TYPE_CHECKING:
    from deepres.classification.views import Protocol

PRECISION = "fp32 (which auto is, everywhere) or bf16, whose scores move a little with the batch size."
Name = Literal["single", "center", "10-crop", "dense"]


def evaluate(
    weights: Annotated[
        list[Path],
        typer.Argument(
            help="Run folders, weights files, files of --save-scores, or FILE.onnx or .xml of export --preprocess."
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option("--data", help="A name, a folder, hf:owner/name, or wds:PATTERN. Default for a run: its own."),
    ] = None,
    protocol: Annotated[
        Name | None,
        typer.Option(
            help="single (whole images), center, 10-crop or dense. Default: center if trained on crops, else single."
        ),
    ] = None,
    scales: Annotated[
        str | None,
        typer.Option(
            help="Shorter sides of dense, one of center and 10-crop. Default for 224: 224,256,384,480,640, and 256."
        ),
    ] = None,
    flip: Annotated[bool | None, typer.Option(help="Whether dense averages over the flips, too. Default: yes.")] = None,
    member_weights: Annotated[
        str | None, typer.Option(help="Of the members of an ensemble, with commas. Default: all the same.")
    ] = None,
    save_scores: Annotated[
        Path | None,
        typer.Option(help="Keep each image's softmax scores in this file: safetensors, or JSON for a name in .json."),
    ] = None,
    wrong: Annotated[
        Path | None, typer.Option(help="List the images that were taken for another class in this CSV file.")
    ] = None,
    network: Annotated[str | None, typer.Option(help="For weights that do not say which net they are of.")] = None,
    part: Annotated[
        Literal["train", "test", "all"], typer.Option(help="What of the data to test on: one part, or all pictures.")
    ] = "test",
    split: Annotated[str | None, typer.Option(help="Test on the held-out part of the training set: 45k/5k.")] = None,
    image_size: Annotated[int | None, typer.Option(help="For single: resize and crop to this many pixels.")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out images that do not decode.")] = False,
    batch_size: Annotated[int | None, typer.Option(help="Views at a time; changes no figure.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    precision: Annotated[str, typer.Option(help=PRECISION)] = "auto",
    kernels: Annotated[str, typer.Option(help="The project's own kernels for processors: auto, on, off.")] = "auto",
    by_place: Annotated[
        bool, typer.Option("--by-place", help="Take classes of other names than the network's by their place.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for another program.")] = False,
) -> None:
    """Test a trained network, or several as an ensemble: top-1 and top-5 error, error of each class, confusion.

    Example: deepres eval runs/resnet34 runs/resnet50 --data photos --protocol dense --scales 224,256,384,480,640
    """
    from deepres.classification import ensemble, score_table
    from deepres.report import console as tables
    from deepres.runtime.ranks import joined
    from deepres.workflows import evaluate

    for name, value in (("--image-size", image_size), ("--batch-size", batch_size)):
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}, but must be 1 or more")
    if save_scores is not None and save_scores.is_dir():
        raise InputError(f"--save-scores {save_scores} is a folder; name a file")
    if save_scores is not None:
        refuse_input("--save-scores", save_scores, weights)
        if save_scores.suffix == ".csv" or (save_scores.exists() and not score_table.is_scores(save_scores)):
            raise InputError(f"--save-scores {save_scores} is not a file of scores; give another name")
    if wrong is not None:
        score_table.refuse_other_list(wrong)
    shares = numbers("--member-weights", member_weights, float)
    ensemble.member_weights(evaluate.member_count(weights), shares)
    how = chosen_protocol(protocol, numbers("--scales", scales, int), flip)
    setting = evaluate.Setting(
        data, how, network, split, image_size, skip_bad, batch_size, device, precision, kernels, part, by_place=by_place
    )
    with joined(device) as ranks:
        err = Console(stderr=True, quiet=not ranks.first)
        say = sayer(err)
        with progress_bar(err) as bar:
            table = evaluate.evaluate(weights, setting, say, ticker(bar, say, "images tested"), ranks)
    if not ranks.first:
        return
    trouble: InputError | None = None
    try:
        if save_scores is not None:
            score_table.write(save_scores, table)
        if wrong is not None:
            score_table.write_wrong(wrong, table, shares)
    except InputError as error:  # the figures are told all the same
        trouble = error
    report = evaluate.report(table, shares)
    if json:
        typer.echo(json_format.dumps(report, indent=2, allow_nan=False))
    else:
        tables.print_evaluation(Console(), report)
    if trouble is not None:
        raise trouble


def chosen_protocol(name: Name | None, scales: list[Any], flip: bool | None) -> "Protocol | None":
    """The protocol of the options. Raises `InputError` for scales and flips where it has none."""
    from deepres.classification.views import Protocol

    if name != "dense" and flip is not None:
        raise InputError(f"{'--flip' if flip else '--no-flip'} is for --protocol dense; give that, or leave it out")
    if scales and name in (None, "single"):
        raise InputError("--scales is for --protocol dense, center and 10-crop; give one of these, or leave it out")
    if name != "dense" and len(scales) > 1:
        raise InputError(f"--protocol {name} takes one shorter side; give --scales {scales[0]}, or --protocol dense")
    if any(scale < 1 for scale in scales):
        raise InputError("a scale is below 1; give shorter sides in pixels, for example --scales 224,256,384,480,640")
    return None if name is None else Protocol(name, tuple(scales), flip is not False)


def numbers(option: str, text: str | None, kind: type[int] | type[float]) -> list[Any]:
    """The numbers of an option, with commas between; none where it is not given."""
    try:
        return [kind(part) for part in text.split(",")] if text is not None else []
    except ValueError:
        raise InputError(f"{option} is {text!r}; give numbers with commas between") from None
