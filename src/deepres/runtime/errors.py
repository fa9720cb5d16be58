"""The one exception for bad input, and how to mend what it is often about."""

from collections.abc import Iterable

SHOWN = 4  # names of many


class InputError(Exception):
    """Bad input from the person at the keyboard: one sentence that says what, where and how to mend it.

    The command line prints the sentence and exits with code 2; there is never a traceback.
    """


def install(extra: str) -> str:
    """The command that installs the packages of an extra of this project."""
    return f"pip install -e '.[{extra}]' in the project's folder"


def few(names: Iterable[str]) -> str:
    """The first of `names` for a message, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return ", ".join(every[:SHOWN]) + more
