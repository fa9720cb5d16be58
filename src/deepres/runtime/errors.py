"""What the user is told: the one exception for bad input, and messages while the program works."""

import importlib
from collections.abc import Callable, Iterable

SHOWN = 4  # names shown of a longer list
Say = Callable[[str], None]  # a function that shows one sentence to the user


class InputError(Exception):
    """Bad input from the user: one sentence that says what is wrong, where, and how to mend it.

    The command line prints the sentence and exits with code 2; there is never a traceback.
    """


def install(extra: str) -> str:
    """The command that installs the packages of an extra of this project."""
    return f"pip install -e '.[{extra}]' in the project's folder"


def require_packages(packages: Iterable[str], needed: str, extra: str) -> None:
    """Raise `InputError` where one of the `packages` of an extra is missing; `needed` says in its words what for."""
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError:
            raise InputError(f"{needed} the package {package}: {install(extra)}") from None


def reason_of(error: BaseException) -> str:
    """The first line of the message of an error, or the name of its type where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def few(names: Iterable[str]) -> str:
    """The first four of `names` for a message, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return ", ".join(every[:SHOWN]) + more


def silent(message: str) -> None:
    """A `Say` that shows nothing."""
