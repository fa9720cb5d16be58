"""The page of `deepres demo`: in a real browser, with a real picture where there is one."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from browser import chromium, chromium_for_demo
from deepres import build
from deepres.classification.scorer import Execution
from deepres.report import demo
from deepres.runtime.errors import InputError
from deepres.weights.file import serialise
from deepres.workflows.predict import Prediction

CLASSES = ("daisy", "dandelion", "rose", "sunflower", "tulip", "weed")


def weights(name, file):
    torch.manual_seed(0)
    net = build(name, len(CLASSES))
    header = net.header | {"crop": 64, "classes": CLASSES}
    file.write_bytes(serialise(net.state_dict(), torch.full((3, 64, 64), 0.4), header))
    return file


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Weights files of two networks."""
    place = tmp_path_factory.mktemp("weights")
    return [weights(name, place / f"{name}.safetensors") for name in ("plain18", "resnet18")]


@pytest.fixture
def picture(tmp_path, request):
    """A photograph, or what looks a little like one."""
    try:
        return next((request.getfixturevalue("real_data") / "flowers" / "test").rglob("*.jpg"))
    except (pytest.skip.Exception, StopIteration):
        Image.effect_mandelbrot((160, 120), (-2, -1, 1, 1), 50).convert("RGB").save(tmp_path / "picture.jpg")
        return tmp_path / "picture.jpg"


@pytest.mark.long
def test_a_picture_is_seen_by_each_network_with_its_layer_responses(two, picture, deepres):
    sight = demo.look(demo.exhibits(two, print), picture)
    for file, top in zip(two, sight.drawn, strict=True):
        told = json.loads(deepres("predict", file, picture, "--format", "jsonl").stdout)["top"]
        assert list(top) == [best["class"] for best in told] and len(top) == 5
        assert list(top.values()) == pytest.approx([best["score"] for best in told], abs=1e-5)
    assert sight.responses.startswith(b"<?xml") and b"plain-18" in sight.responses and b"ResNet-18" in sight.responses


def test_networks_of_one_kind_are_called_by_their_places(two, tmp_path):
    (tmp_path / "other").mkdir()
    for place in ("mine.safetensors", "other/mine.safetensors", "third.safetensors"):
        shutil.copy(two[1], tmp_path / place)

    def labels(*names):
        return [one.label for one in demo.exhibits([tmp_path / name for name in names], print)]

    assert labels("mine.safetensors", "third.safetensors") == ["mine", "third"]
    assert labels("mine.safetensors", "other/mine.safetensors") == ["mine (1)", "mine (2)"]
    assert [one.label for one in demo.exhibits(two, print)] == ["plain-18", "ResNet-18"]


def test_what_is_no_picture_is_refused(two, tmp_path):
    (tmp_path / "note.jpg").write_text("no picture")
    with pytest.raises(InputError, match=r"plain-18: it is not a picture"):
        demo.look(demo.exhibits(two, print), tmp_path / "note.jpg")


def test_the_newest_finished_run_is_found_in_an_experiments_folder_too(tmp_path):
    for place in ("runs/mine", "runs/cifar10-quick/plain20-seed0"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "done.json").touch()
    os.utime(tmp_path / "runs/mine/done.json", (1, 1))
    assert demo.newest_run(tmp_path / "runs") == tmp_path / "runs/cifar10-quick/plain20-seed0"


def test_two_classes_of_one_name_are_both_shown():
    found = Prediction("a.jpg", (("crane", 0.6), ("crane", 0.3), ("kite", 0.1)))
    assert demo.scores_by_class(found) == {
        "crane": 0.6,
        "crane (another)": 0.3,
        "kite": 0.1,
    }


def test_another_kind_of_prediction_has_a_drawing_of_its_own(two, picture, monkeypatch):
    class Detector:
        def predict(self, files):
            return [SimpleNamespace(fault=None, boxes=[(file.name, (1, 2, 30, 40))]) for file in files]

    boxes = demo.Drawing(lambda gradio, label: gradio.AnnotatedImage(label=label), lambda found: found.boxes)
    monkeypatch.setitem(demo.DRAWINGS, Detector, boxes)
    asked = []
    monkeypatch.setattr(demo, "predictor", lambda net, execution, say: asked.append(execution) or Detector())
    how = Execution(device="cpu", precision="bf16")
    shown = demo.exhibits(two[:1], print, execution=how)
    assert asked == [how]
    assert shown[0].drawing is boxes
    assert demo.look(shown, picture).drawn == ([(picture.name, (1, 2, 30, 40))],)


def test_without_weights_and_runs_the_demo_is_refused(refused):
    assert "no finished run" in refused("demo")


@pytest.mark.long
def test_the_page_shows_a_picture_to_two_networks_in_a_browser(two, picture, process, tmp_path):
    program, port = chromium_for_demo()
    server = process("demo", *two, "--port", port, wait=False)
    try:
        address = server.stdout.readline().split()[0]
        assert address == f"http://127.0.0.1:{port}"
        with chromium(program, tmp_path / "profile") as page:
            page.open(address)
            page.wait_for("document.querySelector('input[type=file]') !== null")
            page.choose_file("input[type=file]", Path(picture))
            page.wait_for("document.querySelector('img[alt=\"Layer responses\"]') !== null")
            text = page.wait_for("document.body.innerText.includes('%') && document.body.innerText")
        assert "plain-18" in text and "ResNet-18" in text
        assert sum(text.count(name) for name in CLASSES) >= 10  # the best five of each
    finally:
        server.terminate()
        server.communicate()
