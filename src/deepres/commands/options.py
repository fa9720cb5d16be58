"""Options that several verbs share: one name, type and help text for each."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from deepres.runtime.errors import InputError

Trained = Annotated[Path, typer.Argument(help="A run, a weights file of any kind, or hf:owner/name.")]
NetworkName = Annotated[str | None, typer.Option(help="For weights that do not say which net they are of.")]
Split = Annotated[str | None, typer.Option(help="Hold out a part of the training set as test set: 45k/5k.")]
ImageSize = Annotated[int | None, typer.Option(help="Resize and crop every image to this many pixels a side.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out images that do not decode.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
TestPrecision = Annotated[
    str,
    typer.Option(help="fp32 (which auto is, everywhere) or bf16, whose scores move a little with the batch size."),
]
Flip = Annotated[bool | None, typer.Option(help="Whether dense averages over the flips, too. Default: yes.")]
SetField = Annotated[list[str] | None, typer.Option("--set", help="Any field: --set weight_decay=5e-4")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for another program.")]


def require_positive(options: Sequence[tuple[str, int | None]]) -> None:
    """Raise `InputError` for the first of the named options whose value is below 1; None is one that is not given."""
    for name, value in options:
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}, but must be 1 or more")
