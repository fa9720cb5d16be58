"""Cascades trained through the command line: on small pictures of coloured ovals, resumed, killed, started."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask
from safetensors.torch import load_file

from box_scenes import arguments as of_boxes
from box_scenes import write_scenes
from deepres.weights.file import read_file
from mask_scenes import arguments, write_mask_scenes
from runs import assert_same_bits, kill_again_and_again, last_weights, run_deepres, run_two_ranks, stop_two_ranks

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_mask_scenes(tmp_path_factory.mktemp("scenes") / "ovals")


@pytest.fixture(scope="module")
def undisturbed(scenes, tmp_path_factory):
    """A run that was left alone; the tests only read it."""
    place = tmp_path_factory.mktemp("undisturbed")
    result = run_deepres(place, *arguments(scenes, place / "run"), DEEPRES_CACHE=str(place / "cache"))
    assert result.returncode == 0, result.stderr
    assert "mAP^r@.5" in result.stdout
    return place / "run"


def test_a_run_records_six_losses_and_the_mean_average_precision_of_masks_and_boxes(undisturbed):
    rows = [json.loads(line) for line in (undisturbed / "metrics.jsonl").read_text().splitlines()]
    losses = {"rpn_class_loss", "rpn_box_loss", "mask_loss", "class_loss", "mask_class_loss", "box_loss"}
    windows = [row for row in rows if "train_loss" in row]
    assert [row["iteration"] for row in windows] == [2, 4, 6, 8]
    for row in windows:
        assert abs(sum(row[name] for name in losses) - row["train_loss"]) < 1e-4 and row["mask_loss"] > 0
    tests = [row for row in rows if "mask_map50" in row]
    assert [row["iteration"] for row in tests] == [4, 8]
    for row in tests:
        assert {"mask_map70", "mask_map", "map50", "map"} <= row.keys()
        assert 0 <= row["mask_map70"] <= row["mask_map50"] <= 100
    config = json.loads((undisturbed / "config.json").read_text())
    assert (config["task"], config["network"]) == ("segmentation", "mnc-resnet8")
    assert (config["stages"], config["region_size"], config["recipe"]["name"]) == (5, 7, "auto")
    header = read_file(last_weights(undisturbed)).header
    assert header["detector"]["mask_size"] == 7 and header["classes"] == ["red", "blue"]


def test_a_run_killed_at_any_moment_ends_with_the_same_bits(process, scenes, undisturbed, tmp_path, kills):
    kill_again_and_again(process, tmp_path / "killed", kills, *arguments(scenes, tmp_path / "killed"))
    assert_same_bits(tmp_path / "killed", undisturbed)


def test_two_ranks_stop_in_the_middle_of_an_epoch_and_end_with_the_same_bits(scenes, tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    result = run_two_ranks(tmp_path, *arguments(scenes, whole), "--json")
    assert result.returncode == 0, result.stderr
    assert 0 <= json.loads(result.stdout)["mask_map50"] <= 100
    stop_two_ranks(tmp_path, stopped, *arguments(scenes, stopped))
    assert_same_bits(stopped, whole)


def test_data_without_masks_are_refused_in_one_sentence(deepres, tmp_path):
    plain = write_mask_scenes(tmp_path / "plain", 3, 2, masks=False)
    result = deepres(*arguments(plain, "run"))
    assert result.returncode == 2 and "has no masks of its training or test objects" in result.stderr


def test_weights_of_a_detector_are_a_start_of_both_paths(deepres, scenes, tmp_path):
    trained = deepres(*of_boxes(write_scenes(tmp_path / "boxes", 4, 2), "boxed"), "--iterations", 1)
    assert trained.returncode == 0, trained.stderr
    result = deepres(*arguments(scenes, "run", "--iterations", 1, "--set", "lr=1e-20"), "--backbone", "boxed")
    assert result.returncode == 0, result.stderr
    before, after = (load_file(last_weights(tmp_path / name)) for name in ("boxed", "run"))
    for key in [key for key in before if key.startswith("features.conv4_x") and "running" not in key]:
        masked = key.replace("features.", "masked.")
        assert before[key].allclose(after[key]) and before[key].allclose(after[masked])
    assert before["rpn.conv.weight"].allclose(after["rpn.conv.weight"])
    assert after["score.weight"].shape[1] == 2 * before["score.weight"].shape[1]


def test_what_a_run_finds_has_masks_as_coco_s_tools_take_them(deepres, scenes, undisturbed, tmp_path):
    picture = sorted((scenes / "test").iterdir())[0]
    every = ("detect", undisturbed, picture, "--threshold", 0.0)
    result = deepres(*every, "--format", "coco", "--draw", "drawn")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    with Image.open(picture) as image:
        width, height = image.size
        plain = np.asarray(image.convert("RGB"))
    assert found and all(one["segmentation"]["size"] == [height, width] for one in found)
    for one in found:
        left, top, wide, high = one["bbox"]
        own = one["segmentation"] | {"counts": one["segmentation"]["counts"].encode()}
        assert not mask.area(own) or mask.toBbox(own).tolist() == [left, top, wide, high]
    with Image.open(tmp_path / "drawn" / picture.name) as image:
        assert (np.asarray(image.convert("RGB")) != plain).mean() > 0.2
    refined = deepres(*every, "--refine", "--format", "coco")
    assert refined.returncode == 0 and "boxes alone" in refined.stderr
    assert all("segmentation" not in one for one in json.loads(refined.stdout))


def test_the_four_steps_of_detectors_are_refused_in_one_sentence(deepres, scenes):
    stepwise = deepres(*arguments(scenes, "steps", "--alternating"))
    assert stepwise.returncode == 2 and "leave --alternating out" in stepwise.stderr


def test_pictures_that_are_too_small_for_the_network_are_refused_before_a_run_begins(deepres, scenes, tmp_path):
    small = deepres(*arguments(scenes, "run", "--backbone", "alexnet"))
    assert small.returncode == 2 and not (tmp_path / "run").exists()
    assert "alexnet takes pictures of 63 pixels a side or more, and some become 40" in small.stderr
    assert "--set side=, sides= and longest=" in small.stderr


def test_data_without_boxes_are_refused_before_the_network(deepres, scenes, tmp_path):
    shutil.copytree(scenes, tmp_path / "bare")
    file = tmp_path / "bare" / "annotations" / "instances_train.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"annotations": []}))
    bare = deepres(*arguments(tmp_path / "bare", "run"))
    assert bare.returncode == 2 and "has no boxes to train on" in bare.stderr


def test_eval_tells_the_figures_of_masks_beside_those_of_boxes(deepres, scenes, undisturbed, tmp_path):
    """The figures of the run's own last test are those of eval; the page and the pictures show masks."""
    result = deepres("eval", undisturbed, "--json")
    assert result.returncode == 0, result.stderr
    record, done = json.loads(result.stdout), json.loads((undisturbed / "done.json").read_text())
    masks = record["masks"]
    assert [masks["map50_r"], masks["map70_r"], masks["coco"]["map"], record["map50"]] == pytest.approx(
        [done["mask_map50"], done["mask_map70"], done["mask_map"], done["map50"]], abs=1e-3
    )
    assert [one["name"] for one in masks["classes"]] == ["red", "blue"]
    # Again, from what the run folder keeps, for readers.
    again = deepres("eval", undisturbed, "--wrong", "mistakes")
    assert again.returncode == 0, again.stderr
    assert "kept from an earlier test" in again.stderr and "masks: mAP^r" in again.stdout
    for title in ("Average precision by class", "Average precision of masks by class", "COCO's figures of masks"):
        assert title in again.stdout
    assert (tmp_path / "mistakes" / "mistakes.csv").exists() and (undisturbed / "sheet.jpg").exists()
    # The page.
    assert deepres("report", undisturbed, "--out", "page.html").returncode == 0
    page = (tmp_path / "page.html").read_text()
    assert "Average precision of masks by class" in page and "Mean average precision of masks (mAP^r)" in page
    # Boxes alone, where improvements leave no masks.
    refined = deepres("eval", undisturbed, "--refine", "--json")
    assert refined.returncode == 0 and "masks" not in json.loads(refined.stdout)
