"""A headless Chromium, driven through the DevTools protocol over two pipes."""

import contextlib
import fcntl
import itertools
import json
import os
import shutil
import socket
import subprocess
import time
from importlib.util import find_spec

import pytest

LOWEST = 10  # Chromium reads commands from 3 and writes answers to 4: keep clear of these


def _pipe():
    ends = os.pipe()
    moved = [fcntl.fcntl(end, fcntl.F_DUPFD, LOWEST) for end in ends]
    for end in ends:
        os.close(end)
    return moved


class Page:
    """One page of the browser."""

    def __init__(self, commands, answers):
        self.commands, self.answers, self.numbers, self.session = commands, answers, itertools.count(1), None

    def ask(self, method, **parameters):
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.commands.write(json.dumps(message).encode() + b"\0")
        self.commands.flush()
        while True:
            answer = json.loads(self._message())
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def _message(self):
        text = bytearray()
        while (byte := self.answers.read(1)) != b"\0":
            assert byte, "the browser has ended"
            text += byte
        return text

    def open(self, address):
        target = self.ask("Target.createTarget", url=address)["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def value(self, expression):
        return self.ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def wait_for(self, expression, seconds=120):
        """The value of the JavaScript `expression` once it is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := self.value(expression):
                return found
            time.sleep(0.1)
        raise AssertionError(f"{expression} is not true; the page says: {self.value('document.body.innerText')}")

    def choose_file(self, selector, file):
        root = self.ask("DOM.getDocument")["root"]["nodeId"]
        node = self.ask("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.ask("DOM.setFileInputFiles", files=[str(file)], nodeId=node)


@contextlib.contextmanager
def chromium(program, place):
    """A page of the browser `program`, whose profile is kept in the folder `place`."""
    (theirs_in, ours_out), (ours_in, theirs_out) = _pipe(), _pipe()

    def connect():
        os.dup2(theirs_in, 3)
        os.dup2(theirs_out, 4)

    options = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
    command = [program, *options, "--remote-debugging-pipe", f"--user-data-dir={place}", "about:blank"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, preexec_fn=connect, close_fds=False, **quiet)
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        with os.fdopen(ours_out, "wb") as commands, os.fdopen(ours_in, "rb") as answers:
            yield Page(commands, answers)
    finally:
        process.terminate()
        process.wait(60)


def chromium_for_demo():
    """The program of Chromium, and a free port for the demo page; skips the test where either program is missing."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no Chromium here")
    if find_spec("gradio") is None:
        pytest.skip("Gradio is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return program, probe.getsockname()[1]
