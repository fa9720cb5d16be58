"""A contest: the contestants work in turn (A B A B ...), and each pair of turns gives a ratio of times."""

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict
from statistics import median
from typing import Any

from deepres.bench.contestants import check
from deepres.bench.job import OURS, Job, is_epoch
from deepres.records import Json
from deepres.runtime.environment import describe_environment
from deepres.runtime.errors import InputError, Say

END_SECONDS = 10.0  # that a contestant has to leave nothing behind


class Process:
    """A contestant in a process of its own, which is idle between its turns."""

    def __init__(self, name: str, job: Job, limit: float | None = None):
        self.name, self.limit = name, limit
        self.complaints = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  closed with the process
        command = [sys.executable, "-m", "deepres.bench.worker", name, json.dumps(asdict(job))]
        pipe = subprocess.PIPE
        self.child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self.complaints, encoding="utf-8")

    def setup(self) -> Json:
        """Wait until it is ready; return its `setting` and `facts`.

        Raises `InputError` where it cannot take part, and where it is not ready within its limit of seconds.
        """
        answer = self._read()
        if "error" in answer:
            raise InputError(f"{self.name} cannot take part: {answer['error']}")
        return answer

    def turn(self) -> Json:
        """Let it work once; return `seconds`, `images` and its other figures. Raises `InputError` where it died."""
        assert self.child.stdin is not None
        with suppress(BrokenPipeError):  # where it has died: `_read` raises its last words
            self.child.stdin.write("turn\n")
            self.child.stdin.flush()
        return self._read()

    def _read(self) -> Json:
        """The next answer of the process, or its last words as an `InputError`."""
        assert self.child.stdout is not None
        late = threading.Event()
        timer = threading.Timer(self.limit, lambda: (late.set(), self.child.kill())) if self.limit else None
        if timer is not None:
            timer.start()
        line = self.child.stdout.readline()
        if timer is not None:
            timer.cancel()
        if late.is_set():
            raise InputError(f"{self.name} was not ready within {self.limit:.0f} s")
        if not line:
            self.complaints.seek(0)
            last = (self.complaints.read().strip().splitlines() or ["it said nothing"])[-1]
            raise InputError(f"{self.name} died at its work (exit code {self.child.wait()}): {last}")
        return json.loads(line)

    def close(self) -> None:
        """End the process: with the end of its input, or else by force."""
        assert self.child.stdin is not None and self.child.stdout is not None
        with suppress(BrokenPipeError):
            self.child.stdin.close()
        try:
            self.child.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        self.child.stdout.close()
        self.complaints.close()


def contest(
    job: Job, rivals: Sequence[str], pairs: int, warm_up: int, say: Say, limit: float | None = None
) -> list[Json]:
    """Measure ours and the rivals in turn for `pairs` rounds; return a record for each rival.

    `warm_up` rounds before them do not count; the task `memory` has none. A ratio is the rival's time over ours in the
    same round: above 1, ours is faster. With a `limit` in seconds for each answer, a rival that cannot take part is
    left out, and `say` is told why. Raises `InputError` for less than one pair, a warm-up below 0, no rivals, and for a
    contestant that cannot take part or dies.
    """
    # Refuse what cannot be measured.
    if pairs < 1:
        raise InputError(f"a contest needs a pair of turns or more, not {pairs}; give --pairs")
    if warm_up < 0:
        raise InputError(f"--warm-up is {warm_up}, but must be 0 or more")
    if not rivals:
        raise InputError(f"no rival takes part in {job.task} of {job.network} with such data")
    check(OURS, job)
    names = [OURS, *(name for name in rivals if _takes_part(name, job, limit is None, say))]
    if names == [OURS]:
        raise InputError(f"no rival takes part in {job.task} of {job.network}")
    # Measure.
    fresh = job.task == "memory"
    settings, turns = _fresh(job, names, pairs, say) if fresh else _standing(job, names, (pairs, warm_up), say, limit)
    # A record for each rival.
    environment = describe_environment()
    ours = _side(OURS, settings[OURS], turns[OURS])
    return [
        {
            "work": asdict(job) | {"epoch": is_epoch(job)},
            "ours": ours,
            "rival": _side(name, settings[name], turns[name]),
            "ratio": _ratio(turns[OURS], turns[name]),
            "environment": environment,
        }
        for name in rivals
        if name in settings
    ]


def _takes_part(name: str, job: Job, must: bool, say: Say) -> bool:
    """Whether a rival takes part; `say` is told why not, but where it `must`, the `InputError` goes on."""
    try:
        check(name, job)
    except InputError as error:
        if must:
            raise
        say(f"left out: {error}")
        return False
    return True


Turns = dict[str, list[Json]]
Measured = tuple[dict[str, Json], Turns]  # the setup of each contestant, and its turns


def _standing(job: Job, names: Sequence[str], rounds: tuple[int, int], say: Say, limit: float | None) -> Measured:
    """Set up every contestant once; its process waits while the others work."""
    settings: dict[str, Json] = {}
    turns: Turns = {}
    pairs, warm_up = rounds
    with ExitStack() as stack:
        # One after the other: a contestant that sets up may measure time.
        processes: dict[str, Process] = {}
        for name in names:
            process = stack.enter_context(closing(Process(name, job, limit)))
            try:
                settings[name] = process.setup()
            except InputError as error:
                if limit is None or name == OURS:
                    raise
                say(f"left out: {error}")
                continue
            processes[name], turns[name] = process, []
            say(f"{name}: {settings[name]['setting']}")
        # The rounds.
        for round_ in range(warm_up + pairs):
            for name, process in processes.items():
                turn = process.turn()
                if round_ >= warm_up:
                    turns[name].append(turn)
            _say_round(turns, say)
    return settings, turns


def _fresh(job: Job, names: Sequence[str], pairs: int, say: Say) -> Measured:
    """Start a new process for every turn, so that no memory is left over from the turn before."""
    settings: dict[str, Json] = {}
    turns: Turns = {name: [] for name in names}
    for _ in range(pairs):
        for name in names:
            with closing(Process(name, job)) as process:
                settings[name] = process.setup()
                turns[name].append(process.turn())
        _say_round(turns, say)
    return settings, turns


def _say_round(turns: Turns, say: Say) -> None:
    if number := len(turns[OURS]):  # none during the warm-up
        say(f"round {number}: " + ", ".join(f"{name} {done[-1]['seconds']:.3f} s" for name, done in turns.items()))


def _side(name: str, setup: Json, turns: Sequence[Json]) -> Json:
    """One contestant's part of a record: its setup, all turns and their medians."""
    measured = {key: [turn[key] for turn in turns] for key in turns[0]}
    return {
        "name": name,
        **setup,
        "median": {key: median(values) for key, values in measured.items()},
        "images_per_second": 1 / median(_seconds_per_image(turns)),
        "turns": measured,
    }


def _ratio(ours: Sequence[Json], theirs: Sequence[Json]) -> dict[str, Any]:
    """The rival's time for an image over ours, pair by pair."""
    ratios = [their / our for our, their in zip(_seconds_per_image(ours), _seconds_per_image(theirs), strict=True)]
    return {"median": median(ratios), "min": min(ratios), "max": max(ratios), "pairs": len(ratios)}


def _seconds_per_image(turns: Sequence[Json]) -> list[float]:
    return [turn["seconds"] / turn["images"] for turn in turns]
