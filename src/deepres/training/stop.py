"""How training is told to stop: by SIGINT, SIGTERM or SIGHUP, in order, and at once where it waits or tests."""

import _thread
import os
import signal
import time
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

from deepres.runtime import ending

GRACE_SECONDS = 10.0  # for data that a rank waits for when it is told to stop, so that all ranks can stop in order


class Stopping(BaseException):
    """Raised by a signal within `Stops.at_once`. Not an `Exception`, which would pass for a picture's damage."""


class Stops:
    """The signals that the training loop of this process has caught, in place of dying of them."""

    def __init__(self):
        self.caught: list[int] = []
        self._raises = False
        self._waits_since: float | None = None

    @contextmanager
    def collected(self, alone: bool) -> Generator[None]:
        """Within, signals are collected, but for those that are ignored; a second one of a kind acts as ever.

        A rank that is not `alone` ends by the signal where it waits for data and they do not come for a while.
        """
        before = {}
        self.caught.clear()

        def note(number: int, _: FrameType | None) -> None:
            self.caught.append(number)
            signal.signal(number, before[number])
            if self._raises:
                raise Stopping
            if not alone:
                _thread.start_new_thread(self._insist, (number,))  # `threading` has a lock, which may be held

        for number in ending.SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as of SIGHUP under nohup
                before[number] = signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def at_once(self) -> Generator[None]:
        """Within, a signal raises `Stopping`, one that came before as well: for what can be left half-done."""
        self._raises = True
        try:
            if self.caught:
                raise Stopping
            yield
        finally:
            self._raises = False

    @contextmanager
    def waiting(self, alone: bool) -> Generator[None]:
        """Within, data are waited for: a process that trains `alone` stops at once, a rank after a while."""
        if alone:
            with self.at_once():
                yield
            return
        self._waits_since = time.monotonic()
        try:
            yield
        finally:
            self._waits_since = None

    def _insist(self, number: int) -> None:
        """Send the signal again where the data do not come: the other ranks wait for this one."""
        while self._waits_since is None or time.monotonic() - self._waits_since < GRACE_SECONDS:
            time.sleep(GRACE_SECONDS / 20)
        os.kill(os.getpid(), number)


stops = Stops()
