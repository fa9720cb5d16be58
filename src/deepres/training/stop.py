"""Stopping by SIGINT, SIGTERM or SIGHUP: after the current step, or at once where training waits or tests."""

import _thread
import os
import signal
import time
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

from deepres.runtime import ending

GRACE_SECONDS = 10.0  # that a rank which is told to stop waits for data, so that all ranks stop after the same step


class Stopping(BaseException):
    """Raised by a signal within `Stops.at_once`. Not an `Exception`, which would be taken for a damaged picture."""


class Stops:
    """The signals that this process has caught since training began, instead of ending at once."""

    def __init__(self):
        self.caught: list[int] = []
        self._raises = False
        self._waits_since: float | None = None

    @contextmanager
    def collected(self, alone: bool) -> Generator[None]:
        """Collect signals within the context, except ignored ones; a second signal of a kind ends the process as usual.

        A rank that is not `alone` ends by the signal where it waits for data that do not come for `GRACE_SECONDS`.
        """
        before = {}
        self.caught.clear()

        def note(number: int, _: FrameType | None) -> None:
            self.caught.append(number)
            signal.signal(number, before[number])
            if self._raises:
                raise Stopping
            if not alone:
                _thread.start_new_thread(self._insist, (number,))  # not `threading`, whose lock may be held

        for number in ending.SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as SIGHUP is under nohup
                before[number] = signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def at_once(self) -> Generator[None]:
        """Let a signal, or an earlier one, raise `Stopping` within the context: for work that may be left half-done."""
        self._raises = True
        try:
            if self.caught:
                raise Stopping
            yield
        finally:
            self._raises = False

    @contextmanager
    def waiting(self, alone: bool) -> Generator[None]:
        """The context in which data are waited for: a process `alone` stops at once, one of several ranks later."""
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
        """End this process by the signal where its data do not come: the other ranks would wait for it for ever."""
        while self._waits_since is None or time.monotonic() - self._waits_since < GRACE_SECONDS:
            time.sleep(GRACE_SECONDS / 20)
        os.kill(os.getpid(), number)


stops = Stops()
