"""What the verbs share that look at a user's pictures: which ones, progress, and those that cannot be read."""

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal, Protocol, TypeVar

import typer

from deepres.commands.console import counting, err, say
from deepres.runtime.printing import Console

Pictures = Annotated[list[str], typer.Argument(help="Files, folders, or - for file names on standard input.")]
Listing = Literal["table", "csv", "jsonl"]


class Answer(Protocol):
    """What is told of one picture; or the `fault` for which nothing is."""

    @property
    def name(self) -> str:
        """The picture's file."""
        ...

    @property
    def fault(self) -> str | None:
        """Why it cannot be read, decoded or looked at."""
        ...


Told = TypeVar("Told", bound=Answer)


def files_of(pictures: list[str]) -> list[Path]:
    """The files that the arguments stand for. Raises `InputError` as `workflows.predict.files_of` does."""
    from deepres.workflows import predict

    return list(predict.files_of(pictures, lambda: sys.stdin.buffer.read() if sys.stdin else b"", say))


def write_good(
    found: Iterable[Told],
    write: Callable[[Iterable[Told]], None],
    form: str,
    count: int,
    after: Callable[[], None] = lambda: None,
) -> None:
    """`write` the answers without a fault as they come, call `after`, then tell of the others.

    Raises `typer.Exit` with the code 1 where there are others.
    """
    bad: list[Told] = []
    write(_watched(found, bad, form, count))
    after()
    for one in bad:
        say(f"{one.name}: {one.fault}")
    if bad:
        say(f"left out: {len(bad):,} of {count:,} picture{'s' * (count > 1)}")
        raise typer.Exit(1)


def _watched(found: Iterable[Told], bad: list[Told], form: str, count: int) -> Iterator[Told]:
    """The answers without a fault, while a bar counts all `count`; those with one go into `bad`."""
    streamed = form != "table" and sys.stdout.isatty()  # a bar would stand between the lines
    with counting("pictures seen", console=Console(quiet=True) if streamed else err) as tick:
        for number, one in enumerate(found, 1):
            tick(number, count)
            if one.fault is None:
                yield one
            else:
                bad.append(one)
