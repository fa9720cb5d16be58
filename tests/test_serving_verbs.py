"""A trained network in a user's hands: finetune, predict and export, through the real command line."""

import csv
import io
import json
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import deepres as library
from deepres.classification import score_table
from deepres.models.catalog import build
from deepres.records import Run
from deepres.serving import export as exporting
from deepres.weights import file as weights_file
from deepres.weights.start import take
from runs import last_weights, run_deepres, wait_for_checkpoint

pytestmark = pytest.mark.long
SMALL = ("--set", "crop=32", "--set", "sides=36,64", "--iterations", 12, "--batch-size", 8, "--lr", 0.01)
MARKS = ("--set", "window=3", "--set", "evaluate_every=6", "--set", "workers=0")
STAGES = ("conv1", "conv2_x", "conv3_x", "conv4_x", "conv5_x", "fc")


@pytest.fixture(scope="module")
def trained(photographs, tmp_path_factory):
    """A run of resnet18 on crops of 32 pixels."""
    place = tmp_path_factory.mktemp("trained")
    more = ("--set", "bn_average=24", "--run", place / "run")
    command = ("train", "resnet18", "--data", photographs, *SMALL, *MARKS, *more)
    result = run_deepres(place, *command)
    assert result.returncode == 0, result.stderr
    return place / "run"


def stage_of(state, stage):
    return {key: value for key, value in state.items() if key.startswith(f"{stage}.")}


def finetuning(weights, data, run, *more):
    return ("finetune", weights, "--data", data, "--run", run, "--iterations", 6, "--batch-size", 8, *MARKS, *more)


FROZEN = ("--freeze", "conv1,conv2_x,conv3_x")


@pytest.fixture(scope="module")
def finetuned(trained, folder, tmp_path_factory):
    """The run on three other classes, its first stages frozen; the weights that it started from are gone."""
    place = tmp_path_factory.mktemp("finetuned")
    shutil.copy(last_weights(trained), place / "start.safetensors")
    command = finetuning(place / "start.safetensors", folder, place / "run", *FROZEN)
    result = run_deepres(place, *command)
    assert result.returncode == 0, result.stderr
    (place / "start.safetensors").unlink()
    return place / "run"


def test_frozen_stages_stay_with_their_statistics_and_the_others_learn(trained, finetuned):
    before, after = (weights_file.read_file(last_weights(run)).state for run in (trained, finetuned))
    for stage in STAGES:
        same = all(value.equal(after[key]) for key, value in stage_of(before, stage).items())
        assert same == (stage in ("conv1", "conv2_x", "conv3_x")), stage
    key = "conv4_x.1.residual.layer1.bn.running_mean"
    assert not before[key].equal(after[key])


def test_other_classes_get_a_new_head_and_the_record_tells_the_start(trained, finetuned):
    config, kept = Run(finetuned).config, weights_file.read_file(last_weights(finetuned))
    assert kept.state["fc.weight"].shape == (3, 512)
    assert kept.header["classes"] == config["classes"] == ["ant", "bee", "cow"]
    assert config["start"].endswith("start.safetensors")
    assert len(config["start_sha256"]) == 64 and kept.header["start_sha256"] == config["start_sha256"]
    recipe = config["recipe"]
    assert (recipe["name"], recipe["crop"], recipe["lr"], recipe["sides"]) == ("finetune", 32, 0.01, [37, 69])
    assert kept.mean.equal(weights_file.read_file(last_weights(trained)).mean)  # not that of the new images


def test_the_new_head_has_start_values_of_he_and_the_rest_the_trained_weights(deepres, trained, folder):
    result = deepres(*finetuning(trained, folder, "run", "--lr", 1e-9, "--iterations", 1, "--seed", 3))
    assert result.returncode == 0, result.stderr
    before, after = weights_file.read_file(last_weights(trained)).state, library.load("run").state_dict()
    torch.manual_seed(3)
    assert torch.allclose(after["fc.weight"], build("resnet18", 3).fc.weight, atol=1e-6)
    weights = [key for key in before if key.endswith("conv.weight")]
    assert len(weights) == 20 and all(torch.allclose(before[key], after[key], atol=1e-6) for key in weights)


def test_the_same_classes_keep_their_head(deepres, trained, photographs):
    assert deepres(*finetuning(trained, photographs, "run", "--lr", 1e-9, "--iterations", 1)).returncode == 0
    before, after = library.load(trained).state_dict(), library.load("run").state_dict()
    assert torch.allclose(before["fc.weight"], after["fc.weight"], atol=1e-6)


def test_a_killed_run_goes_on_to_the_same_bits_without_the_weights_it_started_from(
    process, trained, folder, finetuned, tmp_path
):
    run, weights = tmp_path / "killed", tmp_path / "weights.safetensors"
    shutil.copy(last_weights(trained), weights)
    child = process(*finetuning(weights, folder, run, *FROZEN), wait=False, DEEPRES_CHECKPOINT_SECONDS="0.01")
    wait_for_checkpoint(child, run)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert not (run / "done.json").exists()
    assert "is not finished: these are its weights at iteration" in process("predict", run, folder).stderr
    weights.unlink()
    result = process(*finetuning(weights, folder, run, *FROZEN))
    assert result.returncode == 0, result.stderr
    assert "going on from iteration" in result.stderr
    before, after = (weights_file.read_file(last_weights(place)).state for place in (finetuned, run))
    assert all(value.equal(after[key]) for key, value in before.items())
    assert (run / "metrics.jsonl").read_bytes() == (finetuned / "metrics.jsonl").read_bytes()


def test_networks_for_whole_images_are_finetuned_on_whole_images(deepres, folder):
    small = ("--iterations", 2, "--batch-size", 8, "--lr", 0.01)
    assert deepres("train", "resnet8", "--data", folder, *small, "--run", "first").returncode == 0
    result = deepres("finetune", "first", "--data", folder, *small, "--run", "second", "--json")
    assert json.loads(result.stdout)["iteration"] == 2
    assert Run(Path("second")).config["recipe"]["crop"] == 0


def test_what_does_not_go_together_is_refused(refused, trained, finetuned, folder, photographs, tmp_path):
    assert "no stage 'conv9_x'" in refused(*finetuning(trained, folder, "run", "--freeze", "conv9_x"))
    assert "nothing is left to train" in refused(*finetuning(trained, folder, "run2", "--freeze", ",".join(STAGES)))
    more = ("--freeze", "conv1", "--set", "bn_average=8")
    assert "bn_average is 8" in refused(*finetuning(trained, folder, "run3", *more))
    other = take(finetuned, print)
    (tmp_path / "other.safetensors").write_bytes(other.content)
    message = refused(*finetuning("other.safetensors", folder, finetuned, *FROZEN))
    assert "start_sha256" in message and "give another --run" in message
    assert "no weights file typo.pth" in refused(*finetuning("typo.pth", folder, finetuned, *FROZEN))


def lines(result):
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_all_batch_normalization_can_be_frozen_while_the_convolutions_train(deepres, trained, folder, tmp_path):
    result = deepres(*finetuning(trained, folder, "run", "--freeze", "bn", "--lr", 1e-4))
    assert result.returncode == 0, result.stderr
    before, after = (weights_file.read_file(last_weights(place)).state for place in (trained, tmp_path / "run"))
    still = {key for key in after if before.get(key) is not None and after[key].equal(before[key])}
    assert {key for key in after if ".bn." in key} <= still
    assert not any(key.endswith("conv.weight") for key in still)


@pytest.mark.parametrize("how", [("--protocol", "center"), ("--protocol", "dense", "--scales", "32,40")])
def test_predictions_are_the_scores_of_eval(deepres, trained, photographs, how):
    deepres("eval", trained, *how, "--save-scores", "kept.safetensors")
    kept = score_table.read_scores(Path("kept.safetensors"))
    found = lines(deepres("predict", trained, photographs / "test", *how, "--format", "jsonl"))
    assert len(found) == len(kept.names) == 10
    by_name = dict(zip(kept.names, kept.members[0].scores.double(), strict=True))
    for one in found:
        expected = by_name["test/" + one["picture"].split("/test/")[1]]
        assert [best["class"] for best in one["top"]] == [
            kept.classes[label] for label in expected.argsort(descending=True)
        ]
        assert [best["score"] for best in one["top"]] == pytest.approx(
            expected.sort(descending=True).values.tolist(), abs=1e-5
        )


def test_the_formats_say_the_same(deepres, trained, photographs):
    picture = photographs / "test" / "light" / "00.jpg"
    best = lines(deepres("predict", trained, picture, "--format", "jsonl"))[0]["top"]
    rows = list(csv.DictReader(io.StringIO(deepres("predict", trained, picture, "--format", "csv").stdout)))
    assert [row["class"] for row in rows] == [one["class"] for one in best]
    assert [float(row["score"]) for row in rows] == [one["score"] for one in best]
    table = deepres("predict", trained, picture, "--top", 1).stdout
    assert best[0]["class"] in table and f"{100 * best[0]['score']:.2f}" in table and best[1]["class"] not in table


def test_bad_files_are_reported_and_left_out_and_the_exit_code_is_1(deepres, trained, photographs, tmp_path):
    good = photographs / "test" / "light" / "00.jpg"
    (tmp_path / "cut.jpg").write_bytes(good.read_bytes()[:-400])
    Image.new("RGB", (60_000, 1)).save(tmp_path / "long.png")
    result = deepres("predict", trained, "cut.jpg", good, "missing.jpg", "long.png", good, "--format", "jsonl")
    assert result.returncode == 1
    assert [one["picture"] for one in lines(result)] == [str(good), str(good)]
    for name, reason in (("cut.jpg", "truncated"), ("missing.jpg", "no such file"), ("long.png", "more than")):
        assert any(line.startswith(name) and reason in line for line in result.stderr.splitlines()), result.stderr
    assert "left out: 3 of 5 pictures" in result.stderr


def test_file_names_are_read_from_standard_input(deepres, refused, trained, photographs, monkeypatch):
    names = [str(photographs / "test" / name / "01.jpg") for name in ("dark", "light")]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(names).encode())))
    assert [one["picture"] for one in lines(deepres("predict", trained, "-", "--format", "jsonl"))] == names
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    assert "none came" in refused("predict", trained, "-")


def test_an_engine_gives_the_same_predictions(deepres, refused, trained, photographs):
    pytest.importorskip("onnxruntime")
    command = ("predict", trained, photographs / "test", "--format", "jsonl")
    engine = ("--engine", "onnxruntime")  # which has no bf16: without --precision it takes fp32 everywhere
    plain, other = (
        lines(deepres(*command, "--protocol", "10-crop", *how)) for how in (("--precision", "fp32"), engine)
    )
    assert len(plain) == len(other) == 10
    for one, two in zip(plain, other, strict=True):
        assert [best["score"] for best in one["top"]] == pytest.approx([best["score"] for best in two["top"]], abs=1e-4)
    assert "views of one size" in refused(*command, "--protocol", "dense", *engine)
    assert "onnxruntime has no bf16" in refused(*command, *engine, "--precision", "bf16")


def test_whole_images_of_another_size_are_brought_to_that_of_the_training(deepres, folder, tmp_path):
    small = ("--iterations", 2, "--batch-size", 8, "--lr", 0.01)
    assert deepres("train", "resnet8", "--data", folder, *small, "--run", "run").returncode == 0
    picture = folder / "test" / "ant" / "00.png"
    Image.open(picture).resize((96, 64), Image.Resampling.NEAREST).save("large.png")
    found = lines(deepres("predict", "run", picture, "large.png", "--format", "jsonl"))
    assert [len(one["top"]) for one in found] == [3, 3]


def crops(photographs):
    """Training crops as programs hold them: uint8 (N, 32, 32, 3)."""
    files = sorted((photographs / "test").rglob("*.jpg"))[:5]
    return np.stack([np.array(Image.open(file).crop((0, 0, 32, 32))) for file in files])


def run_onnx(file):
    import onnxruntime

    session = onnxruntime.InferenceSession(file)
    metadata = session.get_modelmeta().custom_metadata_map
    facts = {key.removeprefix("deepres."): value for key, value in metadata.items()}
    return lambda images: session.run(None, {"images": images})[0], facts | {"classes": json.loads(facts["classes"])}


def run_openvino(file):
    import openvino

    model = openvino.Core().read_model(file)
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: compiled(images)[0].copy(), json.loads(model.get_rt_info(["deepres"]).value)


def run_program(file):
    extra = {"deepres.json": ""}
    program = torch.export.load(file, extra_files=extra).module()
    return lambda images: program(torch.from_numpy(images)).detach().numpy(), json.loads(extra["deepres.json"])


@pytest.mark.parametrize(
    ("name", "run", "package"),
    [("net.onnx", run_onnx, "onnxscript"), ("net.xml", run_openvino, "openvino"), ("net.pt2", run_program, "torch")],
)
def test_an_exported_file_takes_any_number_of_pictures_and_gives_the_scores_of_the_net(
    deepres, trained, photographs, tmp_path, name, run, package
):
    pytest.importorskip(package)
    result = deepres("export", trained, "--out", name, "--preprocess", "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["largest_change"] <= 1e-4 and report["same_top1"] == 1
    scores, facts = run(tmp_path / name)
    assert (facts["network"], facts["classes"]) == ("resnet18", ["dark", "light"])
    assert facts["input"].startswith("uint8 (N, 32, 32, 3)")
    net, images = library.load(trained), crops(photographs)
    with torch.no_grad():
        expected = net(torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - net.mean).numpy()
    for count in (1, 5):
        assert np.abs(scores(images[:count]) - expected[:count]).max() <= 1e-4 * np.abs(expected).max()


def test_without_preprocessing_a_file_takes_what_the_net_takes(deepres, trained, photographs, tmp_path):
    pytest.importorskip("onnxscript")
    result = deepres("export", trained, "--out", "net.onnx", "--calibrate", photographs / "test")
    assert result.returncode == 0, result.stderr
    assert "float32 (N, 3, 32, 32), RGB in 0..1 less the mean, which the file only tells" in result.stdout
    assert "real pictures" in result.stdout
    net, images = library.load(trained), torch.rand(2, 3, 32, 32) - 0.5
    with torch.no_grad():
        expected = net(images).numpy()
    assert np.abs(run_onnx(tmp_path / "net.onnx")[0](images.numpy()) - expected).max() <= 1e-4 * np.abs(expected).max()


def test_int8_takes_its_ranges_from_pictures_and_is_smaller(deepres, trained, photographs, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    more = ("--preprocess", "--int8", "--calibrate", photographs / "train", "--json")
    result = deepres("export", trained, "--out", "int8.onnx", *more)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["same_top1"] >= 0.9 and report["checked_on"] == "6 real pictures"
    assert (tmp_path / "int8.onnx").stat().st_size < 0.3 * last_weights(trained).stat().st_size
    assert run_onnx(tmp_path / "int8.onnx")[1]["precision"] == "int8"


def test_a_file_that_differs_from_the_net_is_not_kept(refused, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "LARGEST_CHANGE", -1.0)
    (tmp_path / "net.pt2").write_text("the file before")
    assert "differ from the network's" in refused("export", trained, "--out", "net.pt2")
    assert [file.name for file in tmp_path.iterdir()] == ["net.pt2"]
    assert (tmp_path / "net.pt2").read_text() == "the file before"


def test_an_export_that_is_told_to_end_leaves_nothing(process, trained, tmp_path):
    child = process("export", trained, "--out", "exports/net.pt2", wait=False)
    while not list(tmp_path.glob("exports/.net.pt2.*")):
        assert child.poll() is None, child.communicate()
        time.sleep(0.005)
    child.send_signal(signal.SIGTERM)
    child.communicate()
    assert child.returncode == 128 + signal.SIGTERM
    assert list((tmp_path / "exports").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--out", "net.pb"), "end the name in one of .onnx"),
        (("--out", "net.onnx", "--format", "openvino"), ".xml (openvino)"),
        (("--out", "net.onnx", "--int8"), "--calibrate"),
        (("--out", "net.pt2", "--int8", "--calibrate", "."), "has no int8"),
        (("--out", "net.pt2", "--calibrate", "nowhere"), "there is no folder nowhere"),
        (("--out", "one.xml"), "one.bin is there already and no part of an export"),
        (("--out", "/dev/null/net.pt2"), "cannot be written"),
    ],
)
def test_bad_exports_are_refused_in_one_sentence(refused, trained, tmp_path, arguments, words):
    Image.new("RGB", (40, 40)).save(tmp_path / "one.png")
    (tmp_path / "one.bin").write_text("others' weights")
    assert words in refused("export", trained, *arguments)
    assert (tmp_path / "one.bin").read_text() == "others' weights"
