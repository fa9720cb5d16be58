"""Detectors, localizers and segmenters on a GPU, through the command line: the same bits in every run, and the figures
and objects of a processor.
"""

import json

import pytest
import torch

import box_scenes
import mask_scenes
import one_object
from runs import last_weights

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]
# How its data are made, how a run is trained, and the figure of its test.
KINDS = {
    "detector": (box_scenes.write_scenes, box_scenes.arguments, lambda told: told["map50"]),
    "segmenter": (mask_scenes.write_mask_scenes, mask_scenes.arguments, lambda told: told["masks"]["map50_r"]),
    "localizer": (one_object.write_pictures, one_object.arguments, lambda told: told["errors"]["given"]["error"]),
}


@pytest.fixture(params=list(KINDS))
def kind(request):
    return KINDS[request.param]


def test_two_runs_end_with_the_same_bits(process, tmp_path, kind):
    write, arguments, _ = kind
    data = write(tmp_path / "data")
    for name in ("one", "two"):
        result = process(*arguments(data, name, "--device", "cuda"))
        assert result.returncode == 0, result.stderr
    assert last_weights(tmp_path / "one").read_bytes() == last_weights(tmp_path / "two").read_bytes()


def test_a_run_is_tested_as_on_a_processor(process, tmp_path, kind):
    write, arguments, figure = kind
    assert process(*arguments(write(tmp_path / "data"), "run", "--device", "cuda")).returncode == 0
    figures = []
    for device in ("cpu", "cuda"):
        tested = process("eval", "run", "--device", device, "--precision", "fp32", "--json")
        assert tested.returncode == 0, tested.stderr
        figures.append(figure(json.loads(tested.stdout)))
    assert figures[0] == pytest.approx(figures[1], abs=1)


@pytest.mark.parametrize("name", ["detector", "segmenter"])
def test_a_run_looks_at_pictures_as_on_a_processor(process, tmp_path, name):
    write, arguments, _ = KINDS[name]
    data, rows = write(tmp_path / "data"), []
    assert process(*arguments(data, "run", "--device", "cuda")).returncode == 0
    for device in ("cpu", "cuda"):
        found = process("detect", "run", data, "--device", device, "--format", "jsonl", "--threshold", "0.2")
        assert found.returncode == 0, found.stderr
        rows.append([json.loads(line)["detections"] for line in found.stdout.splitlines()])
    for one, other in zip(*rows, strict=True):
        assert [own["score"] for own in one] == pytest.approx([own["score"] for own in other], abs=0.01)
