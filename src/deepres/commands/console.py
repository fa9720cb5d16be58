"""How the verbs speak: what they are at, on standard error, so that their results can be piped."""

from collections.abc import Callable
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from deepres.runtime.errors import Say
from deepres.runtime.printing import Console, brief


def sayer(console: Console) -> Say:
    """A function that prints a message on `console`, as it is, but for the middle of names that fill screens."""

    def say(message: str) -> None:
        console.print(brief(message), style="dim", highlight=False, markup=False, soft_wrap=True)

    return say


def print_lines(*lines: str) -> None:
    """Results for a person, on standard output, each as it is in a line of its own."""
    for line in lines:
        Console().print(line, highlight=False, markup=False, soft_wrap=True)


def progress_bar(console: Console) -> Progress:
    """A bar that counts what is done and is gone afterwards; nothing elsewhere than in a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Else what is printed while it is shown would go to the console of the bar, and not to the file of `> file`.
    how: dict[str, Any] = {"redirect_stdout": False, "redirect_stderr": False}
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal, **how)


def ticker(bar: Progress, say: Say, what: str) -> Callable[[int, int | None], None]:
    """Moves the bar; elsewhere than in a terminal, says a line every so often."""
    from deepres.runtime.progress import every_so_often

    task, tell = bar.add_task("images", total=None), every_so_often(say, what)

    def tick(done: int, total: int | None) -> None:
        bar.update(task, completed=done, total=total)
        if bar.disable:
            tell(done, total)

    return tick
