"""`deepres eval` of a detector, what its run keeps, and the page of the run: through the real command line."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from box_scenes import arguments, write_scenes
from deepres.data.boxes.truth import Truth
from deepres.detection.detection_table import read_detections, write_detections
from deepres.detection.mean_ap.voc import voc_map
from deepres.models.detection.outputs import Detections
from deepres.records import Run
from deepres.report import sheets
from deepres.runtime.errors import InputError
from detector_files import write_detector
from runs import run_deepres, run_two_ranks

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"), 10, 12)


@pytest.fixture(scope="module")
def trained(scenes, tmp_path_factory):
    """A run that was trained for a moment; the tests copy it."""
    place = tmp_path_factory.mktemp("trained")
    result = run_deepres(place, *arguments(scenes, place / "run"), DEEPRES_CACHE=str(place / "cache"))
    assert result.returncode == 0, result.stderr
    return place / "run"


@pytest.fixture
def run(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "run"))


def evaluated(deepres, *arguments):
    result = deepres("eval", *arguments, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_a_run_is_tested_on_its_own_pictures_and_gets_the_figures_of_its_training(deepres, run):
    found, done = evaluated(deepres, run), Run(run).done
    assert found["images"] == 12 and found["title"] == "baseline"
    # Its own test ran on other kernels, whose rounding may change the order of two detections.
    assert (found["map50"], found["map"]) == pytest.approx((done["map50"], done["map"]), abs=0.5)
    assert [one["name"] for one in found["classes"]] == ["blue", "red"]
    assert [one["most"] for one in found["proposal_recall"]] == [50, 100, 300, 1000]
    assert found["map50_interval"][0] <= found["map50"] <= found["map50_interval"][1]
    # The table says the same.
    table = deepres("eval", run).stdout
    assert f"{found['map50']:.1f}" in table and "Recall of proposals" in table and "What objects are taken for" in table
    assert "Of detections with a score of 0.5 or more" in " ".join(table.split())


def test_an_exported_file_is_tested_as_its_weights_are(deepres, refused, run, scenes):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    made = deepres("export", run, "--out", "net.onnx", "--calibrate", scenes)
    assert made.returncode == 0, made.stderr
    own, found = evaluated(deepres, run), evaluated(deepres, "net.onnx", "--data", scenes)
    assert found["images"] == own["images"] and found["proposal_recall"] == []
    assert (found["map50"], found["map"]) == pytest.approx((own["map50"], own["map"]), abs=0.5)
    assert "Recall of proposals" not in deepres("eval", "net.onnx", "--data", scenes).stdout
    assert "give --data" in refused("eval", "net.onnx")
    assert "is tested as it was exported" in refused("eval", "net.onnx", "--data", scenes, "--refine")


def test_a_second_test_takes_what_the_first_one_kept(deepres, run):
    first = evaluated(deepres, run)
    result = deepres("eval", run, "--json")
    assert "kept from an earlier test" in result.stderr and json.loads(result.stdout) == first
    # Other settings are another test; and what is damaged, or of other weights, is made again.
    assert "kept from" not in deepres("eval", run, "--refine").stderr
    assert "kept from" in deepres("eval", run, "--refine").stderr
    (run / "detections.safetensors").write_bytes(b"damaged")
    again = deepres("eval", run, "--json")
    assert "made again" in again.stderr and json.loads(again.stdout) == first
    newest = sorted((run / "checkpoints").iterdir())[-1]
    shutil.rmtree(newest)
    assert "kept from" not in deepres("eval", run).stderr


def test_a_changed_annotation_is_another_test(deepres, run, scenes, tmp_path):
    copy = Path(shutil.copytree(scenes, tmp_path / "copy"))
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"data": str(copy), "data_path": str(copy)}))
    before = evaluated(deepres, run)
    assert "kept from" in deepres("eval", run).stderr
    annotation = copy / "Annotations" / "11.xml"
    text = annotation.read_text()
    annotation.write_text(text[: text.index("<object>")] + "</annotation>")
    result = deepres("eval", run, "--json")
    after = json.loads(result.stdout)
    assert "kept from" not in result.stderr
    assert sum(one["objects"] for one in after["classes"]) == sum(one["objects"] for one in before["classes"]) - 2


def test_two_ranks_share_the_pictures_and_tell_the_same(run, scenes, tmp_path):
    alone = run_deepres(tmp_path, "eval", run, "--json", DEEPRES_CACHE=str(tmp_path / "cache"))
    (run / "detections.safetensors").unlink()
    both = run_two_ranks(tmp_path, "eval", run, "--json", DEEPRES_CACHE=str(tmp_path / "cache"))
    assert both.returncode == 0, both.stderr
    assert json.loads(both.stdout) == json.loads(alone.stdout)


def test_the_kept_file_tells_all_that_was_found(deepres, run, scenes):
    found = evaluated(deepres, run)
    table = read_detections(run / "detections.safetensors")
    assert table.names == tuple(f"JPEGImages/{number:02}.png" for number in range(10, 22))
    assert [len(truth) for truth in table.truths] == [number % 3 for number in range(10, 22)]
    result = voc_map(table.truths, table.found, table.classes)
    assert 100 * (result.map or 0) == pytest.approx(found["map50"], abs=1e-3)


def test_weights_without_a_run_need_data_and_are_matched_by_name(deepres, refused, scenes, tmp_path):
    weights = write_detector(tmp_path / "w.safetensors", ("red", "blue", "green"))
    assert "give --data" in refused("eval", weights)
    found = evaluated(deepres, weights, "--data", scenes)
    assert [one["name"] for one in found["classes"]] == ["red", "blue", "green"]
    assert [one["objects"] for one in found["classes"]] == [8, 4, 0] and found["classes"][2]["ap"] is None
    strange = write_detector(tmp_path / "strange.safetensors", ("cat", "dog"))
    assert "cat" in refused("eval", strange, "--data", scenes)
    by_place = evaluated(deepres, strange, "--data", scenes, "--by-place")
    assert [one["name"] for one in by_place["classes"]] == ["blue", "red"]


def test_several_detectors_are_an_ensemble(deepres, run, tmp_path, scenes):
    other = write_detector(tmp_path / "w.safetensors", ("red", "blue"), backbone="resnet8", side=48, longest=80)
    found = evaluated(deepres, run, other)
    assert found["title"] == "+ ensemble of 2" and len(found["network"]) == 2
    assert not (run / "detections.safetensors").exists()  # they are not those of the run alone


def test_pictures_that_a_run_was_trained_on_are_left_out(deepres, run, scenes, tmp_path):
    mixed = Path(shutil.copytree(scenes, tmp_path / "mixed"))
    (mixed / "ImageSets" / "Main" / "test.txt").write_text("03\n04\n12\n13\n14\n")
    result = deepres("eval", run, "--data", mixed, "--json")
    assert "left out of the test: 2 that a run was trained on" in result.stderr
    assert json.loads(result.stdout)["images"] == 3
    assert evaluated(deepres, run, "--part", "train")["images"] == 10


def test_mistakes_are_written_as_pictures_and_as_a_list(deepres, refused, run, tmp_path):
    result = deepres("eval", run, "--wrong", "wrong", "--json")
    assert "in wrong/mistakes.csv; " in result.stderr and "pictures of them beside it" in result.stderr
    found = json.loads(result.stdout)
    counts = {kind: count for kind, count in found["outcomes"].items() if kind != "hit"}
    with (tmp_path / "wrong" / "mistakes.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    drawn = sorted(file.relative_to(tmp_path / "wrong") for file in (tmp_path / "wrong").rglob("*.jpg"))
    assert len(rows) == len(drawn) == sum(counts.values()) > 0
    for kind, count in counts.items():
        assert sum(row["kind"] == kind for row in rows) == count
        assert sum(file.parts[0] == kind.replace(" ", "-") for file in drawn) == count
    for number, row in enumerate(rows, 1):
        (file,) = (one for one in drawn if one.name.startswith(f"{number:05}-"))
        assert Path(row["picture"]).stem in file.name
    assert "is to be a new folder" in refused("eval", run, "--wrong", "wrong")


@pytest.mark.parametrize("option", [("--protocol", "single"), ("--save-scores", "x.safetensors"), ("--split", "1/1")])
def test_options_of_classifiers_are_refused(refused, run, option):
    assert f"{option[0]} is for classifiers" in refused("eval", run, *option)


def test_options_that_make_no_sense_are_refused(refused, run):
    assert "test one kind" in refused("eval", run, "nothing.safetensors")
    assert "give --part test" in refused("eval", run, "--part", "all")
    assert "threshold is 3" in refused("eval", run, "--threshold", 3)
    assert "nowhere" in refused("eval", run, "--test-set", "nowhere")


def test_the_page_of_a_run_shows_curves_tables_and_test_pictures(deepres, run):
    assert deepres("eval", run).returncode == deepres("eval", run, "--refine").returncode == 0
    assert deepres("report", run).returncode == 0
    text = (run / "report.html").read_text()
    for title in ("Precision and recall", "Average precision by class", "Recall of proposals"):
        assert title in text
    assert "+ box refinement" in text and "baseline" in text  # rows of the table of all tests
    assert text.count('src="data:image/jpeg;base64,') == 1
    with Image.open(run / "sheet.jpg") as image:
        assert image.width > 400 and image.height > 600


def test_a_run_that_was_not_tested_has_a_page_of_its_curves(deepres, run):
    assert deepres("report", run).returncode == 0
    text = (run / "report.html").read_text()
    assert "Mean average precision" in text and "data:image/jpeg" not in text


def table_of(run):
    return read_detections(run / "detections.safetensors")


@pytest.mark.parametrize("fault", ["ends", "label", "cut", "header"])
def test_damaged_detections_are_refused_with_a_sentence(deepres, run, tmp_path, fault):
    evaluated(deepres, run)
    file = run / "detections.safetensors"
    content = file.read_bytes()
    table = table_of(run)
    if fault == "ends":
        file.write_bytes(content.replace(b'JPEGImages/10.png\\", \\"', b"", 1))
    elif fault == "label":
        found = [Detections(one.boxes, one.scores, one.labels + 7) for one in table.found]
        write_detections(file, type(table)(*(list(vars(table).values())[:4]), tuple(found), table.recalls, table.facts))
    elif fault == "cut":
        file.write_bytes(content[:-20])
    else:
        file.write_bytes(content.replace(b"deepres.detections", b"deepres.detectionz", 1))
    with pytest.raises(InputError, match="run deepres eval again"):
        table_of(run)


def test_a_sheet_has_truth_and_detections_of_every_picture_side_by_side():
    pictures = [torch.full((3, 100, 200), 128, dtype=torch.uint8), torch.full((3, 200, 100), 128, dtype=torch.uint8)]
    none = Truth(torch.zeros(0, 4), torch.zeros(0).long(), *torch.zeros(2, 0).bool(), torch.zeros(0))
    one = Detections(torch.tensor([[20.0, 30.0, 60.0, 80.0]]), torch.tensor([0.9]), torch.tensor([0]))
    image = np.array(sheets.sheet(pictures, [none, none], [one, one], ["cat"], ["a.png", "b.png"]))
    small, scale = sheets.resized(pictures[0], sheets.CELL, sheets.LARGEST)
    assert scale.tolist() == pytest.approx([2.2] * 4) and small.shape == (3, 220, 440)
    cells = image[sheets.STRIP :]
    left, right = cells[:220, :440], cells[:220, 440 + sheets.GAP : 880 + sheets.GAP]
    assert (left == 128).all() and (right != 128).any()
