"""What the server of `deepres demo` holds for its visitors: a bounded number of sessions, files and bytes."""

import contextlib
import http.client
import io
import json
import os
import socket
import subprocess
import sys
import time

import pytest
import torch
from PIL import Image

from deepres import build
from deepres.weights.file import serialise

pytestmark = pytest.mark.long

pytest.importorskip("gradio")

# `deepres demo` with small limits; for each line on standard input it tells what it holds
SERVER = """
import json, sys
from pathlib import Path
from deepres.report import demo, limits
small = dict(PICTURE_BYTES=20_000, BODY_BYTES=5_000, BODY_SECONDS=1.0, SESSIONS=4, WAITING=30)
small |= dict(SWEEP_SECONDS=1.0, KEPT_SECONDS=2, EVENTS=5, MESSAGES=8)
for name, value in small.items():
    assert hasattr(limits, name)
    setattr(limits, name, value)
blocks = demo.page(demo.exhibits([Path(sys.argv[1])], lambda message: None))
demo.serve(blocks, "127.0.0.1", int(sys.argv[2]))
print("serving", flush=True)
for line in sys.stdin:
    queue = blocks._queue
    held = {
        "sessions": blocks.app.state_holder.session_data, "finished": queue.event_analytics,
        "waiting": queue.pending_event_ids_session, "messages": queue.pending_messages_per_session,
    }
    print(json.dumps({name: len(entries) for name, entries in held.items()}), flush=True)
"""


class Page:
    """The page served by a process of its own."""

    def __init__(self, place):
        torch.manual_seed(0)
        net, file = build("resnet20", 2), place / "net.safetensors"
        header = net.header | {"classes": ("a", "b")}
        file.write_bytes(serialise(net.state_dict(), torch.full((3, 16, 16), 0.4), header))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uploads = place / "uploads"
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        env = os.environ | {"GRADIO_TEMP_DIR": str(self.uploads), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen([sys.executable, "-c", SERVER, file, str(self.port)], env=env, **pipes)

    def held(self):
        """How many entries the server holds, by kind."""
        self.process.stdin.write("tell\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def files(self):
        return [file for file in self.uploads.rglob("*") if file.is_file()]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    served = Page(tmp_path_factory.mktemp("page"))
    with served.process as process:
        try:
            assert process.stdout.readline() == "serving\n"
            yield served
        finally:
            process.kill()


def ask(page, method, path, body=b"", kind="application/json"):
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=60)
    connection.request(method, f"/gradio_api{path}", body, {"Content-Type": kind})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content.decode()


def upload(page, content):
    """Upload a picture as the page does."""
    head = '--x\r\nContent-Disposition: form-data; name="files"; filename="one.png"\r\nContent-Type: image/png\r\n\r\n'
    body = head.encode() + content + b"\r\n--x--\r\n"
    return ask(page, "POST", "/upload", body, "multipart/form-data; boundary=x")


def png(side):
    stream = io.BytesIO()
    Image.effect_noise((side, side), 60).convert("RGB").save(stream, "PNG")
    return stream.getvalue()


def joined(page, session, side):
    """Let a session ask what the page sees in a picture, as the page does."""
    status, text = upload(page, png(side))
    assert status == 200, text
    data = [{"path": json.loads(text)[0], "meta": {"_type": "gradio.FileData"}}]
    return ask(page, "POST", "/queue/join", json.dumps({"data": data, "fn_index": 0, "session_hash": session}).encode())


def called(page, side):
    """Ask as a program does; gives the address of the answer."""
    data = [{"path": json.loads(upload(page, png(side))[1])[0], "meta": {"_type": "gradio.FileData"}}]
    _, text = ask(page, "POST", "/call/look", json.dumps({"data": data}).encode())
    return f"/call/look/{json.loads(text)['event_id']}"


def wait_until(holds, seconds=20.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_many_visitors_leave_a_bounded_number_of_sessions_messages_and_files(page):
    """Each is answered; without bounds each would leave a session with its plot, messages and a file."""
    for number in range(24):
        if number % 2:
            place = called(page, 16 + number)
        else:
            assert joined(page, f"session{number}", 16 + number)[0] == 200
            place = f"/queue/data?session_hash=session{number}"
        answer = ask(page, "GET", place)[1]
        assert "Layer responses" in answer and '"label"' in answer
    assert page.held()["sessions"] == 4
    wait_until(lambda: page.held() | {"finished": 5, "waiting": 0, "messages": 0} == page.held())
    wait_until(lambda: not page.files())


def test_answers_that_nobody_fetches_are_forgotten(page):
    """Visitors who close the page before they are answered."""
    for number in range(12):
        assert joined(page, f"gone{number}", 16)[0] == 200
    wait_until(lambda: (page.held()["waiting"], page.held()["messages"]) == (8, 8))


def test_a_picture_that_is_too_large_is_refused_and_not_kept(page):
    assert upload(page, b"x" * 22_000)[0] == 413
    wait_until(lambda: not page.files())


def test_a_long_request_is_refused_before_it_fills_the_memory(page):
    for body in (b"x" * 30_000, json.dumps({"data": ["x" * 9_000], "session_hash": "s"}).encode()):
        status, text = ask(page, "POST", "/queue/join", body)
        assert status == 413 and "longer than 5,000 bytes" in text
    assert ask(page, "POST", "/upload", b"x" * 30_000, "multipart/form-data; boundary=x")[0] == 413


@pytest.mark.parametrize("path", ["/upload", "/queue/join"])
def test_a_slow_request_is_given_up_and_its_connection_closed(page, path):
    """A body of which one byte comes every 0.2 seconds."""
    with socket.create_connection(("127.0.0.1", page.port), timeout=10) as visitor:
        head = f"POST /gradio_api{path} HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        visitor.sendall(f"{head}Content-Length: 4000\r\n\r\n--x\r\n".encode())
        visitor.settimeout(0.2)
        received, start = b"", time.monotonic()
        while time.monotonic() - start < 10:
            try:
                piece = visitor.recv(4096)
            except TimeoutError:
                with contextlib.suppress(ConnectionError):  # closed since: the next look tells so
                    visitor.sendall(b"x")
                continue
            except ConnectionResetError:  # closed while a byte was on its way
                break
            if not piece:
                break
            received += piece
    assert received.startswith(b"HTTP/1.1 408") and b"more than 1 seconds" in received
    assert 0.7 < time.monotonic() - start < 5
