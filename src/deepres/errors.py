"""The one exception for bad input, and how to mend what it is often about."""


class InputError(Exception):
    """Bad input from the person at the keyboard: one sentence that says what, where and how to mend it.

    The command line prints the sentence and exits with code 2; there is never a traceback.
    """


def install(extra: str) -> str:
    """The command that installs the packages of an extra of this project."""
    return f"pip install -e '.[{extra}]' in the project's folder"
