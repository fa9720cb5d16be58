"""Hands the figures of a run to trackers (TensorBoard and others) while it goes on.

The trackers follow the run's own records: they get what `metrics.jsonl` holds, at the same steps, and images/s.
"""

import json
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from deepres.pace import rates
from deepres.records import METRICS, TIMING, Json, Run
from deepres.training.trackers import TRACKERS, Tracker
from deepres.training.trainer import Monitor


class Tracked:
    """A monitor that shows what `monitor` shows and keeps the trackers called `names` up to date.

    They begin with the first step, when a resumed run has cut its records back to its checkpoint, and get all rows up
    to there first: also those that were recorded without them, or that a kill kept from them.
    """

    def __init__(self, monitor: Monitor, run: Run, names: Iterable[str]):
        self.monitor, self.run, self.names = monitor, run, tuple(dict.fromkeys(names))
        self.trackers: list[Tracker] | None = None
        self.metrics, self.timing = Tail(run.path / METRICS), Tail(run.path / TIMING)
        self.batch_size = 0
        self.last_time: Json = {"iteration": 0, "seconds": 0.0}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None):
        for tracker in self.trackers or ():
            tracker.close(failed=kind is not None)

    def step(self, iteration: int, row: Mapping[str, Any]) -> None:
        """Show that `iteration` iterations are done, and hand on the rows that were recorded since the last call."""
        self.monitor.step(iteration, row)
        if not self.names:
            return
        rows, begun = self.metrics.rows(), self.trackers is not None
        if self.trackers is None:
            self.batch_size = self.run.config["recipe"]["batch_size"]
            self.trackers = [TRACKERS[name](self.run, self.monitor.say) for name in self.names]
        if rows:
            self.hand_on(rows, begun)

    def say(self, message: str) -> None:
        """Show a message."""
        self.monitor.say(message)

    def hand_on(self, rows: Iterable[Json], new: bool) -> None:
        """Write `rows` to each tracker. Those that are not `new` get the time of day at which they were recorded."""
        timing = [self.last_time, *self.timing.rows()]
        self.last_time = timing[-1]
        # Images a second, and the age in seconds of each row, both from the timing rows.
        speeds = {at: steps * self.batch_size for at, steps in rates(timing)}
        at, seconds = ([row[name] for row in timing] for name in ("iteration", "seconds"))
        # The figures of a window and of a test at the same iteration go together.
        for iteration, group in groupby(rows, key=lambda row: row["iteration"]):
            figures = {name: value for row in group for name, value in named(row).items()}
            if iteration in speeds:
                figures["train/images_per_second"] = speeds[iteration]
            age = 0.0 if new else seconds[-1] - float(np.interp(iteration, at, seconds))
            for tracker in self.trackers or ():
                tracker.write(iteration, figures, age)


class Tail:
    """Reads the rows that are appended to a file of JSON lines, each row once."""

    def __init__(self, file: Path):
        self.file, self.place = file, 0

    def rows(self) -> list[Json]:
        """The whole rows since the last call; asks the file for its size alone where there are none."""
        try:
            if self.file.stat().st_size <= self.place:
                return []
        except FileNotFoundError:  # no window has ended yet
            return []
        with self.file.open("rb") as stream:
            stream.seek(self.place)
            content = stream.read()
        whole = content[: content.rfind(b"\n") + 1]
        self.place += len(whole)
        return [json.loads(line) for line in whole.splitlines()]


def named(row: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a row of `metrics.jsonl` by the part that they are of: `train/error`, `test/error`."""
    part = "train" if "lr" in row else "test"
    return {f"{part}/{name.removeprefix(f'{part}_')}": value for name, value in row.items() if name != "iteration"}
