"""Ends the command line on SIGINT, SIGTERM or SIGHUP (the terminal was closed): with exit code 128 plus the number of
the signal, or by the signal itself."""

import _thread
import ctypes
import os
import signal
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

from deepres.runtime.files import remove_unfinished

SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
GRACE_SECONDS = 5.0  # time to remove unfinished files; then the process ends even if a read hangs


@contextmanager
def in_order() -> Generator[None]:
    """Inside this context, a signal ends the process by an exception, so that unfinished files are removed.

    Training has handlers of its own, which write a checkpoint. Signals that the process was started to ignore stay
    ignored.
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


class _Stack(ctypes.Structure):
    """An alternate signal stack as Linux has it."""

    _fields_ = [("place", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


@contextmanager
def kept_signal_stack() -> Generator[None]:
    """Put the alternate signal stack of this thread back after the context.

    OpenVINO (2025.2 to 2026.4) leaves one whose memory it has freed, so that the next signal, Ctrl-C for example, would
    end the process by a segmentation fault. Does nothing elsewhere than on Linux.
    """
    if sys.platform != "linux":
        yield
        return
    library, before = ctypes.CDLL(None), _Stack()
    library.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        library.sigaltstack(ctypes.byref(before), None)


def _end(number: int, frame: FrameType | None) -> None:
    """The handler: end by an exception, or at once during an import. A second signal of the same kind ends at once.

    During an import, an exception could be caught by the library or abort it. So unfinished files are removed here, and
    the signal then ends the process.
    """
    signal.signal(number, signal.SIG_DFL)
    if _imports(frame):
        remove_unfinished()
        os.kill(os.getpid(), number)
    _thread.start_new_thread(_end_late, (128 + number,))  # not with `threading`, whose lock this thread may hold
    sys.exit(128 + number)


def _imports(frame: FrameType | None) -> bool:
    """Whether an import is running in `frame` or in one of its callers."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _end_late(code: int) -> None:
    """End the process if the exception was caught somewhere, or waits for a thread that hangs."""
    time.sleep(GRACE_SECONDS)
    os._exit(code)
