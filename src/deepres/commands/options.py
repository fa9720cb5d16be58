"""Options that several verbs share: one name, type and help text for each; and options that come as one value."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

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
    typer.Option(help="fp32 (which auto is, everywhere), or bf16 (on a GPU also fp16), whose scores move a little."),
]
SetField = Annotated[list[str] | None, typer.Option("--set", help="Any field: --set weight_decay=5e-4")]
Data = Annotated[str | None, typer.Option("--data", help="A name, a folder, hf:owner/name, or wds:PATTERN.")]
RunFolder = Annotated[Path | None, typer.Option(help="The run folder; an existing run goes on.")]
Log = Annotated[
    list[str] | None, typer.Option("--log", help="The figures also go to tensorboard, wandb or trackio; repeatable.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for another program.")]


def require_positive(options: Sequence[tuple[str, int | None]]) -> None:
    """Raise `InputError` for the first of the named options that is below 1; an option that is not given is None."""
    for name, value in options:
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}, but must be 1 or more")


def grouped(verb: Callable[..., None]) -> Callable[..., None]:
    """`verb` for typer: a parameter whose type is a dataclass becomes an option for each field of it."""
    parameters = inspect.signature(verb).parameters
    hints = get_type_hints(verb, include_extras=True)
    groups = {name: hints[name] for name in parameters if is_dataclass(hints[name])}
    # What typer sees: the parameters of the verb, with the fields of a group in place of the group.
    shown: list[inspect.Parameter] = []
    for name, parameter in parameters.items():
        if name not in groups:
            shown.append(parameter.replace(annotation=hints[name]))
            continue
        types = get_type_hints(groups[name], include_extras=True)
        shown += [
            inspect.Parameter(own.name, parameter.kind, default=own.default, annotation=types[own.name])
            for own in fields(groups[name])
        ]

    # What typer calls: it makes a value of each group, and runs the verb.
    def run(**given: Any) -> None:
        made = {name: kind(**{own.name: given.pop(own.name) for own in fields(kind)}) for name, kind in groups.items()}
        verb(**given, **made)

    run.__name__, run.__doc__ = verb.__name__, verb.__doc__
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    setattr(run, "__signature__", inspect.Signature(shown))  # noqa: B010 (a function has none of its own)
    return run


def given(*groups: Any) -> dict[str, Any]:
    """The options of `groups` that are not None, by name."""
    return {name: value for group in groups for name, value in vars(group).items() if value is not None}
