"""Every verb with --device cuda at smoke size: it works there, and finds what the processor finds.

`make gpu` runs these tests. DEEPRES_TESTED_DEVICE=cpu runs them on a processor, to check the tests themselves.
"""

import csv
import io
import json
import os

import pytest
import torch

from runs import last_weights, run_deepres

pytestmark = pytest.mark.gpu
DEVICE = os.environ.get("DEEPRES_TESTED_DEVICE", "cuda")
ON = ("--device", DEVICE)
SHORT = ("--iterations", 12, "--batch-size", 8, "--set", "window=3", "--set", "evaluate_every=6")


@pytest.fixture(scope="module")
def small(folder, tmp_path_factory):
    """A run of resnet8 on images of 32 pixels."""
    place = tmp_path_factory.mktemp("small")
    result = run_deepres(place, "train", "resnet8", "--data", folder, *SHORT, *ON, "--run", place / "run")
    assert result.returncode == 0, result.stderr
    return place / "run"


@pytest.fixture(scope="module")
def large(photographs, tmp_path_factory):
    """A run of resnet18 on crops of 32 pixels of photographs."""
    place = tmp_path_factory.mktemp("large")
    crops = ("--set", "crop=32", "--set", "sides=36,64", "--lr", 0.01, "--set", "bn_average=24", "--set", "workers=0")
    result = run_deepres(place, "train", "resnet18", "--data", photographs, *SHORT, *crops, *ON, "--run", place / "run")
    assert result.returncode == 0, result.stderr
    return place / "run"


def found(result):
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_train_learns_and_records_the_device(small):
    config = json.loads((small / "config.json").read_text())
    done = json.loads((small / "done.json").read_text())
    assert config["device"] == DEVICE
    assert 0 <= done["test_error"] <= 100 and done["iteration"] == 12
    assert last_weights(small).exists()


@pytest.mark.parametrize("protocol", ["single", "center", "10-crop", "dense"])
def test_eval_by_each_protocol_finds_what_the_processor_finds(deepres, small, large, folder, photographs, protocol):
    run, data = (small, folder) if protocol == "single" else (large, photographs)
    scales = {"dense": ("--scales", "32,48"), "single": ()}.get(protocol, ("--scales", 40))
    more = ("eval", run, "--data", data, "--protocol", protocol, *scales, "--json")
    there, here = (json.loads(found(deepres(*more, "--device", device))) for device in (DEVICE, "cpu"))
    assert there["images"] == here["images"]
    assert there["top1_error"] == pytest.approx(here["top1_error"], abs=100 / here["images"] + 1e-6)


def test_predict_finds_what_the_processor_finds(deepres, large, photographs):
    more = ("predict", large, photographs / "test", "--format", "csv")
    scores = []
    for device in (DEVICE, "cpu"):
        rows = list(csv.DictReader(io.StringIO(found(deepres(*more, "--device", device)))))
        scores.append({(row["picture"], row["class"]): float(row["score"]) for row in rows})
    assert scores[0].keys() == scores[1].keys() and len(scores[0]) == 20
    assert all(score == pytest.approx(scores[1][key], abs=5e-3) for key, score in scores[0].items())


def test_finetune_goes_on_from_a_run(deepres, large, folder, tmp_path):
    more = ("--iterations", 4, "--batch-size", 8, "--set", "workers=0", "--set", "window=2", *ON)
    found(deepres("finetune", large, "--data", folder, *more, "--freeze", "conv1,conv2_x", "--run", "tuned"))
    assert json.loads((tmp_path / "tuned/done.json").read_text())["iteration"] == 4


def test_a_run_is_exported_on_any_machine(deepres, large, tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    made = json.loads(found(deepres("export", large, "--out", "net.onnx", "--json")))
    assert made["largest_change"] < 1e-3 and (tmp_path / "net.onnx").exists()


def test_bench_measures_a_training_step_and_scores(deepres):
    for task, rival in (("train", "torchvision"), ("infer", "plain")):
        more = ("--batch-size", 4, "--pairs", 1, "--warm-up", 0, "--no-compile", "--against", rival, "--json")
        (record,) = json.loads(found(deepres("bench", task, "resnet18", *more, *ON)))
        assert record["work"]["device"] == DEVICE and record["ratio"]["median"] > 0
        assert record["environment"]["gpu"] or DEVICE == "cpu"


def test_reproduce_makes_its_page(deepres, folder, tmp_path):
    more = ("--scale", "smoke", "--networks", "plain8,resnet8", "--data", folder, "--out", "runs", *ON, "--json")
    made = json.loads(found(deepres("reproduce", "fig6", *more)))
    assert (tmp_path / made["page"]).exists()


def test_the_demo_looks_at_a_picture(large, photographs):
    """On the device that `auto` is: it predicts, and shows the responses of the layers."""
    pytest.importorskip("gradio")
    from deepres.report import demo

    sight = demo.look(demo.exhibits([large], print), next((photographs / "test").rglob("*.jpg")))
    assert len(sight.drawn) == 1 and sight.responses is not None and b"<svg" in sight.responses


def test_memory_of_the_device_is_given_back(small, folder, deepres):
    if DEVICE == "cpu":
        pytest.skip("a processor has no allocator that tells its memory")
    before = torch.cuda.memory_allocated()
    found(deepres("eval", small, "--data", folder, *ON))
    assert torch.cuda.memory_allocated() - before < 2**26
