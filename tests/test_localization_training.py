"""Localizers trained and tested through the command line: resumed, with an R-CNN stage, beside a classifier."""

import json

import pytest
import torch

from deepres.models.catalog import build
from deepres.weights.file import serialise
from one_object import MARKS, RECIPE, arguments, write_pictures
from runs import assert_same_bits, kill_again_and_again, run_deepres, run_two_ranks, stop_two_ranks

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def trained(pictures, tmp_path_factory):
    """A run of an RPN, one of an R-CNN stage on it, and weights of a classifier; the tests only read them."""
    place = tmp_path_factory.mktemp("runs")
    for command in (
        arguments(pictures, place / "rpn"),
        arguments(pictures, place / "rcnn", "--set", f"rpn={place / 'rpn'}"),
    ):
        result = run_deepres(place, *command, DEEPRES_CACHE=str(place / "cache"))
        assert result.returncode == 0, result.stderr
    torch.manual_seed(0)
    net = build("resnet8", 2)
    header = net.header | {"classes": ["blue", "red"], "crop": 48}
    (place / "classifier.safetensors").write_bytes(serialise(net.state_dict(), torch.full((3, 1, 1), 0.5), header))
    return place


def rows(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_records_two_losses_and_the_localization_error(trained):
    for name in ("rpn", "rcnn"):
        windows = [row for row in rows(trained / name) if "train_loss" in row]
        assert [row["iteration"] for row in windows] == [3, 6, 9, 12]
        for row in windows:
            assert abs(row["class_loss"] + row["box_loss"] - row["train_loss"]) < 1e-4
        tests = [row for row in rows(trained / name) if "loc_error" in row]
        assert [row["iteration"] for row in tests] == [6, 12]
        assert all(0 <= row["loc_error"] <= 100 for row in tests)
        config = json.loads((trained / name / "config.json").read_text())
        assert config["task"] == "localization" and config["network"] == "localizer-resnet8"
        assert config["classes"] == ["blue", "red"]


@pytest.mark.parametrize("part", ["rpn", "rcnn"])
def test_a_run_killed_at_any_moment_ends_with_the_same_bits(process, pictures, trained, tmp_path, part, kills):
    more = ("--set", f"rpn={trained / 'rpn'}") if part == "rcnn" else ()
    kill_again_and_again(process, tmp_path / "killed", kills, *arguments(pictures, tmp_path / "killed", *more))
    assert_same_bits(tmp_path / "killed", trained / part)


def test_two_ranks_learn_what_one_learns_and_stop_in_the_middle_of_an_epoch(pictures, trained, tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    result = run_two_ranks(tmp_path, *arguments(pictures, whole))
    assert result.returncode == 0, result.stderr
    first, both = rows(trained / "rpn")[0], rows(whole)[0]
    assert both["iteration"] == first["iteration"]
    assert both["train_loss"] == pytest.approx(first["train_loss"], rel=0.3)
    stop_two_ranks(tmp_path, stopped, *arguments(pictures, stopped))
    assert_same_bits(stopped, whole)


def evaluated(deepres, *more):
    result = deepres("eval", *more, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_eval_tells_the_error_with_the_class_given_and_of_the_box_in_the_middle(deepres, trained):
    found = evaluated(deepres, trained / "rpn")
    assert found["pictures"] == 4 and found["errors"].keys() == {"centre", "given"}
    done = json.loads((trained / "rpn" / "done.json").read_text())
    assert found["errors"]["given"]["error"] == pytest.approx(done["loc_error"])
    low, high = found["errors"]["given"]["interval"]
    assert low <= found["errors"]["given"]["error"] <= high


def test_a_stage_is_tested_on_what_its_rpn_proposes_and_classifiers_tell_the_classes(deepres, trained):
    every = [trained / name for name in ("rpn", "rcnn", "classifier.safetensors")]
    found = evaluated(deepres, *every, "--protocol", "dense", "--scales", "48,64")
    errors = {name: own["error"] for name, own in found["errors"].items()}
    assert found["title"] == "RPN+RCNN, dense"
    assert errors["top5"] == errors["given"], "of two classes, five guesses have both"
    assert errors["top1"] >= max(errors["class1"], errors["top5"])
    again = deepres("eval", *every, "--protocol", "dense", "--scales", "48,64")
    assert "kept from an earlier test" in again.stderr
    assert "top-5, classes predicted" in again.stdout


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (("eval", "rcnn"), "give the run of its RPN"),
        (("eval", "rpn", "--refine"), "--refine is not for localizers"),
        (("eval", "rpn", "--protocol", "10-crop"), "center or dense, not 10-crop"),
        (("eval", "rpn", "--part", "all"), "tested on one part"),
        (("predict", "rpn", "pictures"), "is a localizer"),
        (("detect", "rpn", "pictures"), "is a localizer"),
        (("export", "rpn", "--out", "a.onnx"), "is a localizer"),
        (("demo", "rpn"), "is a localizer"),
        (("eval", "rpn", "--test-set", "none"), "has no test pictures; give another --part, or --test-set"),
    ],
)
def test_what_does_not_go_with_a_localizer_is_refused_in_a_sentence(refused, trained, pictures, command, told):
    places = {"rpn": trained / "rpn", "rcnn": trained / "rcnn", "pictures": pictures / "val"}
    assert told in refused(*(places.get(word, word) for word in command))


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--set", "rpn=nowhere"), "nowhere"),
        (("--set", "crop=300"), "from the crop (300) up"),
        (("--set", "map=conv9_x"), "has no map 'conv9_x'"),
        (("--test-set", "none"), "a run is tested as it is trained"),
        (("--image-size", "32"), "--image-size is of a classifier; leave it out"),
        (("--backbone", "localizer-resnet8"), "a localizer is no backbone of another one; name a classifier"),
        (("--backbone", "alexnet"), "alexnet takes images of 63 pixels a side or more, not of 48x48"),
    ],
)
def test_a_training_that_makes_no_sense_is_refused_in_a_sentence(refused, pictures, tmp_path, more, told):
    sides = ("--set", "sides=60,90")
    assert told in refused(*arguments(pictures, tmp_path / "run", *sides, *more))
    assert not (tmp_path / "run").exists()


def test_a_localizer_begins_on_the_weights_of_a_classifier_and_of_a_localizer(deepres, pictures, trained, tmp_path):
    start = build("resnet8", 4)
    weights = tmp_path / "net.safetensors"
    weights.write_bytes(serialise(start.state_dict(), torch.full((3, 1, 1), 0.5), start.header))
    for place in (weights, trained / "rpn"):
        run = tmp_path / f"from-{place.name}"
        command = ("train", "localizer", "--backbone", place, "--data", pictures, "--run", run, *RECIPE, *MARKS)
        result = deepres(*command)
        assert result.returncode == 0, result.stderr
        assert json.loads((run / "config.json").read_text())["freeze"] == ["bn"]


def test_the_page_of_a_run_shows_its_error(deepres, trained, tmp_path):
    result = deepres("report", trained / "rpn", trained / "rcnn", "--out", tmp_path / "page.html")
    assert result.returncode == 0, result.stderr
    page = (tmp_path / "page.html").read_text()
    assert "localization error, class given" in page and "localizer" in page
