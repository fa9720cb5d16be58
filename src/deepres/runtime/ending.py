"""How the command line ends where SIGINT, SIGTERM, SIGHUP (of a terminal that is gone) tell it to: by the signal, or
with 128 and its number."""

import _thread
import os
import signal
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

from deepres.runtime.files import remove_unfinished

SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
GRACE_SECONDS = 5.0  # to take away what is half-written; a read that hangs does not hold the process longer


@contextmanager
def in_order() -> Generator[None]:
    """Within, a signal ends the process by an exception, so that what is half-written goes.

    Training has a way of its own, with a checkpoint. What the process was started to ignore stays ignored.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}
    before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> None:
    """End by an exception, or at once; a second signal of the kind does so anyway.

    In an import an exception would be lost in a library's own code, or abort it: what is half-written goes first.
    """
    signal.signal(number, signal.SIG_DFL)
    if _imports(frame):
        remove_unfinished()
        os.kill(os.getpid(), number)
    _thread.start_new_thread(_end_late, (128 + number,))  # not by `threading`, whose lock this thread may hold
    sys.exit(128 + number)


def _imports(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _end_late(code: int) -> None:
    """End the process where the exception was lost, or waits for a thread that hangs."""
    time.sleep(GRACE_SECONDS)
    os._exit(code)
