"""Exports that are stopped, and files of them that do not belong together."""

import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from PIL import Image

from deepres.models.catalog import build
from deepres.weights.file import serialise
from deepres.weights.find import ready
from deepres.workflows.export import ExportOptions, deploy

pytestmark = pytest.mark.long

CLASSES = (("ant", "bee"), ("hen", "owl"))  # of two sets of weights of one network

# `deepres export` that is killed, as by a lack of memory, when it comes to put the .xml in its place
KILLED = """
import os, signal, sys
from pathlib import Path
from deepres import cli
replace = Path.replace
def killed(self, target):
    if Path(target).name == "net.xml":
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)
Path.replace = killed
cli.main()
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    place = tmp_path_factory.mktemp("weights")
    for number, classes in enumerate(CLASSES):
        torch.manual_seed(number)
        header = {"network": "resnet20", "classes": classes}
        content = serialise(build("resnet20", 2).state_dict(), torch.full((3, 16, 16), 0.4), header)
        (place / f"{number}.safetensors").write_bytes(content)
    return [place / f"{number}.safetensors" for number in range(2)]


@pytest.fixture(scope="module")
def exported(weights, tmp_path_factory):
    """An OpenVINO file of the first weights, in a folder of its own."""
    place = tmp_path_factory.mktemp("exported")
    pytest.importorskip("onnxscript")
    pytest.importorskip("openvino")
    deploy(ready(weights[0], print), place / "net.xml", ExportOptions("openvino", preprocess=True), print)
    return place


@pytest.fixture
def place(exported, tmp_path):
    """The OpenVINO file and a picture in `tmp_path`."""
    for file in exported.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    Image.effect_noise((16, 16), 60).convert("RGB").save(tmp_path / "one.png")
    return tmp_path


def contents(folder):
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@contextmanager
def small_disk(most):
    """No file may be longer than `most` bytes, as on a disk with so much room."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_an_export_that_is_killed_between_its_two_files_is_not_answered_from(deepres, refused, weights, place):
    """New weights under the old class names; a second export heals it, and takes away what the first one left."""
    before = contents(place)
    (place / "killed.py").write_text(KILLED)
    command = [sys.executable, "killed.py", "export", weights[1], "--out", "net.xml", "--preprocess"]
    done = subprocess.run(command, cwd=place, capture_output=True, timeout=240)
    assert done.returncode == -signal.SIGKILL
    assert (place / "net.xml").read_bytes() == before["net.xml"]
    assert (place / "net.bin").read_bytes() != before["net.bin"]
    for verb in (("predict", "net.xml", "one.png"), ("eval", "net.xml", "--data", place)):
        assert "net.bin is not that of net.xml" in refused(*verb)
    assert len(list(place.glob(".net.xml.*"))) == 1
    assert deepres("export", weights[1], "--out", "net.xml", "--preprocess").returncode == 0
    assert "owl" in deepres("predict", "net.xml", "one.png").stdout
    assert not list(place.glob(".net.xml.*"))


def test_an_error_between_the_two_files_leaves_both_as_they_were(refused, weights, place, monkeypatch):
    """The disk is unplugged when the .xml comes to its place; a first export leaves nothing."""
    before, replace = contents(place), Path.replace

    def fails(self, target):
        if Path(target).suffix == ".xml":
            raise OSError(5, "Input/output error")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fails)
    for name in ("net.xml", "new.xml"):
        sentence = refused("export", weights[1], "--out", name, "--preprocess")
        assert f"{name} cannot be written ([Errno 5] Input/output error)" in sentence
        assert contents(place) == before


def test_an_older_export_that_does_not_say_its_weights_is_opened_with_a_note(deepres, place):
    text = (place / "net.xml").read_text()
    older = re.sub(r", &quot;weights_sha256&quot;: &quot;[0-9a-f]{64}&quot;", "", text)
    assert len(older) < len(text)
    (place / "net.xml").write_text(older)
    told = deepres("predict", "net.xml", "one.png")
    assert told.returncode == 0 and "ant" in told.stdout
    assert "net.xml does not say which .bin it belongs to" in told.stderr


@pytest.mark.parametrize("name", ["net.onnx", "net.pt2", "net.xml", "int8.xml"])
def test_an_export_to_a_full_disk_is_one_sentence_and_leaves_what_was_there(refused, weights, place, name):
    (place / name).write_bytes(b"the file before")
    before = contents(place)
    int8 = ("--int8", "--calibrate", place) if name == "int8.xml" else ()
    with small_disk(100_000):
        sentence = refused("export", weights[0], "--out", name, "--preprocess", *int8)
    assert sentence.startswith(f"error: {name} cannot be written (") and "give another --out" in sentence
    assert contents(place) == before


def test_weights_for_torchvision_on_a_full_disk_are_one_sentence(refused, tmp_path):
    """PyTorch's own writer would end in another error."""
    torch.manual_seed(0)
    content = serialise(build("resnet18", 2).state_dict(), torch.full((3, 16, 16), 0.4), {"network": "resnet18"})
    (tmp_path / "net.safetensors").write_bytes(content)
    with small_disk(1_000_000):
        assert "net.pth could not be written: [Errno 27]" in refused("convert", "net.safetensors", "--to", "net.pth")
    assert [file.name for file in tmp_path.iterdir()] == ["net.safetensors"]
