"""Machines that are short of shared memory, disks and networks that stop, processes that are killed: never a hang."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

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
