"""What a person sees while a network trains: a progress bar in a terminal, a plain line every so often elsewhere."""

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from deepres.runtime.errors import Say
from deepres.runtime.printing import Console

LINE_SECONDS = 30.0


class ConsoleMonitor:
    """Tells a `rich` console how a run of `total` iterations of `batch_size` images goes on."""

    def __init__(self, console: Console, label: str, total: int, batch_size: int):
        self.console, self.label, self.total, self.batch_size = console, label, total, batch_size
        self.bar = _bar(console) if console.is_terminal else None
        self.task: TaskID | None = None
        self.first: tuple[int, float] | None = None
        self.told = time.monotonic()

    def __enter__(self) -> Self:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None):
        if self.bar:
            self.bar.stop()

    def step(self, iteration: int, row: Mapping[str, Any]) -> None:
        """So many iterations are done, 0 where the clock starts before the first; `row` holds the newest figures."""
        now = time.monotonic()
        if self.first is None:  # a resumed run starts its clock here
            self.first = (max(iteration - 1, 0), self.told)
        speed = (iteration - self.first[0]) / max(now - self.first[1], 1e-9)
        figures = _figures(row) + f"  {speed * self.batch_size:,.0f} images/s"
        if self.bar:
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
        """Something a person should know."""
        (self.bar.console if self.bar else self.console).print(
            f"{self.label}: {message}", highlight=False, markup=False, soft_wrap=True
        )


def every_so_often(say: Say, what: str) -> Callable[[int, int | None], None]:
    """A function of how much is done, and of how much where that is known, which says it every `LINE_SECONDS`."""
    told = time.monotonic()

    def tick(done: int, total: int | None) -> None:
        nonlocal told
        if time.monotonic() - told > LINE_SECONDS:
            say(f"{done:,}" + (f" of {total:,}" if total else "") + f" {what}")
            told = time.monotonic()

    return tick


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
        console=console,
    )


def _figures(row: Mapping[str, Any]) -> str:
    shown = {"train_error": "training error", "test_error": "test error"}
    return "".join(f"  {label} {row[key]:.1f} %" for key, label in shown.items() if key in row)
