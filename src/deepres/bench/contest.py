"""Contestants in turn: A B A B ..., the ratio pair by pair."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from statistics import median
from typing import Any

from deepres.bench.contestants import check
from deepres.bench.job import OURS, Job, is_epoch
from deepres.records import Json, describe_environment
from deepres.runtime.errors import InputError, Say


class Process:
    """A contestant in its own process, idle between its turns."""

    def __init__(self, name: str, job: Job):
        self.name = name
        self.complaints = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  closed with the process
        command = [sys.executable, "-m", "deepres.bench.worker", name, job.as_text()]
        pipe = subprocess.PIPE
        self.child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self.complaints, encoding="utf-8")

    def setup(self) -> Json:
        """Wait until it is ready: its `setting` and `facts`. Raises `InputError` where it cannot take part."""
        answer = self._read()
        if "error" in answer:
            raise InputError(f"{self.name} cannot take part: {answer['error']}")
        return answer

    def turn(self) -> Json:
        """One turn: `seconds`, `images`, and what else it measured."""
        assert self.child.stdin is not None
        with suppress(BrokenPipeError):  # of a dead one, whose last words follow
            self.child.stdin.write("turn\n")
            self.child.stdin.flush()
        return self._read()

    def _read(self) -> Json:
        assert self.child.stdout is not None
        line = self.child.stdout.readline()
        if not line:
            self.complaints.seek(0)
            last = (self.complaints.read().strip().splitlines() or ["it said nothing"])[-1]
            raise InputError(f"{self.name} died at its work (exit code {self.child.wait()}): {last}")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        assert self.child.stdin is not None and self.child.stdout is not None
        self.child.kill()
        self.child.wait()
        self.child.stdout.close()
        with suppress(BrokenPipeError):
            self.child.stdin.close()
        self.complaints.close()


@contextmanager
def _running(name: str, job: Job) -> Generator[Process]:
    """A contestant's process, ended on leaving."""
    process = Process(name, job)
    try:
        yield process
    finally:
        process.close()


def contest(job: Job, rivals: Sequence[str], pairs: int, warm_up: int, say: Say) -> list[Json]:
    """Measure ours and the rivals in turn, `pairs` rounds after `warm_up` ones (memory: none); a record for each.

    A ratio is the rival's time over ours in the same round: above 1 we are faster. Raises `InputError` for fewer
    than one pair, a warm-up below 0, no rivals, and for a contestant that cannot take part, or dies.
    """
    if pairs < 1:
        raise InputError(f"a contest needs a pair of turns or more, not {pairs}; give --pairs")
    if warm_up < 0:
        raise InputError(f"--warm-up is {warm_up}, but must be 0 or more")
    if not rivals:
        raise InputError(f"no rival takes part in {job.task} of {job.network} with such data")
    names = [OURS, *rivals]
    for name in names:
        check(name, job)
    if job.task == "memory":
        settings, turns = _fresh_turns(job, names, pairs, say)
    else:
        settings, turns = _standing_turns(job, names, pairs, warm_up, say)
    environment = describe_environment()
    ours = _side(OURS, settings[OURS], turns[OURS])
    return [
        {
            "work": json.loads(job.as_text()) | {"epoch": is_epoch(job)},
            "ours": ours,
            "rival": _side(name, settings[name], turns[name]),
            "ratio": _ratio(turns[OURS], turns[name]),
            "environment": environment,
        }
        for name in rivals
    ]


Turns = dict[str, list[Json]]


def _standing_turns(
    job: Job, names: Sequence[str], pairs: int, warm_up: int, say: Say
) -> tuple[dict[str, Json], Turns]:
    """Every contestant is set up once and waits while the others work."""
    with ExitStack() as stack:
        settings: dict[str, Json] = {}
        processes: dict[str, Process] = {}
        for name in names:
            processes[name] = stack.enter_context(_running(name, job))
            settings[name] = processes[name].setup()
            say(f"{name}: {settings[name]['setting']}")
        turns: Turns = {name: [] for name in names}
        for round_ in range(warm_up + pairs):
            for name in names:
                turn = processes[name].turn()
                if round_ >= warm_up:
                    turns[name].append(turn)
            _say_round(turns, say)
        return settings, turns


def _fresh_turns(job: Job, names: Sequence[str], pairs: int, say: Say) -> tuple[dict[str, Json], Turns]:
    """A new process for every turn, so that no memory is left over from the one before, and nothing is warm."""
    settings: dict[str, Json] = {}
    turns: Turns = {name: [] for name in names}
    for _ in range(pairs):
        for name in names:
            with _running(name, job) as process:
                settings[name] = process.setup()
                turns[name].append(process.turn())
        _say_round(turns, say)
    return settings, turns


def _say_round(turns: Turns, say: Say) -> None:
    rows = {name: done[-1]["seconds"] for name, done in turns.items() if done}
    if rows:
        number = len(next(iter(turns.values())))
        say(f"round {number}: " + ", ".join(f"{name} {seconds:.3f} s" for name, seconds in rows.items()))


def _side(name: str, setup: Json, turns: Sequence[Json]) -> Json:
    """One contestant's part of a record; the median and every turn."""
    measured = {key: [turn[key] for turn in turns] for key in turns[0]}
    seconds = [turn["seconds"] / turn["images"] for turn in turns]
    medians = {key: median(values) for key, values in measured.items()}
    return {
        "name": name,
        "setting": setup["setting"],
        "facts": setup["facts"],
        "median": medians,
        "images_per_second": 1 / median(seconds),
        "turns": measured,
    }


def _ratio(ours: Sequence[Json], theirs: Sequence[Json]) -> dict[str, Any]:
    """The rival's time for an image over ours, pair by pair."""
    ratios = [
        (their["seconds"] / their["images"]) / (our["seconds"] / our["images"])
        for our, their in zip(ours, theirs, strict=True)
    ]
    return {"median": median(ratios), "min": min(ratios), "max": max(ratios), "pairs": len(ratios)}
