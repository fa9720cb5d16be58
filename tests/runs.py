"""Runs of the real command line: in a process of its own or on two ranks, and the checkpoints that they leave."""

import contextlib
import os
import subprocess
import sys
import time


def _start(place, command, environment):
    env = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, *map(str, command)], cwd=place, env=env, text=True, **pipes)


def run_deepres(place, *arguments, wait=True, **environment):
    """The command line as a process of its own in the folder `place`."""
    process = _start(place, ("-m", "deepres", *arguments), environment)
    if not wait:
        return process
    output, errors = process.communicate(timeout=240)
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
