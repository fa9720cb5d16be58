"""Machines that are short of shared memory, disks and networks that stop, processes that are killed: never a hang."""

import json
import math
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from multiprocessing import resource_tracker, spawn

import psutil
import pytest
import torch

from deepres.classification import task
from deepres.data.stream import transport, workers
from deepres.runtime.errors import InputError

pytestmark = pytest.mark.long

CROPS = ("--set", "crop=224", "--set", "sides=230,240", "--set", "bn_average=0", "--set", "workers=2")
SHORT = ("--iterations", 2, "--batch-size", 4, "--lr", 0.01, "--set", "evaluate_every=2", "--set", "window=2")


def with_shared_memory(size):
    """The start of a command that sees a /dev/shm of `size`, in a mount namespace of its own."""
    script = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"'
    start = ["unshare", "-m", "sh", "-c", script, "sh"]
    if not shutil.which("unshare") or subprocess.run([*start, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system does not let a test have a /dev/shm of its own")
    return start


@pytest.mark.parametrize("size", ["256k", "4k"])
def test_training_needs_no_room_in_shared_memory(photographs, tmp_path, size):
    """A batch of 4 crops of 224 takes 588 KiB; with 4k there is not even room for a semaphore."""
    command = ["train", "resnet18", "--data", photographs, "--run", "run", *SHORT, *CROPS]
    command = [*with_shared_memory(size), sys.executable, "-m", "deepres", *map(str, command)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    done = json.loads((tmp_path / "run" / "done.json").read_text())
    assert done["iteration"] == 2 and 0 <= done["test_error"] <= 100


def begun(process, photographs, run, *more):
    """A run without end that has begun to train, and its workers."""
    endless = ("--iterations", 100_000, "--batch-size", 4, "--lr", 0.01, "--set", "workers=2", "--set", "bn_average=0")
    small = ("--set", "crop=32", "--set", "sides=36,64", "--set", "window=1", "--set", "evaluate_every=100000")
    child = process("train", "resnet18", "--data", photographs, "--run", run, *endless, *small, *more, wait=False)
    while not (run / "metrics.jsonl").exists():
        assert child.poll() is None, child.communicate()
        time.sleep(0.02)
    return child, psutil.Process(child.pid).children()


def ended(child, within=5.0):
    """What a process wrote that has to end in time."""
    try:
        return child.communicate(timeout=within)[1]
    finally:
        child.kill()


def settled(file):
    """The rows of a file once no more come."""
    before, rows = -1, 0
    while rows != before:
        time.sleep(1.5)
        before, rows = rows, file.read_text().count("\n")
    return rows


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_no_wait_for_pictures_outlasts_a_first_signal(process, photographs, tmp_path, number):
    """Stopped workers are as those that read from a network file system which answers no more."""
    child, decoding = begun(process, photographs, tmp_path / "run")
    assert len(decoding) == 2
    for worker in decoding:
        worker.suspend()
    rows = settled(tmp_path / "run" / "metrics.jsonl")  # what was decoded ahead is used up
    child.send_signal(number)
    errors = ended(child)
    assert child.returncode == 128 + number
    assert f"stopped after iteration {rows}" in errors and "Traceback" not in errors
    assert [place.name for place in (tmp_path / "run" / "checkpoints").iterdir()] == [f"{rows:09d}"]
    assert not psutil.wait_procs(decoding, timeout=5)[1]


def test_a_killed_worker_ends_a_wait_for_another(process, photographs, tmp_path):
    child, (first, second) = begun(process, photographs, tmp_path / "run")
    first.suspend()
    second.kill()
    errors = ended(child)
    assert child.returncode == 2
    assert errors.count("error: a process that decodes pictures was lost (killed by signal 9)") == 1
    assert "--set workers=N" in errors and "Traceback" not in errors
    assert not psutil.wait_procs([first], timeout=5)[1]


def slow(request):
    """The work of a worker that takes as long as it is asked to."""
    time.sleep(request)
    return torch.full((1, 2, 2, 3), int(100 * request), dtype=torch.uint8), os.getpid()


def test_a_slow_disk_is_told_of_and_waited_for(monkeypatch):
    monkeypatch.setattr(workers, "SAY_SECONDS", 0.2)
    told = []
    got = list(workers.answers(slow, [0.9, 0.0, 0.02], 2, "/pictures", told.append))
    assert [int(made.max()) for made, _ in got] == [90, 0, 2]
    assert len({pid for _, pid in got} - {os.getpid()}) == 2
    assert told[0].startswith("waiting for pictures of /pictures for 0 s, as of a slow disk or network")
    assert "the processes that decode are sleeping" in told[0] and 1 <= len(told) <= 3


@pytest.fixture
def hanging():
    """How many of the next forked processes hang where they start."""
    left = multiprocessing.Value("i", 0)

    def hang():
        if not left.value:
            return
        with left.get_lock():
            left.value -= 1
        time.sleep(600)

    os.register_at_fork(after_in_child=hang)
    yield left
    left.value = 0


def test_a_process_that_hangs_at_its_fork_is_replaced(monkeypatch, hanging):
    monkeypatch.setattr(workers, "START_SECONDS", 0.5)
    hanging.value = 1
    assert [rest for _, rest in workers.answers(long, [b"1", b"22", b"333"], 2, "", print)] == [1, 2, 3]
    assert multiprocessing.active_children() == []


def test_processes_that_all_hang_at_their_forks_are_one_sentence(monkeypatch, hanging):
    monkeypatch.setattr(workers, "START_SECONDS", 0.1)
    hanging.value = 100
    with pytest.raises(InputError, match="hangs where it starts"):
        next(workers.answers(long, [b"1"], 2, "", print))
    assert multiprocessing.active_children() == []


class SignalledError(Exception):
    pass


@pytest.fixture
def signal_soon():
    """Call it, and this process gets SIGTERM after half a second, which raises `SignalledError`."""

    def stop(number, frame):
        raise SignalledError

    before = signal.signal(signal.SIGTERM, stop)
    timer = threading.Timer(0.5, signal.pthread_kill, (threading.get_ident(), signal.SIGTERM))
    yield timer.start
    timer.cancel()
    signal.signal(signal.SIGTERM, before)


def test_a_signal_does_not_wait_for_a_process_that_hangs_at_its_fork(monkeypatch, hanging, signal_soon):
    monkeypatch.setattr(workers, "START_SECONDS", 3)
    hanging.value = 100
    signal_soon()
    with pytest.raises(SignalledError):
        next(workers.answers(long, [b"1"], 1, "", print))
    assert hanging.value == 99  # it was not replaced meanwhile
    assert multiprocessing.active_children() == []


@pytest.fixture
def started_program(monkeypatch, tmp_path):
    """Call it with a line of Python, and this is what a process that is not forked runs, in `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    resource_tracker.ensure_running()  # or it would run the line, too
    usual = spawn.get_executable()

    def start(line):
        program = tmp_path / "program"
        program.write_text(f"#!{sys.executable}\n{line}\n")
        program.chmod(0o755)
        spawn.set_executable(str(program))

    yield start
    spawn.set_executable(usual)


def test_a_signal_does_not_wait_for_a_program_that_hangs_at_its_start(started_program, tmp_path, signal_soon):
    """It reads nothing, and the work does not fit into a pipe."""
    started_program("import time; time.sleep(5); open('ended', 'w').close()")
    signal_soon()
    with pytest.raises(SignalledError):
        next(workers.answers(partial(joined, bytes(1_000_000)), [b"1"], 1, "", print, "spawn"))
    assert not (tmp_path / "ended").exists()
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("size", [1, 1_000_000])
def test_a_program_that_ends_at_its_start_is_one_sentence(started_program, size):
    started_program("raise SystemExit(3)")
    with pytest.raises(InputError, match=r"was lost \(exit code 3\)"):
        next(workers.answers(partial(joined, bytes(size)), [b"1"], 2, "", print, "spawn"))
    assert multiprocessing.active_children() == []


def joined(*pieces):
    return torch.zeros(1, 1, 1, 3, dtype=torch.uint8), sum(map(len, pieces))


@pytest.mark.parametrize("context", ["spawn", "forkserver"])
def test_processes_that_are_not_forked_get_their_work(context):
    work = partial(joined, bytes(1_000_000))
    assert [rest for _, rest in workers.answers(work, [b"1", b"22"], 2, "", print, context)] == [1_000_001, 1_000_002]
    assert multiprocessing.active_children() == []


def failing(request):
    raise InputError(f"no {request}")


@pytest.mark.parametrize("count", [0, 1])
def test_an_error_of_the_work_is_raised_where_it_is_asked_for(count):
    with pytest.raises(InputError, match=r"^no pictures$"):
        next(workers.answers(failing, ["pictures"], count, "", print))
    assert multiprocessing.active_children() == []


def ending(request):
    os._exit(3)


def test_the_exit_code_of_a_lost_process_is_told():
    """It comes a moment after the end of the process is seen: again and again, since that may go well."""
    for _ in range(20):
        with pytest.raises(InputError, match=r"was lost \(exit code 3\)"):
            next(workers.answers(ending, [b"1", b"2"], 2, "", print))


def shaped(request):
    return torch.arange(math.prod(request), dtype=torch.uint8).view(request), None


@pytest.mark.parametrize("nameless", [True, False])
def test_pixels_arrive_as_they_are_with_and_without_nameless_files(monkeypatch, nameless):
    """The last two requests are too large to ask for ahead, and an answer fills any pipe."""
    if not nameless:
        monkeypatch.setattr(transport, "_nameless_file", lambda pieces: None)
    shapes = [(1, 1, 1, 3), (0, 0, 0, 0), (300, 20, 20, 3), (2, 1, 1, 3)]
    got = [made for made, _ in workers.answers(shaped, shapes, 2, "", print)]
    assert [made.shape for made in got] == shapes
    assert all(torch.equal(made, shaped(shape)[0]) for made, shape in zip(got, shapes, strict=True))


def long(request):
    return torch.zeros(1, 1, 1, 3, dtype=torch.uint8), len(request)


def test_large_requests_do_not_wait_for_a_worker_that_is_busy():
    requests = [bytes(300_000 + number) for number in range(5)]
    assert [rest for _, rest in workers.answers(long, requests, 2, "", print)] == [300_000 + n for n in range(5)]


def test_a_stop_does_not_wait_for_a_running_test_and_the_run_ends_with_the_same_bits(
    deepres, photographs, tmp_path, monkeypatch
):
    """At a mark in the middle, and at the end, where the statistics were averaged before the test."""
    more = ("--set", "evaluate_every=2", "--set", "window=2", "--set", "bn_average=6", "--iterations", 4)
    crops = ("--set", "crop=32", "--set", "sides=36,64", "--batch-size", 4, "--lr", 0.01, "--set", "workers=1")
    command = ("train", "resnet18", "--data", photographs, *crops, *more)
    assert deepres(*command, "--run", "whole").returncode == 0
    tests, original = [], task.score

    def score(net, batches):
        tests.append(1)
        if len(tests) in (1, 3):  # of iteration 2, and of iteration 4 after that of 2 was done anew
            os.kill(os.getpid(), signal.SIGTERM)
        return original(net, batches)

    monkeypatch.setattr(task, "score", score)
    for at in (2, 4):
        result = deepres(*command, "--run", "stopped")
        assert result.returncode == 128 + signal.SIGTERM, result.stderr
        assert f"stopped after iteration {at};" in result.stderr and "Traceback" not in result.stderr
        rows = [json.loads(line) for line in (tmp_path / "stopped" / "metrics.jsonl").read_text().splitlines()]
        assert rows[-1]["iteration"] == at and "test_error" not in rows[-1]
    assert deepres(*command, "--run", "stopped").returncode == 0
    assert len(tests) == 4
    for name in ("metrics.jsonl", "checkpoints/000000004/weights.safetensors"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
