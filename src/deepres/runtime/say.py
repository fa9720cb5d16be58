"""Who is told what a person should know: a function of one message."""

from collections.abc import Callable

Say = Callable[[str], None]


def silent(message: str) -> None:
    """Nobody listens."""
