"""Detectors trained through the command line: on small pictures of coloured boxes, resumed, killed, on two ranks."""

import json
import signal
import time

import pytest
import torch
from safetensors.torch import load_file

from box_scenes import MARKS, arguments, write_scenes
from deepres.models.catalog import build
from runs import (
    assert_same_bits,
    kill_again_and_again,
    last_weights,
    run_deepres,
    run_two_ranks,
    stop_two_ranks,
    wait_for_checkpoint,
)
from small_detectors import written

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def undisturbed(scenes, tmp_path_factory):
    """A run that was left alone; the tests only read it."""
    place = tmp_path_factory.mktemp("undisturbed")
    result = run_deepres(place, *arguments(scenes, place / "run"), DEEPRES_CACHE=str(place / "cache"))
    assert result.returncode == 0, result.stderr
    return place / "run"


def rows(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_records_four_losses_and_mean_average_precision(undisturbed):
    losses = {"rpn_class_loss", "rpn_box_loss", "class_loss", "box_loss", "train_loss"}
    windows = [row for row in rows(undisturbed) if "train_loss" in row]
    assert [row["iteration"] for row in windows] == [3, 6, 9, 12]
    for row in windows:
        assert losses <= row.keys()
        assert abs(sum(row[name] for name in losses - {"train_loss"}) - row["train_loss"]) < 1e-4
    tests = [row for row in rows(undisturbed) if "map50" in row]
    assert [row["iteration"] for row in tests] == [6, 12]
    assert all(0 <= row["map"] <= row["map50"] + 1e-6 <= 100 for row in tests)
    config = json.loads((undisturbed / "config.json").read_text())
    assert config["task"] == "detection" and config["network"] == "faster-rcnn-resnet8"
    assert config["classes"] == ["blue", "red"] and config["recipe"]["name"] == "auto"


def test_the_recorded_configuration_is_enough_to_go_on(undisturbed, deepres):
    result = deepres("train", "--run", undisturbed, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["iteration"] == 12


def test_a_run_killed_at_any_moment_ends_with_the_same_bits(process, scenes, undisturbed, tmp_path, kills):
    kill_again_and_again(process, tmp_path / "killed", kills, *arguments(scenes, tmp_path / "killed"))
    assert_same_bits(tmp_path / "killed", undisturbed)


def test_a_run_killed_while_it_is_tested_ends_with_the_same_bits(process, here, scenes, undisturbed, tmp_path):
    run = tmp_path / "killed"
    child = process(*arguments(scenes, run), wait=False, DEEPRES_CHECKPOINT_SECONDS="0")
    rows_file = run / "metrics.jsonl"
    while not (rows_file.exists() and '"iteration": 6' in rows_file.read_text()):  # the window before its test
        assert child.poll() is None, child.communicate()
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert "map50" not in rows_file.read_text(), "the test was over"
    assert here(*arguments(scenes, run)).returncode == 0
    assert_same_bits(run, undisturbed)


def test_proposals_are_made_to_the_end_after_a_kill(process, here, scenes, tmp_path):
    """Killed as soon as the RPN of step 1 is trained: what is kept of the proposals is all of them or none."""
    more = arguments(scenes, "run", "--alternating", "--iterations", 2, "--set", "recipe.proposals=20")
    child = process(*more, wait=False)
    while not (tmp_path / "run" / "1-rpn" / "done.json").exists():
        assert child.poll() is None, child.communicate()
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert here(*more).returncode == 0
    assert here(*("whole" if word == "run" else word for word in more)).returncode == 0
    stopped, whole = (load_file(last_weights(tmp_path / name / "4-regions")) for name in ("run", "whole"))
    assert all((stopped[name] == whole[name]).all() for name in whole)  # the headers say where a run started


def test_two_ranks_stop_in_the_middle_of_an_epoch_and_end_with_the_same_bits(scenes, tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    result = run_two_ranks(tmp_path, *arguments(scenes, whole), "--json")
    assert result.returncode == 0, result.stderr
    done = json.loads(result.stdout)
    assert done["iteration"] == 12 and 0 <= done["map50"] <= 100
    stop_two_ranks(tmp_path, stopped, *arguments(scenes, stopped))
    assert_same_bits(stopped, whole)


def test_a_run_of_the_paper_s_recipe_takes_its_numbers(deepres, scenes, tmp_path):
    result = deepres(
        *("train", "detector", "--backbone", "resnet8", "--data", scenes, "--recipe", "faster-rcnn", *MARKS),
        *("--iterations", 4, "--set", "side=48", "--set", "longest=80", "--set", "candidates=100", "--run", "run"),
    )
    assert result.returncode == 0, result.stderr
    recipe = json.loads((tmp_path / "run" / "config.json").read_text())["recipe"]
    assert (recipe["lr"], recipe["weight_decay"], recipe["batch_size"], recipe["regions"]) == (0.001, 5e-4, 2, 128)
    assert recipe["milestones"] == [3]


def test_weights_of_a_classifier_are_a_backbone(deepres, folder, scenes, tmp_path):
    trained = deepres("train", "resnet8", "--data", folder, "--iterations", 2, "--batch-size", 4, "--run", "net")
    assert trained.returncode == 0, trained.stderr
    result = deepres(*arguments(scenes, "run", "--backbone", "net"))
    assert result.returncode == 0, result.stderr
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["start"] == "net" and config["freeze"] == ["bn"]
    # The frozen statistics are those of the classifier.
    before, after = load_file(last_weights(tmp_path / "net")), load_file(last_weights(tmp_path / "run"))
    name = "conv2_x.1.residual.layer1.bn.running_mean"
    assert (before[name] == after[f"features.{name}"]).all()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--backbone", "prelu-net"), "cannot be cut for regions"),
        (("--backbone", "resnet9"), "resnet9"),
        (("--set", "anchor_scales=0"), "anchor_scales"),
        (("--set", "negatives_from=0.5"), "negatives_from is 0.5"),
        (("--test-set", "nothing"), "nothing"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(refused, scenes, more, said):
    assert said in refused(*arguments(scenes, "run", *more))


def test_a_detector_without_a_backbone_is_refused(refused, scenes):
    assert "give --backbone" in refused("train", "detector", "--data", scenes)


def test_what_looks_for_classes_says_of_boxes_what_they_are_for(refused, scenes, tmp_path):
    net = build("resnet20", 2)
    net.mean = torch.zeros(3, 32, 32)
    written(net, tmp_path / "net.safetensors")
    told = "it has boxes, for deepres train detector"
    assert told in refused("data", "stats", scenes)
    assert told in refused("eval", "net.safetensors", "--data", scenes)


def test_the_four_steps_are_four_runs_that_go_on_where_they_were_stopped(process, here, scenes, tmp_path):
    """Shared layers stay as step 2 left them, the regions as step 2 until step 4, and the RPN as step 3 left it."""
    more = arguments(scenes, "run", "--alternating", "--iterations", 4, "--set", "recipe.proposals=20")
    child = process(*more, wait=False, DEEPRES_CHECKPOINT_SECONDS="0")
    wait_for_checkpoint(child, tmp_path / "run" / "2-regions")
    child.send_signal(signal.SIGKILL)
    child.communicate()
    rest = here("train", "--run", "run", "--iterations", 4)
    assert rest.returncode == 0, rest.stderr
    assert "step 2 of 4, the regions: faster-rcnn" in rest.stderr and "step 4 of 4" in rest.stderr
    assert rest.stderr.count("training boxes") == 1, rest.stderr  # the data are told of once
    assert here(*(str(word).replace("run", "whole") if word == "run" else word for word in more)).returncode == 0
    steps = [load_file(last_weights(tmp_path / "run" / name)) for name in ("1-rpn", "2-regions", "3-rpn", "4-regions")]
    whole = load_file(last_weights(tmp_path / "whole" / "4-regions"))
    first, second, third, fourth = steps
    assert all((whole[name] == fourth[name]).all() for name in fourth)
    shared = [name for name in fourth if name.startswith(("features.conv1", "features.conv2_x", "features.conv3_x"))]
    own = [name for name in fourth if name.startswith(("features.conv4_x", "score", "box"))]
    assert shared and own and len(shared) + len(own) < len(fourth)
    assert all((second[name] == fourth[name]).all() for name in shared)
    assert all((second[name] == third[name]).all() for name in own)
    assert any((third[name] != fourth[name]).any() for name in own)
    assert any((first[name] != third[name]).any() for name in fourth if name.startswith("rpn"))
    done = [json.loads((tmp_path / "run" / name / "done.json").read_text()) for name in ("1-rpn", "4-regions")]
    assert 0 < done[0]["recall"] <= done[0]["recall50"] <= 100 and "map50" not in done[0] and "map50" in done[1]
    assert all((third[name] == fourth[name]).all() for name in fourth if name.startswith("rpn"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("resnet8", "--iterations", 2), "it has boxes, for deepres train detector"),
        (("resnet8", "--backbone", "resnet8"), "--backbone is of a detector"),
        (
            ("faster-rcnn-resnet8", "--backbone", "resnet14"),
            "the backbone makes faster-rcnn-resnet14, not faster-rcnn-",
        ),
        (("detector", "--backbone", "resnet8", "--split", "5/5"), "--split is of a classifier; leave it out"),
        (("detector", "--backbone", "resnt8"), "unknown network 'resnt8'; did you mean"),
        (("detector", "--backbone", "gone.pth"), "there is no weights file gone.pth"),
    ],
)
def test_a_classifier_and_a_detector_are_told_apart(refused, scenes, words, said):
    assert said in refused("train", *words, "--data", scenes)
