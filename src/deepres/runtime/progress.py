"""Shows the progress of training: a bar in a terminal, and elsewhere a line of text every 30 seconds."""

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from deepres.runtime.errors import Say
from deepres.runtime.figures import CLASSIFICATION, REPORTED, Figure

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from deepres.runtime.printing import Console

LINE_SECONDS = 30.0
SHOWN_SECONDS = 0.1  # from one state of the bar to the next: a step on a GPU takes less time than drawing it


class ConsoleMonitor:
    """Shows on a `rich` console the progress and `figures` of a run of `total` iterations of `batch_size` images."""

    def __init__(
        self,
        console: "Console",
        label: str,
        total: int,
        batch_size: int,
        figures: Sequence[Figure] = REPORTED[CLASSIFICATION].main,
    ):
        self.console, self.label, self.total, self.batch_size = console, label, total, batch_size
        self.figures = figures
        self.bar = _bar(console)
        self.task: TaskID | None = None
        self.first: tuple[int, float] | None = None
        self.told, self.shown = time.monotonic(), 0.0

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None):
        self.bar.stop()

    def step(self, iteration: int, row: Mapping[str, Any]) -> None:
        """Show that `iteration` iterations are done, with the newest figures in `row`.

        With iteration 0, the clock starts before the first one.
        """
        now = time.monotonic()
        if self.first is None:  # a resumed run starts its clock here
            self.first = (max(iteration - 1, 0), self.told)
        if now - self.shown < SHOWN_SECONDS and iteration < self.total:
            return
        self.shown = now
        speed = (iteration - self.first[0]) / max(now - self.first[1], 1e-9)
        newest = "".join(f"  {own.text(row[own.key], 1)}" for own in self.figures if own.key in row)
        figures = f"{newest}  {speed * self.batch_size:,.0f} images/s"
        if self.console.is_terminal:
            if self.task is None:
                self.task = self.bar.add_task(self.label, total=self.total, completed=self.first[0], figures="")
            self.bar.update(self.task, completed=iteration, figures=figures)
        elif now - self.told > LINE_SECONDS or iteration == self.total:
            left = (self.total - iteration) / speed
            self.console.print(
                f"{self.label}  {iteration}/{self.total}{figures}  {left:,.0f} s left", highlight=False, soft_wrap=True
            )
            self.told = now

    def say(self, message: str) -> None:
        """Show a sentence to the user."""
        self.console.print(f"{self.label}: {message}", highlight=False, markup=False, soft_wrap=True)


def every_so_often(say: Say, what: str) -> Callable[[int, int | None], None]:
    """A function tick(done, total) that says the progress, but at most once in `LINE_SECONDS`.

    `total` is None if it is not known. `what` names what is counted.
    """
    told = time.monotonic()

    def tick(done: int, total: int | None) -> None:
        nonlocal told
        if time.monotonic() - told > LINE_SECONDS:
            say(f"{done:,}" + (f" of {total:,}" if total else "") + f" {what}")
            told = time.monotonic()

    return tick


def _bar(console: "Console") -> "Progress":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
        console=console,
        disable=not console.is_terminal,
    )
