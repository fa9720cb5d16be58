"""The page of `deepres demo` with a detector: in a real browser."""

import pytest
import torch

from browser import chromium, chromium_for_demo
from deepres import build
from deepres.models.detection.outputs import Detections
from deepres.report import demo
from deepres.runtime.errors import InputError
from deepres.weights.file import serialise
from deepres.workflows.detect import Sighting
from detector_files import write_picture

CLASSES = ("<b>ring</b>", "disc", "star")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A detector that is sure of one class everywhere."""
    file = tmp_path_factory.mktemp("weights") / "w.safetensors"
    torch.manual_seed(0)
    plan = {
        "side": 64,
        "longest": 96,
        "anchor_scales": [1.0, 2.0],
        "smallest": 4.0,
        "rpn_channels": 16,
        "proposals": 40,
    }
    net = build("faster-rcnn-resnet18", 3, detector=plan)
    with torch.no_grad():
        net.score.bias[1] = 5.0
    header = net.header | {"classes": list(CLASSES)}
    file.write_bytes(serialise(net.state_dict(), torch.full((3, 1, 1), 0.4), header))
    return file


def test_a_picture_is_shown_with_its_boxes_and_a_table_of_them(weights, tmp_path):
    (shown,) = demo.exhibits([weights], print)
    sight = demo.look([shown], write_picture(tmp_path / "a.png", (90, 60)))
    (text,) = sight.drawn
    assert shown.label == "ResNet-18, Faster R-CNN" and sight.responses is None
    assert 'src="data:image/jpeg;base64,' in text and "&lt;b&gt;ring&lt;/b&gt;" in text and "<b>" not in text
    (found,) = shown.predictor.predict([tmp_path / "a.png"])
    assert text.count("<tr>") == len(found.found) + 1 > 1


def test_what_is_no_picture_is_refused(weights, tmp_path):
    (tmp_path / "note.jpg").write_text("no picture")
    with pytest.raises(InputError, match=r"ResNet-18, Faster R-CNN: it is not a picture"):
        demo.look(demo.exhibits([weights], print), tmp_path / "note.jpg")


def test_a_large_picture_is_made_smaller_together_with_its_boxes_and_the_table_keeps_its_pixels():
    box = torch.tensor([[1000.0, 500.0, 3000.0, 1500.0]])
    found = Detections(box, torch.tensor([0.75]), torch.tensor([1]))
    pixels = torch.full((3, 2000, 4000), 128, dtype=torch.uint8)
    text = demo.boxes_as_html(Sighting("a.png", (2000, 4000), found, pixels=pixels, classes=CLASSES))
    for cell in ("disc", "75.0 %", "1000", "500", "3000", "1500"):
        assert f"<td>{cell}</td>" in text
    assert len(text) < 200_000


def test_a_picture_without_detections_is_shown_as_it_is():
    text = demo.boxes_as_html(Sighting("a.png", (20, 20), pixels=torch.zeros(1, 20, 20, dtype=torch.uint8)))
    assert "Nothing found" in text and "<table" not in text


@pytest.mark.long
def test_the_page_shows_boxes_in_a_browser(weights, process, tmp_path):
    program, port = chromium_for_demo()
    picture = write_picture(tmp_path / "a.png", (90, 60))
    server = process("demo", weights, "--port", port, wait=False)
    try:
        address = server.stdout.readline().split()[0]
        with chromium(program, tmp_path / "profile") as page:
            page.open(address)
            page.wait_for("document.querySelector('input[type=file]') !== null")
            page.choose_file("input[type=file]", picture)
            drawn = "document.querySelector('img[alt=\"The picture with boxes\"]')"
            page.wait_for(f"{drawn} !== null && {drawn}.naturalWidth > 0")
            text = page.value("document.body.innerText")
        assert "<b>ring</b>" in text and "boxes around what is found" in text and "responds" not in text
    finally:
        server.terminate()
        server.communicate()
