"""What is refused of any command line, whatever its verb."""

from collections.abc import Sequence

from deepres.runtime.errors import InputError


def refuse_empty(arguments: Sequence[str]) -> None:
    """Raise `InputError` for an empty argument, or an empty value after `--option=`: as a path, it is this folder."""
    before = "deepres"
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if not argument.strip():
            raise InputError(f"what comes after {before} is empty; give a name, or leave it out")
        if option.startswith("--") and equals and not value.strip():
            raise InputError(f"{option} is empty; give a value, or leave it out")
        before = argument
