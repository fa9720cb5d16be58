"""The verb `deepres export`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from deepres.commands.console import print_json, print_lines, say
from deepres.commands.options import AsJson, NetworkName, Trained
from deepres.runtime.files import refuse_input


def export(
    weights: Trained,
    out: Annotated[Path, typer.Option("--out", help="The file: .onnx, .pt2 (torch-export) or .xml (openvino).")],
    form: Annotated[
        Literal["onnx", "torch-export", "openvino"] | None,
        typer.Option("--format", help="Default: by the name of --out."),
    ] = None,
    preprocess: Annotated[
        bool, typer.Option("--preprocess", help="Take uint8 pictures (N, H, W, 3) of the training crop.")
    ] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Quantize, with ranges from --calibrate.")] = False,
    calibrate: Annotated[
        Path | None, typer.Option(help="A folder of pictures, for the ranges of int8 and for the check.")
    ] = None,
    network: NetworkName = None,
    json: AsJson = False,
) -> None:
    """Write a network for other programs, for any number of images at a time, checked at once against the network.

    A detector takes one picture at a time, of any size, as with --preprocess; its file gives boxes, scores and
    labels, and one of a segmenter masks.

    Example: deepres export runs/resnet34 --out resnet34.onnx --preprocess
    """
    from deepres.serving.forms import files_of, form_of
    from deepres.weights.find import ready
    from deepres.workflows.export import ExportOptions, deploy

    # No file of the export may take the place of the weights.
    options = ExportOptions(form_of(out, form), preprocess, int8, calibrate)
    for file in files_of(out, options.form):
        refuse_input("--out", file, [weights])
    made = deploy(ready(weights, say, network), out, options, say)
    if json:
        print_json(made)
    else:
        print_lines(
            f"{made['file']}: {made['network']}, {made['precision']}, {len(made['classes'])} classes",
            f"takes {made['input']}",
            f"gives {made['output']}",
            f"on {made['checked_on']}: {_agreement(made)}",
        )


def _agreement(made: Mapping[str, Any]) -> str:
    """How near the file is to the network, in words."""
    if "detector" in made:
        masks = f", masks overlap by {made['mask_overlap']:.4f}" if "mask_overlap" in made else ""
        return (
            f"{made['same_detections']:.1%} of {made['detections_checked']:,} detections at any score are the same, "
            f"edges to {made['largest_shift']:.1e} pixels, scores to {made['largest_change']:.1e}{masks}"
        )
    return (
        f"largest change {made['largest_change']:.1e} of the largest score, "
        f"{made['same_top1']:.0%} with the same best class"
    )
