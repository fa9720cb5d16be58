"""Runs: of the real command line in a process of its own or on two ranks, their checkpoints, and records as written."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time

from deepres.records import Run, append_line, write_json


def _start(place, command, environment):
    env = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, *map(str, command)], cwd=place, env=env, text=True, **pipes)


def run_deepres(place, *arguments, wait=True, timeout=240, started=None, **environment):
    """The command line as a process of its own in the folder `place`, given up after so many seconds.

    It is added to `started`, for who ends what is left.
    """
    process = _start(place, ("-m", "deepres", *arguments), environment)
    if started is not None:
        started.append(process)
    if not wait:
        return process
    output, errors = process.communicate(timeout=timeout)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


@contextlib.contextmanager
def torchrun(place, *arguments, restarts=0, module="deepres", **environment):
    """The command line on two ranks; whatever is left of them is ended on leaving."""
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, "--max-restarts", restarts)
    process = _start(place, (*launcher, "-m", module, "--", *arguments), environment)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=60)


def run_two_ranks(place, *arguments, module="deepres", **environment):
    """The command line on two ranks, to its end."""
    with torchrun(place, *arguments, module=module, **environment) as process:
        output, errors = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def checkpoints(run):
    """The folders of the checkpoints of a run, in the order of their iterations."""
    return sorted((run / "checkpoints").glob("[0-9]*"))


def last_weights(run):
    return checkpoints(run)[-1] / "weights.safetensors"


def wait_for_checkpoint(process, run):
    while not checkpoints(run):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


def assert_same_bits(run, other):
    """The same rows and the same last weights."""
    assert (run / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
    assert last_weights(run).read_bytes() == last_weights(other).read_bytes()


def kill_again_and_again(process, run, kills, *command):
    """Train in `run` to the end, killed so many times at random moments: most in the middle of an epoch."""
    moments, environment = random.Random(0), {"DEEPRES_CHECKPOINT_SECONDS": "0"}
    for _ in range(kills):
        child = process(*command, wait=False, **environment)
        begun = checkpoints(run)[-1:]
        while child.poll() is None and checkpoints(run)[-1:] == begun:
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.1))
        child.send_signal(signal.SIGKILL)
        child.communicate()
        if (run / "done.json").exists():
            break
    result = process(*command, **environment)
    assert result.returncode == 0, result.stderr


def stop_two_ranks(place, run, *command):
    """Train in `run` on two ranks to the end, stopped as soon as there is a checkpoint."""
    with torchrun(place, *command, DEEPRES_CHECKPOINT_SECONDS="0") as process:
        wait_for_checkpoint(process, run)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
    assert not (run / "done.json").exists()
    result = run_two_ranks(place, *command)
    assert result.returncode == 0, result.stderr


def make_run(folder, network="resnet20", seed=0, done=True, shift=0.0, iterations=40):
    """A run folder of these records; tests may change them."""
    run = Run(folder)
    recipe = {"name": "cifar", "iterations": 40, "batch_size": 8, "lr": 0.1, "milestones": [20, 30]}
    write_json(folder / "config.json", {"network": network, "data": "cifar10", "seed": seed, "recipe": recipe})
    write_json(folder / "environment.json", [{"started": "2026-01-01", "versions": {"torch": "2.9"}, "gpu": None}])
    rows = []
    for at in range(10, iterations + 1, 10):
        rows.append({"iteration": at, "train_error": 80 - at + shift, "train_loss": 1.0, "lr": 0.1})
        if at % 20 == 0:
            rows.append({"iteration": at, "test_error": 85.123 - at + shift, "test_top5_error": 20.0})
    for row in rows:
        append_line(folder / "metrics.jsonl", row)
    append_line(folder / "timing.jsonl", {"iteration": 20, "seconds": 3.0})
    if done:
        final = {
            "train_error": 40.0 + shift,
            "test_error": 45.123 + shift,
            "test_top5_error": 20.0,
            "seconds": 9.5,
        }
        write_json(folder / "done.json", {"iteration": 40} | final)
    return run
