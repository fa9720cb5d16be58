"""The pace of a run, from the rows of its `timing.jsonl`: steps a second, and the time that is left."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

RECENT = 20  # rows that the present pace is taken from


@dataclass(frozen=True)
class Pace:
    """Training steps a second, tests left out; and the seconds that the run still needs, tests included."""

    steps_per_second: float
    seconds_left: float


def rates(timing: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, float]]:
    """Each iteration with the training steps a second since the row before it.

    Rows of `timing.jsonl` have the `seconds` of work so far. A row that repeats an iteration stands behind the test
    that was made there, so that no test counts as training.
    """
    for (before, began), (iteration, ended) in pairwise(_points(timing)):
        if iteration > before and ended > began:
            yield iteration, (iteration - before) / (ended - began)


def pace_of(timing: Sequence[Mapping[str, Any]], iterations: int, evaluate_every: int) -> Pace | None:
    """The pace over the last rows of a run of `iterations` steps, tested at each multiple of `evaluate_every`.

    None where the rows do not tell it yet. The first steps, which load and compile, count only until there are others.
    """
    recent = _points(timing)[-RECENT:]
    if len(recent) > 2 and recent[0][0] == 0:
        recent = recent[1:]
    # The time of steps, and that of the tests, which stand between two rows of one iteration.
    spans = [(after[0] - before[0], after[1] - before[1]) for before, after in pairwise(recent)]
    steps = sum(steps for steps, _ in spans)
    seconds = sum(seconds for steps, seconds in spans if steps > 0)
    tests = [seconds for steps, seconds in spans if steps == 0]
    if steps <= 0 or seconds <= 0:
        return None
    # What is left: steps, and tests at the marks behind the newest iteration, and at the end.
    done = recent[-1][0]
    marks = -(-iterations // evaluate_every) - done // evaluate_every
    each_test = sum(tests) / len(tests) if tests else 0.0
    return Pace(steps / seconds, max(iterations - done, 0) * seconds / steps + max(marks, 0) * each_test)


def _points(timing: Sequence[Mapping[str, Any]]) -> list[tuple[int, float]]:
    """Iteration and seconds of each row, from the beginning of the run on."""
    return [(0, 0.0), *((row["iteration"], row["seconds"]) for row in timing)]
