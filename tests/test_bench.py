"""Contests against rivals: what is measured is what the records and tables say."""

import dataclasses
import json
import os
from statistics import median

import numpy as np
import pytest
import torch
from PIL import Image

import images
from deepres.bench import dense, inference, limits
from deepres.bench.contest import Process, contest
from deepres.bench.contestants import CONTESTANTS, ready, rivals
from deepres.bench.inputs import data_of
from deepres.bench.job import OURS, Job
from deepres.bench.limits import asked, machine_limits, shares
from deepres.bench.tables import best, conditions, markdown, reached
from deepres.runtime.errors import InputError
from deepres.runtime.processor import multiplies_bf16
from deepres.serving import openvino

pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """For the contestants' processes; and the machine's limits by less work than a bench takes, emulated or not."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(limits, "SIDE", 512)
    monkeypatch.setattr(limits, "VALUES", 2**22)


def test_an_epoch_is_run_in_turn_by_all_and_the_ratios_are_those_of_the_pairs(deepres, folder, tmp_path):
    more = ("--data", folder, "--batch-size", 16, "--pairs", 3, "--no-compile", "--save", "records", "--json")
    result = deepres("bench", "train", "resnet8", *more)
    assert result.returncode == 0, result.stderr
    records = json.loads(result.stdout)
    assert [record["rival"]["name"] for record in records] == ["textbook", "tuned"]
    for record in records:
        ours, rival = record["ours"]["turns"], record["rival"]["turns"]
        assert ours["images"] == rival["images"] == [48] * 3
        ratios = [theirs / our for theirs, our in zip(rival["seconds"], ours["seconds"], strict=True)]
        assert record["ratio"] == pytest.approx(
            {"median": median(ratios), "min": min(ratios), "max": max(ratios), "pairs": 3}
        )
        speed = 48 / median(ours["seconds"])
        limit, asked_for = record["limits"]["multiply_adds"], record["asked"]["multiply_adds"]
        assert record["share"]["multiply_adds"] == pytest.approx(speed * asked_for / limit)
    assert "kernels" in records[0]["ours"]["setting"]
    tried = ["fp32", "bf16"] if multiplies_bf16() else ["fp32"]
    assert list(records[1]["rival"]["facts"]) == [f"{precision}, channels-last, eager" for precision in tried]
    (record,) = (tmp_path / "records").glob("train-resnet8-b16-*tuned.json")  # with bf16 in its name where it was used
    kept = markdown([json.loads(record.read_text())])
    assert f"| {records[1]['ratio']['median']:.2f} (" in kept
    assert kept.splitlines()[2].endswith("| 1 |") and kept.splitlines()[4].startswith("1. `")


def test_the_recipe_fast_runs_beside_the_papers_where_it_is_asked_for(deepres, folder):
    more = ("--data", folder, "--batch-size", 16, "--pairs", 1, "--warm-up", 0)
    result = deepres("bench", "train", "resnet8", *more, "--against", "fast")
    assert result.returncode == 0, result.stderr
    assert "kernels, recipe fast" in result.stdout
    refused = deepres("bench", "train", "resnet18", "--against", "fast")
    assert refused.returncode == 2
    assert "epochs alone" in refused.stderr


def test_loading_prints_a_table_with_a_row_for_each_contestant(deepres, folder):
    output = deepres("bench", "load", "--data", folder, "--part", 0.5, "--pairs", 1, "--warm-up", 0).stdout
    for word in ("ours", "textbook", "tuned", "0.5 of the images", "PIL, DataLoader with 2 workers"):
        assert word in output


def test_a_budget_lowers_the_peak_that_memory_measures():
    job = Job("memory", "resnet56", 64, memory_budget=0.01)
    record = contest(job, ["unlimited"], 1, 0, print)[0]
    saving, unlimited = record["ours"]["median"]["peak"], record["rival"]["median"]["peak"]
    assert 0 < saving < 0.8 * unlimited
    assert record["ours"]["median"]["images"] == 128  # two steps of 64


@pytest.mark.parametrize("name", ["textbook", "torchvision", "timm"])
def test_rivals_take_a_training_step_at_224(name):
    if name == "timm":
        pytest.importorskip("timm")
    assert ready(name, Job("train", "resnet18", 2)).turn() == 2


def test_inference_states_how_far_the_scores_of_the_engine_are_from_the_networks(monkeypatch):
    monkeypatch.setattr(inference, "TURN_SECONDS", 0.01)
    monkeypatch.setitem(inference.serving.KINDS, "compile", inference.serving.KINDS["eager"])  # it takes half a minute
    contestant = ready("ours", Job("infer", "resnet20", 4))
    assert contestant.turn() % 4 == 0
    assert contestant.facts["largest_change"] < 1e-4
    assert contestant.facts["same_top1"] == 1


def test_by_default_those_take_part_who_have_the_network_and_the_precision(monkeypatch):
    for package in ("onnxruntime", "openvino", "onnxscript"):
        pytest.importorskip(package)
    stock, zoo, runtimes = ["textbook", "tuned"], ["torchvision", "timm"], ["onnxruntime", "openvino"]
    for name in ("plain18", "resnet18-a", "vgg16", "resnet18-32px", "highway19"):
        assert rivals(Job("train", name, 2)) == stock
        assert rivals(Job("infer", name, 2)) == ["plain", *runtimes]
    for name in ("resnet18", "resnet50-b"):
        assert rivals(Job("train", name, 2)) == stock + zoo
        assert rivals(Job("infer", name, 2)) == ["plain", *zoo, *runtimes]
    for capable, left in ((False, []), (True, ["openvino"])):
        monkeypatch.setattr(openvino, "multiplies_bf16", lambda capable=capable: capable)
        assert rivals(Job("infer", "resnet8", 1, precision="bf16")) == ["plain", *left]


@pytest.mark.parametrize(("precision", "hint"), [("fp32", "f32"), ("bf16", "bf16")])
def test_openvino_computes_in_the_precision_that_its_row_names(precision, hint, monkeypatch):
    """By itself it takes bf16 wherever the processor has it."""
    for package in ("openvino", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    if precision == "bf16" and "ONEDNN_MAX_CPU_ISA" in os.environ:
        pytest.skip("OpenVINO asks the processor for bf16, and not its oneDNN, which is held to less here")
    from openvino import Core

    asked, compile_model = [], Core.compile_model

    def noted(core, model, device, settings):
        asked.append(settings["INFERENCE_PRECISION_HINT"])
        return compile_model(core, model, device, settings)

    monkeypatch.setattr(Core, "compile_model", noted)
    monkeypatch.setattr(inference, "TURN_SECONDS", 0.01)
    assert f", {precision}, " in inference.openvino(Job("infer", "resnet8", 1, precision=precision)).setting
    assert asked == [hint]


@pytest.mark.parametrize("name", ["plain", "onnxruntime", "openvino"])
def test_rivals_score_a_batch(name, monkeypatch):
    for package in ("onnxruntime", "openvino", "onnxscript"):
        pytest.importorskip(package)
    monkeypatch.setattr(inference, "TURN_SECONDS", 0.01)
    assert ready(name, Job("infer", "resnet8", 3)).turn() % 3 == 0


@pytest.mark.filterwarnings("ignore:The image decoding")  # torchvision's own advice about its own pipeline
def test_pictures_on_disk_become_batches_by_every_pipeline(tmp_path):
    for part, count in (("train", 9), ("test", 1)):
        (tmp_path / part / "only").mkdir(parents=True)
        for number in range(count):
            pixels = np.random.default_rng(number).integers(0, 256, (260, 300, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / part / "only" / f"{number}.jpg")
    job = Job("load", "resnet50", 4, data=str(tmp_path))
    threads = torch.get_num_threads()
    for name in (OURS, *rivals(job)):
        assert ready(name, job).turn() == (9 if name == "decode" else 8), name
    torch.set_num_threads(threads)
    assert rivals(job) == ["pil", "tensor", "decode"]


def test_training_from_pictures_on_disk_tells_how_long_it_waited(tmp_path):
    for part, count in (("train", 9), ("test", 1)):
        images.write_folder(tmp_path / part, {"only": count}, size=(70, 60))
    job = Job("train", "resnet18", 4, data=str(tmp_path))
    assert rivals(job) == ["torchvision"]
    ours, theirs = ready(OURS, job), ready("torchvision", job)
    assert (ours.turn(), theirs.turn()) == (8, 8)
    assert ours.figures()["waited"] > 0
    with pytest.raises(InputError, match="9 training pictures, fewer than --batch-size 16"):
        ready("torchvision", dataclasses.replace(job, batch_size=16))


def test_the_dense_test_is_measured_against_every_crop_that_it_stands_for():
    job = Job("dense", "resnet18", 1)
    assert rivals(job) == ["crops"]
    crops = ready("crops", job)
    assert f" {2 * (1 * 3 + 2 * 4 + 6 * 10 + 9 * 14 + 14 * 20)} crops" in crops.setting
    assert ready(OURS, job).turn() == 1


@pytest.mark.parametrize(("precision", "kind"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_dense_test_is_measured_in_the_precision_that_its_row_names(precision, kind):
    seen, net = set(), torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    net[0].register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    dense._scores(Job("dense", "resnet18", 1, precision=precision), net, lambda image: [image], "").turn()
    assert seen == {kind}


def test_the_limits_are_those_of_the_best_product_and_of_a_stream():
    limits = machine_limits("fp32")
    assert limits["multiply_adds"] == max(limits["product_multiply_adds"], limits["convolution_multiply_adds"])
    assert 1e8 < limits["bytes"] < 1e13


def test_training_asks_for_three_times_the_multiply_adds_of_inference():
    """Of ResNet-50 with its stride on the 3x3, where the rivals have it."""
    for name, multiply_adds in (("resnet20", 40_551_040), ("resnet50", 4_089_184_256)):
        assert asked(Job("infer", name, 1))["multiply_adds"] == multiply_adds
        assert asked(Job("train", name, 1))["multiply_adds"] == 3 * multiply_adds


def test_int8_has_no_share_of_limits_in_floating_point():
    """Neither in a new record nor in the table of one that holds a share."""
    limits, need = {"multiply_adds": 2e9, "bytes": 1e9}, {"multiply_adds": 1e9, "bytes": 1e8}
    for precision, share in (("fp32", {"multiply_adds": 0.5, "bytes": 0.1}), ("int8", None)):
        record = {"work": {"precision": precision}, "ours": {"images_per_second": 1.0}}
        assert shares(record, limits, need).get("share") == share
        old = record | {"share": {"multiply_adds": 0.5, "bytes": 0.1}}
        assert reached(old) == (share and "50% of the multiply-adds, 10% of the bytes a second")
    assert reached({"work": {"precision": "fp32"}}) is None


def of_contest(rival, ratio, speed, started, command="deepres bench infer resnet8"):
    """A record of scores of one image."""
    work = {"task": "infer", "network": "resnet8", "batch_size": 1, "precision": "fp32"}
    versions = dict.fromkeys(("torch", "torchvision", "python"), "1")
    env = {"cpu": "Zen", "started": started, "command": command, "threads": 2, "versions": versions, "commit": "c"}
    sides = {"ours": {"images_per_second": speed, "median": {}}, "rival": {"name": rival, "median": {}}}
    return {"work": work, "environment": env, "ratio": {"median": ratio}} | sides


def test_a_row_of_the_best_table_is_of_one_contest_and_our_own_other_ways_are_no_rivals():
    """Our speed is that of the contest in which the ratios beside it were measured."""
    monday = [of_contest(name, ratio, 7.5, "monday") for name, ratio in (("timm", 2), ("plain", 3), ("openvino", 1))]
    tuesday = [of_contest(name, ratio, 8.5, "tuesday") for name, ratio in (("torchvision", 1.5), ("fast", 1.1))]
    assert best(monday + tuesday).splitlines()[2:] == [
        "| **Zen** |  |  |  |",
        "| resnet8, scores of 1 image | fp32 | 7.5 | 1.00 openvino, 2.00 timm |",
        "| resnet8, scores of 1 image | fp32 | 8.5 | 1.50 torchvision |",
    ]


def test_no_absolute_path_of_a_machine_is_shown():
    """Where records were saved is told as it was given, or as the last part of an absolute path."""
    for given, shown in (("/tmp/x/records", "records"), ("some/records", "some/records")):
        (line,) = conditions([of_contest("timm", 1, 1, "monday", f"deepres bench infer --save {given}")])
        assert line.startswith(f"`deepres bench infer --save {shown}`: Zen")


def test_a_dead_contestant_is_named_with_its_last_words():
    process = Process("ours", Job("memory", "resnet8", 2))
    process.setup()
    process.child.kill()
    process.child.wait()
    with pytest.raises(InputError, match="ours died at its work"):
        process.turn()
    process.close()


def test_bad_works_are_refused_in_a_sentence(refused):
    assert "above 0 and at most 1" in refused("bench", "load", "--part", 0)
    assert "a pair of turns or more" in refused("bench", "load", "--pairs", 0)
    assert "--warm-up is -1" in refused("bench", "load", "--warm-up", -1)
    assert "int8 is for infer" in refused("bench", "train", "resnet8", "--precision", "int8")
    assert "nobody called 'me'" in refused("bench", "load", "--against", "me")
    assert "dense is for networks at 224" in refused("bench", "dense", "resnet8")
    assert "resnet152 alone, not in plain20" in refused("bench", "train", "plain20", "--against", "torchvision")
    bf16 = ("bench", "infer", "resnet8", "--precision", "bf16")
    assert "onnxruntime has no bf16; give one of fp32, int8" in refused(*bf16, "--against", "onnxruntime")
    assert "no rival takes part in train of plain18" in refused("bench", "train", "plain18", "--data", "somewhere")
    assert "resnet9" in refused("bench", "memory", "resnet9")


def test_every_contestant_is_there():
    from importlib import import_module

    for known in CONTESTANTS.values():
        for place in known.values():
            module, _, function = place.partition(":")
            assert callable(getattr(import_module(f"deepres.bench.{module}"), function)), place


def test_data_that_the_rivals_loops_do_not_take_are_refused(tmp_path):
    images.write_folder(tmp_path / "gray", {"a": 5, "b": 5}, size=(28, 28))
    with pytest.raises(InputError, match="such as cifar10"):
        data_of(Job("train", "resnet8", 4, str(tmp_path / "gray")))
