"""How the verbs speak: results go to standard output, messages to standard error, so that results can be piped."""

import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from deepres.runtime.errors import Say
from deepres.runtime.printing import Console, brief

err = Console(stderr=True)


def sayer(console: Console) -> Say:
    """A function that prints a message on `console` word for word; only the middle of a very long name is left out."""

    def say(message: str) -> None:
        console.print(brief(message), style="dim", highlight=False, markup=False, soft_wrap=True)

    return say


say = sayer(err)


def print_lines(*lines: str) -> None:
    """Print each line of a result on standard output, word for word and without wrapping it."""
    for line in lines:
        Console().print(line, highlight=False, markup=False, soft_wrap=True)


def print_json(value: Any, **settings: Any) -> None:
    """Print a result as JSON on standard output, for another program; `settings` are those of `json.dumps`."""
    typer.echo(json.dumps(value, indent=2, **settings))


@contextmanager
def counting(what: str, say: Say = say, console: Console = err) -> Generator[Callable[[int, int | None], None]]:
    """Yield a function of the images done, and of how many where that is known, which moves a progress bar.

    The bar is removed at the end. Where `console` is no terminal, `say` is told a line with `what` every so often.
    """
    from deepres.runtime.progress import every_so_often

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Else what is printed while it is shown would go to the console of the bar, and not to the file of `> file`.
    how: dict[str, Any] = {"redirect_stdout": False, "redirect_stderr": False}
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal, **how) as bar:
        task, tell = bar.add_task("images", total=None), every_so_often(say, what)

        def tick(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total)
            if bar.disable:
                tell(done, total)

        yield tick
