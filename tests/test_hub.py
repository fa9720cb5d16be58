"""Networks on the Hugging Face hub, or in a folder as the hub has them; the hub is a stand-in on this machine."""

import base64
import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file

import deepres as package
import images
from deepres.models.catalog import build
from deepres.models.network import Network
from deepres.runtime.errors import InputError
from deepres.weights import file as weights_file
from networks import noise_images, randomise

SHA = "0123456789012345678901234567890123456789"


class Hub:
    """The pages of the hub that its client asks for when it makes a repository, commits to it, and reads it."""

    def __init__(self):
        self.files = {}

    def get(self, path):
        name = path.removeprefix(f"/me/net/resolve/{SHA}/").removeprefix("/me/net/resolve/main/")
        return self.files.get(name)

    def post(self, path, body):
        if path.endswith("/commit/main"):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            return {"commitUrl": f"{constants.ENDPOINT}/me/net/commit/{SHA}", "commitOid": SHA}
        if path.endswith("/preupload/main"):
            names = [file["path"] for file in json.loads(body)["files"]]
            return {"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]}
        return {"/api/repos/create": {"url": f"{constants.ENDPOINT}/me/net"}, "/api/validate-yaml": {}}[path]


@contextlib.contextmanager
def served(hub):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.answer(hub.get(self.path))

        do_HEAD = do_GET  # noqa: N815

        def do_POST(self):
            chunked = self.headers.get("Transfer-Encoding") == "chunked"
            body = self.chunks() if chunked else self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(json.dumps(hub.post(self.path, body)).encode())

        def chunks(self):
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def answer(self, content):
            self.send_response(404 if content is None else 200)
            self.send_header("X-Repo-Commit", SHA)
            if content is None:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("ETag", f'"{images.md5(content or b"")}"')
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content or b"")

        def log_message(self, format, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub, empty, to which the client goes, with a cache of its own."""
    images.isolate(monkeypatch, tmp_path)
    hub = Hub()
    with served(hub) as address:
        images.use_hub(monkeypatch, address, tmp_path / "hub")
        yield hub


def network():
    net = build("resnet8", 4)
    randomise(net)
    net.mean, net.header = torch.rand(3, 32, 32), net.header | {"classes": list("abcd")}
    return net


def test_a_network_is_pushed_to_the_hub_and_comes_back_with_its_mean_and_header(hub, deepres, tmp_path):
    net = network()
    assert net.push_to_hub("me/net", token="hf_none").oid == SHA
    assert {"model.safetensors", "config.json", "README.md"} <= hub.files.keys()
    assert "arxiv.org/abs/1512.03385" in hub.files["README.md"].decode()
    for back in (Network.from_pretrained("me/net"), package.load("me/net"), package.load("hf:me/net")):
        assert (back.name, back.training, back.header) == ("resnet8", False, net.header)
        assert torch.equal(back.mean, net.mean)
        with torch.no_grad():
            assert torch.equal(back(noise_images()), net(noise_images()))
    result = deepres("convert", "hf:me/net", "--to", "net.safetensors")
    assert (result.returncode, "resnet8" in result.stdout) == (0, True)


def test_other_peoples_weights_come_from_the_hub_too(hub, tmp_path):
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("resnet18", num_classes=7).eval()
    hub.files["model.safetensors"] = weights_file.serialise(theirs.state_dict(), None, {})
    hub.files["config.json"] = json.dumps({"architecture": "resnet18", "num_classes": 7}).encode()
    assert (package.load("me/net").name, Network.from_pretrained("me/net").name) == ("resnet18", "resnet18")


def test_what_the_hub_does_not_have_is_refused_in_one_sentence(hub, refused):
    for place in ("me/net", "hf:me/net", "hf:a b"):
        with pytest.raises(InputError, match="could not be fetched") as caught:
            package.load(place)
        assert "\n" not in str(caught.value)
        assert ("no file or folder" in str(caught.value)) == (place == "me/net")
    with pytest.raises(InputError, match="no weights file"):
        package.load("nowhere.safetensors")
    assert "could not be fetched" in refused("convert", "hf:me/net", "--to", "net.safetensors")


def test_a_network_comes_back_from_a_folder_as_the_hub_has_them(tmp_path):
    net = randomise(build("resnet50", 4, stride_on="3x3", pool_padding=0))
    net.mean, net.header = torch.rand(3, 8, 8), net.header | {"classes": list("abcd")}
    net.save_pretrained(tmp_path / "net")
    for back in (Network.from_pretrained(tmp_path / "net"), package.load(tmp_path / "net")):
        assert back.header == net.header == json.loads((tmp_path / "net" / "config.json").read_text())
        assert torch.equal(back.mean, net.mean)
        with torch.no_grad():
            assert torch.equal(back(noise_images()), net(noise_images()))
    assert load_file(tmp_path / "net" / "model.safetensors").keys() == net.state_dict().keys() | {weights_file.MEAN}
