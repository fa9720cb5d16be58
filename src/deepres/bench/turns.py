"""The turns of a contestant: requests are lines of its input, answers are JSON lines of its output."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TextIO


class Turns:
    """What a contestant's process is asked for, and its answers."""

    def __init__(self, requests: Iterable[str], answers: TextIO):
        self.requests, self.answers = iter(requests), answers

    def __iter__(self) -> Iterator[str]:
        """The requests; each waits for the contest."""
        return self.requests

    def asked(self) -> bool:
        """Wait for the next request; False when the contest is over."""
        return next(self.requests, None) is not None

    def answer(self, value: Mapping[str, Any]) -> None:
        """Send one answer."""
        self.answers.write(json.dumps(value) + "\n")
        self.answers.flush()

    def work(self, turn: Callable[[], int], figures: Callable[[], Mapping[str, float]]) -> None:
        """Call `turn` once for every request; answer its seconds and images, or what `figures` says instead."""
        for _ in self:
            start = time.perf_counter()
            images = turn()
            self.answer({"seconds": time.perf_counter() - start, "images": images} | dict(figures()))
