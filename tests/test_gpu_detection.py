"""Detection on a GPU, through the real command line: the same bits in every run, and the detections of a processor."""

import json

import pytest
import torch

from box_scenes import arguments, write_scenes
from runs import last_weights

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]


def test_two_runs_end_with_the_same_bits(process, tmp_path):
    scenes = write_scenes(tmp_path / "scenes")
    for name in ("one", "two"):
        result = process(*arguments(scenes, name, "--device", "cuda"))
        assert result.returncode == 0, result.stderr
    assert last_weights(tmp_path / "one").read_bytes() == last_weights(tmp_path / "two").read_bytes()


def test_a_run_is_tested_and_looks_at_pictures_as_on_a_processor(process, tmp_path):
    scenes = write_scenes(tmp_path / "scenes")
    assert process(*arguments(scenes, "run", "--device", "cuda")).returncode == 0
    figures, rows = [], []
    for device in ("cpu", "cuda"):
        tested = process("eval", "run", "--device", device, "--precision", "fp32", "--json")
        assert tested.returncode == 0, tested.stderr
        figures.append(json.loads(tested.stdout)["map50"])
        found = process("detect", "run", scenes, "--device", device, "--format", "jsonl", "--threshold", "0.2")
        assert found.returncode == 0, found.stderr
        rows.append([json.loads(line)["detections"] for line in found.stdout.splitlines()])
    assert figures[0] == pytest.approx(figures[1], abs=1)
    for one, other in zip(*rows, strict=True):
        assert [own["score"] for own in one] == pytest.approx([own["score"] for own in other], abs=0.01)
