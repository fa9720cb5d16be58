"""How far runs are, for a page that is watched: read from their records alone, so they may run on another machine."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from deepres.findings import describe, summary_of
from deepres.pace import pace_of
from deepres.records import METRICS, TIMING, Json, Run
from deepres.runtime.errors import InputError
from deepres.runtime.figures import LOSS, Figure

FILES = ("config.json", METRICS, TIMING, "done.json")
QUIET_SECONDS = 120.0  # without a new row before that is said, or three times the longest pause so far
START_SECONDS = 600.0  # the same before the second row: decoding and compiling come before the first
Signature = tuple[tuple[int, int] | None, ...]


@dataclass(frozen=True)
class RunProgress:
    """How far a run is, with the newest `figures` of its task, None before there is one; `share` is from 0 to 1."""

    name: str
    network: str
    state: str
    done: bool = False
    iteration: int = 0
    iterations: int | None = None
    share: float = 0.0
    images_per_second: float | None = None
    seconds_left: float | None = None
    lr: float | None = None
    figures: Mapping[Figure, float | None] = field(default_factory=dict[Figure, float | None])


@dataclass(frozen=True)
class Live:
    """What a watched page shows beside its findings: all runs, the time of day, and after how many seconds it reloads.

    `reload` is None on the last page, which stays as it is.
    """

    runs: tuple[RunProgress, ...]
    at: str
    reload: int | None

    @property
    def figures(self) -> tuple[Figure, ...]:
        """The figures of all runs, each once."""
        return tuple(dict.fromkeys(figure for run in self.runs for figure in run.figures))

    @property
    def share(self) -> float:
        """How much of all runs together is done, from 0 to 1."""
        return sum(run.share for run in self.runs) / max(len(self.runs), 1)


class Observer:
    """Looks at runs again and again, and knows for how long each has not changed, by the clock of this machine."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.clock = clock
        self.seen: dict[Path, tuple[Signature, float]] = {}

    def quiet(self, run: Run) -> float:
        """Seconds since the records of `run` were seen to change."""
        now, signature = self.clock(), signature_of(run)
        before = self.seen.get(run.path)
        if before is None or before[0] != signature:
            self.seen[run.path] = signature, now
        return now - self.seen[run.path][1]

    def progress(self, run: Run) -> RunProgress:
        """How far `run` is; what cannot be read stands in its state."""
        name = run.path.resolve().name
        try:
            if not run.exists:
                return RunProgress(name, "", "has not begun")
            return self._progress(run, name)
        except (InputError, OSError) as error:
            return RunProgress(name, "", str(error))

    def _progress(self, run: Run, name: str) -> RunProgress:
        # The newest figures.
        summary, newest = summary_of(run), dict[str, float]()
        for row in run.metrics():
            newest |= row
        recipe = summary.recipe
        total = recipe.get("iterations")
        # The pace, and what is left, unless the run seems to stand still.
        timing = run.timing()
        pace = pace_of(timing, total or 0, recipe.get("evaluate_every") or total or 1)
        pauses = [after["seconds"] - before["seconds"] for before, after in pairwise(timing)]
        quiet, still = self.quiet(run), max(QUIET_SECONDS, 3 * max(pauses)) if pauses else START_SECONDS
        state = "trains" if summary.iteration else "begins"
        if summary.done is not None:
            state, pace = "finished", None
        elif quiet > still:
            state, pace = f"no new figures for {duration(quiet)}", None
        return RunProgress(
            name,
            describe(summary.network)[0],
            state,
            summary.done is not None,
            summary.iteration,
            total,
            1.0 if summary.done else min(summary.iteration / total, 1.0) if total else 0.0,
            _images_per_second(summary.done, pace and pace.steps_per_second * recipe.get("batch_size", 0)),
            pace and pace.seconds_left,
            newest.get("lr"),
            {figure: newest.get(figure.key) for figure in dict.fromkeys((LOSS, *summary.reported.main))},
        )


def signature_of(run: Run) -> Signature:
    """What changes whenever the records of `run` do: the time and size of each file."""
    return tuple(_stat(run.path / name) for name in FILES)


def duration(seconds: float) -> str:
    """Seconds in words, with the two largest units: `45 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`."""
    whole = round(seconds)
    for unit, size, less, part in (("d", 86_400, "h", 3_600), ("h", 3_600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit}" + (f" {rest} {less}" if rest else "")
    return f"{whole} s"


def _stat(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _images_per_second(done: Json | None, now: float | None) -> float | None:
    """Those of a finished run are over all its work."""
    return done.get("images_per_second") if done else now
