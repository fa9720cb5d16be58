"""SIGINT and SIGTERM at any moment: the process ends soon, by the signal or with 128 and its number."""

import signal
import subprocess
import sys
import time

import pytest
import torch

from deepres.models.catalog import build
from deepres.runtime import ending
from deepres.runtime.ending import SIGNALS

DURING_IMPORT = """
import os, runpy, sys

class Sending:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), {number})

sys.meta_path.insert(0, Sending())
sys.argv = ["deepres", "info", "resnet20"]
runpy.run_module("deepres", run_name="__main__", alter_sys=True)
"""

DURING_EXPORT = """
import glob, os, runpy, sys

class Sending:
    def find_spec(self, name, path=None, target=None):
        if glob.glob(".net.pt2.*"):
            open("sent", "w").close()
            os.kill(os.getpid(), {number})

sys.meta_path.insert(0, Sending())
sys.argv = ["deepres", "export", "net", "--out", "net.pt2"]
runpy.run_module("deepres", run_name="__main__", alter_sys=True)
"""

SWALLOWED = """
import os, signal, time
from deepres.runtime import ending

ending.GRACE_SECONDS = 0.2
with ending.in_order():
    try:
        os.kill(os.getpid(), {number})
        time.sleep(10)
    except SystemExit:  # as in a destructor, or in the C++ of a library
        print("swallowed", flush=True)
    time.sleep(60)
"""


def python(script):
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.long
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("module", ["deepres.commands.bench", "torch.nn.functional"])
def test_a_signal_during_an_import_ends_the_process_by_itself(module, number):
    """The first is loaded before the command line is, the second by the verb, from the C++ of PyTorch as well."""
    result = python(DURING_IMPORT.format(module=module, number=int(number)))
    assert (result.returncode, result.stdout, result.stderr) == (-number, "", "")


@pytest.mark.long
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_during_an_import_within_an_export_leaves_nothing_half_written(tmp_path, number):
    """PyTorch loads parts of itself when they are first needed."""
    net = build("resnet8", 2)
    net.mean = torch.zeros(3, 1, 1)
    net.save_pretrained(tmp_path / "net")
    script = DURING_EXPORT.format(number=int(number))
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
    )
    assert result.returncode == -number, result.stderr
    assert sorted(file.name for file in tmp_path.iterdir()) == ["net", "sent"]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_that_is_swallowed_ends_the_process_a_little_later(number):
    result = python(SWALLOWED.format(number=int(number)))
    assert (result.returncode, result.stdout, result.stderr) == (128 + number, "swallowed\n", "")


def test_what_is_to_be_ignored_stays_so_and_all_is_as_before_afterwards():
    """As under nohup, or of a job in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with ending.in_order():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) not in (signal.SIG_IGN, signal.SIG_DFL)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.long
def test_a_signal_while_pictures_are_looked_at_ends_the_verb(process, folder):
    """A read hangs in a process that decodes, as one from a network that is gone."""
    child = process("data", "check", folder, wait=False)
    deadline = time.monotonic() + 60
    while not stopped_worker(child):
        assert child.poll() is None and time.monotonic() < deadline, child.communicate()
        time.sleep(0.002)
    child.send_signal(signal.SIGTERM)
    _, errors = child.communicate(timeout=20)
    assert child.returncode in (128 + signal.SIGTERM, -signal.SIGTERM), errors  # the latter in an import
    assert "Traceback" not in errors


def stopped_worker(child):
    """Whether a process that decodes was found and stopped.

    Not one that becomes another program in a moment (vfork), for which its parent waits where no signal reaches it.
    """
    import psutil

    try:
        parent = psutil.Process(child.pid)
        for process in parent.children():
            process.suspend()
            if parent.status() != psutil.STATUS_DISK_SLEEP:
                return True
            process.resume()
    except psutil.Error:  # it has ended meanwhile
        pass
    return False
