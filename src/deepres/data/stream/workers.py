"""Processes that turn requests into answers ahead of time. The order of the answers does not depend on their speed.

No thread stands between a worker and its pipe that could lose an answer: every wait ends with the answer, or with the
end of the worker. `transport` moves the answers.
"""

import contextlib
import gc
import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any, NamedTuple, TypeVar, cast

import torch

from deepres.data.stream.transport import receive, send
from deepres.runtime.ending import SIGNALS
from deepres.runtime.errors import InputError, Say

SAY_SECONDS = 30.0  # of waiting before a message, doubled after each message
PARENT_SECONDS = 5.0  # how often an idle worker checks that its parent process still exists
START_SECONDS = 20.0  # until a forked process has begun; it needs milliseconds, unless it hangs
STARTS = 3  # of a process that hangs
JOIN_SECONDS = 5.0  # a killed process ends at once, unless it hangs in the kernel
SMALL = 2**14  # bytes of a request; two of them fit into the buffer of any pipe, so that sending never waits
R = TypeVar("R")
A = TypeVar("A")
Work = Callable[[R], A]


class _Worker(NamedTuple):
    """A worker process, and our end of its pipe."""

    process: BaseProcess
    pipe: Connection


def answers(
    work: Work[R, A],
    requests: Iterable[R],
    count: int,
    what: str,
    say: Say,
    context: str | None = None,
    pinned: bool = False,
) -> Generator[A]:
    """The answer of `work` to each request, any value that pickles, in the order of the requests.

    `count` worker processes (0: this process does the work) work on the next two requests each. They are ended with
    the generator, even in the middle of a request. `context` is their start method, as `multiprocessing` names it.
    `say` is told of a long wait for `what`. Tensors arrive in `pinned` memory where a GPU takes them. Raises what
    `work` raises, and `InputError` where a worker is lost or none can be started.
    """
    if not count:
        yield from map(work, requests)
        return
    crew: list[_Worker] = []
    end = Finalize(None, _end, (crew,), exitpriority=10)  # when Python exits, before it waits for the processes
    try:
        _start(crew, work, count, context)
        yield from _in_turn(crew, requests, partial(_receive, crew, what=what, say=say, pinned=pinned))
    finally:
        end()


def _start(crew: list[_Worker], work: Work[Any, Any], count: int, context: str | None) -> None:
    """Add `count` processes to the crew. A signal ends every wait of it."""
    how = multiprocessing.get_context(context)
    forks = how.get_start_method() == "fork"
    start = partial(_started, how, work if forks else None)
    try:
        with _starting():
            crew.extend(start() for _ in range(count))
        for place in range(count if forks else 0):
            _await_beginning(crew, place, start)
    except OSError as error:
        raise InputError(
            f"a process that decodes pictures cannot be started ({error}); give fewer (--set workers=N)"
        ) from None
    if not forks:
        _hand_over(crew, work)


def _started(how: BaseContext, work: Work[Any, Any] | None) -> _Worker:
    ours, theirs = how.Pipe()
    process = how.Process(target=_serve, args=(theirs, work, os.getpid()), daemon=True)  # pyright: ignore[reportAttributeAccessIssue]
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _await_beginning(crew: list[_Worker], place: int, start: Callable[[], _Worker]) -> None:
    """Wait for a forked process to begin, and fork one that hangs anew.

    A fork copies one thread and all locks. One that another thread held is never released in the new process.
    """
    for _ in range(STARTS):
        if crew[place].pipe.poll(START_SECONDS):
            with contextlib.suppress(EOFError, ConnectionError):  # `_receive` tells of a process that has ended
                crew[place].pipe.recv_bytes()
            return
        _end([crew[place]])
        with _starting():
            crew[place] = start()
    raise InputError(
        f"a process that decodes pictures hangs where it starts ({STARTS} were started); give --set workers=0"
    )


def _hand_over(crew: list[_Worker], work: Work[Any, Any]) -> None:
    """Send the work to processes that were not forked.

    As an argument of the process, `multiprocessing` would send its tensors through /dev/shm, with signals held back.
    Raises `InputError` where one has ended.
    """
    message = pickle.dumps(work)
    try:
        for worker in crew:
            worker.pipe.send_bytes(message)
    except OSError:
        raise _lost(crew) from None


def _end(crew: list[_Worker]) -> None:
    """Kill the processes. They write no files that could be left incomplete, and they may hang in a read."""
    for worker in crew:
        worker.process.kill()
    for worker in crew:
        worker.process.join(JOIN_SECONDS)
        worker.pipe.close()
    crew.clear()


def _in_turn(crew: list[_Worker], requests: Iterable[Any], receive_from: Callable[[_Worker], Any]) -> Iterator[Any]:
    """The answers in the order of the requests. Request i goes to worker i modulo the number of workers."""
    # Large requests are sent one at a time, since sending two could wait for the worker.
    messages = map(pickle.dumps, requests)
    first = next(messages, b"")
    messages = chain([first] if first else [], messages)
    most = len(crew) * (2 if len(first) <= SMALL else 1)

    def ask(asked: int, given: int) -> int:
        for message in islice(messages, most - (asked - given)):
            try:
                crew[asked % len(crew)].pipe.send_bytes(message)
            except OSError:
                raise _lost(crew) from None
            asked += 1
        return asked

    given, asked = 0, ask(0, 0)
    while given < asked:
        answer = receive_from(crew[given % len(crew)])
        given += 1
        asked = ask(asked, given)
        yield answer


def _receive(crew: list[_Worker], worker: _Worker, what: str, say: Say, pinned: bool) -> Any:
    """The next answer of `worker`. Raises `InputError` where any worker has ended."""
    ends = [each.process.sentinel for each in crew]
    begun, patience = time.monotonic(), SAY_SECONDS
    while not (ready := wait([worker.pipe, *ends], patience)):
        states = sorted({_state(each.process) for each in crew})
        say(
            f"waiting for pictures of {what} for {time.monotonic() - begun:.0f} s, as of a slow disk or network; the "
            f"processes that decode are {' or '.join(states)}"
        )
        patience *= 2
    if worker.pipe in ready:
        try:
            return receive(worker.pipe, pinned)
        except (EOFError, ConnectionError):
            pass
    raise _lost(crew)


def _state(process: BaseProcess) -> str:
    import psutil

    try:
        return psutil.Process(process.pid).status()
    except psutil.Error:
        return "gone"


def _lost(crew: list[_Worker]) -> InputError:
    """The error for a worker that has ended."""
    ended = wait([worker.process.sentinel for worker in crew], JOIN_SECONDS)
    for worker in crew:
        if worker.process.sentinel in ended:
            worker.process.join(JOIN_SECONDS)  # the sentinel comes a moment before the exit code
    code = next((worker.process.exitcode for worker in crew if worker.process.exitcode is not None), None)
    how = f"killed by signal {-code}" if code is not None and code < 0 else f"exit code {code}"
    return InputError(
        f"a process that decodes pictures was lost ({how}); give more memory, or fewer processes (--set workers=N)"
    )


def _serve(pipe: Connection, work: Work[Any, Any] | None, parent: int) -> None:
    """The main function of a worker: it answers requests until its parent is gone. No `work`: it is handed over."""
    _ignore_endings()
    torch.set_num_threads(1)  # PyTorch's pool of threads does not survive a fork
    with contextlib.suppress(EOFError, ConnectionError):
        if work is None:
            work = cast("Work[Any, Any]", pickle.loads(pipe.recv_bytes()))
        else:
            pipe.send_bytes(b"")  # for `_await_beginning`
        while True:
            while not pipe.poll(PARENT_SECONDS):
                if os.getppid() != parent:
                    return
            request = pickle.loads(pipe.recv_bytes())
            try:
                answer = work(request)
            except Exception as error:
                answer = error
            send(pipe, answer)


def _ignore_endings() -> None:
    """Ignore the signals to end, which a group of processes gets together: the training process ends its workers.

    A second SIGTERM ends the worker, in case the training process is gone.
    """
    for number in set(SIGNALS) - {signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(number, signal.SIG_DFL) and None)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


@contextmanager
def _starting() -> Generator[None]:
    """The context in which processes start: for as short as can be, since signals are held back in it.

    They are so until `_ignore_endings` has set their handlers in the new process. Its collector is kept away from what
    this process has: of a GPU, a forked process can free nothing.
    """
    held = hasattr(signal, "pthread_sigmask")  # Windows has no such signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS) if held else ()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        if held:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
