"""One machine stands for another that multiplies bf16, or does not; tests of networks give the same on both."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from deepres.classification import task
from deepres.runtime.device import precision_of_tests, resolve_precision
from deepres.runtime.processor import multiplies_bf16
from deepres.serving import openvino

TRAINING = ("--iterations", 8, "--batch-size", 8, "--lr", 0.05, "--run", "run")


@pytest.mark.parametrize(("forced", "precision"), [("1", "bf16"), ("0", "fp32")])
def test_the_environment_says_what_the_processor_multiplies(monkeypatch, forced, precision):
    monkeypatch.setenv("DEEPRES_BF16", forced)
    assert multiplies_bf16() is (forced == "1")
    assert resolve_precision("auto", "cpu") == precision
    assert precision_of_tests("auto") == "fp32"


def test_nothing_is_forced_by_an_empty_variable(monkeypatch):
    monkeypatch.setenv("DEEPRES_BF16", "")
    for features, multiplied in (({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx2": True}, False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda features=features: features)
        assert multiplies_bf16() is multiplied


@pytest.mark.parametrize("wrong", ["yes", "2", " 1"])
def test_another_value_is_refused(refused, folder, monkeypatch, wrong):
    monkeypatch.setenv("DEEPRES_BF16", wrong)
    assert f"DEEPRES_BF16 is {wrong!r}; set it to 1" in refused("train", "resnet8", "--data", folder, *TRAINING)


def test_openvino_is_held_to_a_processor_without_bf16(monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.setenv("DEEPRES_BF16", "0")
    assert not openvino.multiplies_bf16()


@pytest.mark.parametrize("own", ["on", "off"])
def test_a_run_in_bf16_is_tested_in_fp32_and_so_as_by_eval(deepres, folder, tmp_path, monkeypatch, own):
    monkeypatch.setenv("DEEPRES_BF16", "1")
    score, narrow = task.score, []

    def noted(*given):
        narrow.append(torch.is_autocast_enabled("cpu"))
        return score(*given)

    monkeypatch.setattr(task, "score", noted)
    done = deepres("train", "resnet8", "--data", folder, *TRAINING, "--kernels", own, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "config.json").read_text())["precision"] == "bf16"
    assert narrow and not any(narrow)
    report = json.loads(deepres("eval", "run", "--json").stdout)
    assert (report["precision"], report["top1_error"]) == ("fp32", json.loads(done.stdout)["test_error"])
    assert json.loads(deepres("eval", "run", "--precision", "bf16", "--json").stdout)["precision"] == "bf16"


@pytest.mark.parametrize("how", [(), ("--protocol", "10-crop")], ids=["single", "10-crop"])
def test_scores_do_not_hang_on_the_batch_size_on_a_processor_that_multiplies_bf16(
    deepres, folder, tmp_path, monkeypatch, how
):
    """Of one picture, by `predict`, and of all together, by `eval`."""
    monkeypatch.setenv("DEEPRES_BF16", "1")
    assert deepres("train", "resnet8", "--data", folder, *TRAINING).returncode == 0
    found = []
    for size in (1, 7, 64):
        assert deepres("eval", "run", *how, "--batch-size", size, "--save-scores", "s.json").returncode == 0
        found.append(torch.tensor(json.loads((tmp_path / "s.json").read_text())["scores.0"]))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0, atol=1e-5)
    names = json.loads((tmp_path / "s.json").read_text())["deepres.scores"]["names"]
    one = json.loads(deepres("predict", "run", folder / names[3], *how, "--format", "jsonl").stdout)
    assert [entry["score"] for entry in one["top"]] == pytest.approx(
        sorted(found[0][3].tolist(), reverse=True), abs=1e-5
    )


@pytest.mark.long
def test_the_other_kind_of_processor_is_the_opposite_of_this_one():
    tool = Path(__file__).parents[1] / "tools" / "other_processor.py"
    narrow = "DEEPRES_BF16=0 ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2"
    for forced, printed in (("0", "DEEPRES_BF16=1"), ("1", narrow)):
        command, env = [sys.executable, str(tool)], os.environ | {"DEEPRES_BF16": forced}
        assert subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout == printed + "\n"
