"""Trained detectors in files: weights, runs, folders of the hub's layout; what strangers write into their headers."""

import json
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import load_file

import deepres as package
from deepres.models.detection.detector import Detector
from deepres.models.network import Network
from deepres.records import Run
from deepres.runtime.errors import InputError
from deepres.weights import checkpoint
from deepres.weights.file import read_file, serialise
from small_detectors import CLASSES, assert_same_detections, pictures, small, written

PICTURE = pictures((90, 130))


@pytest.fixture(scope="module")
def net():
    return small(context=True, pooling="align")


@pytest.fixture(scope="module")
def tiny():
    return small("faster-rcnn-resnet20")


def hostile(net, file, **fields):
    """The weights of `net` under a header in which these fields are others."""
    file.write_bytes(serialise(net.state_dict(), net.mean, net.header | fields))
    return file


def test_a_detector_is_the_same_after_its_weights_file(net, tmp_path):
    back = package.load(written(net, tmp_path / "net.safetensors"))
    assert isinstance(back, Detector) and back.plan == net.plan and not back.training
    assert back.name == "faster-rcnn-resnet18" and back.header["classes"] == list(CLASSES)
    assert back.header["detector"] == asdict(net.plan) == net.header["detector"]
    assert_same_detections(back.detect(PICTURE)[0], net.detect(PICTURE)[0])


def test_labels_are_places_among_the_classes_of_the_header(net, tmp_path):
    back = package.load(written(net, tmp_path / "net.safetensors"))
    found = back.detect(pictures((90, 130), (60, 200)))
    assert len(found) == 2 and all(own.boxes.shape == (len(own), 4) and own.boxes.isfinite().all() for own in found)
    assert {back.header["classes"][label] for own in found for label in own.labels} <= set(CLASSES)


def test_a_detector_is_loaded_from_the_checkpoint_of_a_run(net, tmp_path):
    run = Run(tmp_path / "run")
    run.path.mkdir()
    (run.path / "config.json").write_text(json.dumps({"network": net.name, "recipe": {"iterations": 8}}))
    weights = serialise(net.state_dict(), net.mean, net.header | {"iteration": 8})
    checkpoint.save(run.path / "checkpoints", 8, weights, {"iteration": 8})
    with pytest.warns(UserWarning, match="not finished: these are its weights at iteration 8"):
        back = package.load(run.path)
    assert back.header["iteration"] == 8
    assert_same_detections(back.detect(PICTURE)[0], net.detect(PICTURE)[0])


def test_a_detector_is_saved_and_fetched_as_the_hub_has_it(net, tmp_path):
    net.save_pretrained(tmp_path / "hub")
    for kind in (Network, Detector):
        back = kind.from_pretrained(str(tmp_path / "hub"))
        assert_same_detections(back.detect(PICTURE)[0], net.detect(PICTURE)[0])
    assert "pipeline_tag: object-detection" in (tmp_path / "hub" / "README.md").read_text()
    assert json.loads((tmp_path / "hub" / "config.json").read_text())["detector"]["side"] == 96


def test_the_card_of_a_classifier_is_still_that_of_a_classifier(tmp_path):
    package.build("resnet20").save_pretrained(tmp_path)
    assert "pipeline_tag: image-classification" in (tmp_path / "README.md").read_text()


def test_a_plan_that_a_file_gives_in_part_has_the_usual_values_elsewhere(tiny, tmp_path):
    partly = {"anchor_scales": [1, 2, 4], "rpn_channels": 16, "colour": "red"}
    back = package.load(hostile(tiny, tmp_path / "net.safetensors", detector=partly))
    assert back.header["detector"] == asdict(back.plan) and back.plan.side == 600


def test_a_plan_in_the_header_of_a_classifier_makes_no_detector_of_it(tmp_path):
    net = package.build("resnet20")
    net.mean = torch.zeros(3, 1, 1)
    back = package.load(hostile(net, tmp_path / "net.safetensors", detector={"side": 600}))
    assert not isinstance(back, Detector) and "detector" not in back.header


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        ([1, 2], "must be the plan of a detector"),
        ({"side": 10**9}, "side is 1000000000, but must be from 32 to 4,096"),
        ({"side": float("nan")}, "detector of its header"),
        ({"rpn_channels": 10**6}, "must be from 1 to 4,096"),
        ({"anchor_scales": [1.0] * 1_000_000}, "and 999996 more, but must be 1 to 16 numbers"),
        ({"anchor_scales": [], "anchor_ratios": [1]}, "anchor_scales is empty"),
        ({"anchor_ratios": [1e-30]}, "from 0.01 to 100"),
        ({"region_size": -1}, "must be from 0 to 64"),
        ({"nms": 2}, "must be from 0 to 1"),
    ],
)
def test_a_plan_out_of_range_is_refused_in_one_short_sentence(tiny, tmp_path, plan, told):
    file = hostile(tiny, tmp_path / "net.safetensors", detector=plan)
    with pytest.raises(InputError) as caught:
        package.load(file)
    assert told in str(caught.value) and str(file) in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.usefixtures("checked_types")
@pytest.mark.parametrize(
    ("plan", "told"),
    [
        ({"side": "600"}, "at side: expected int, got str; mend the header"),
        ({"anchor_scales": {"8": 1}}, "at anchor_scales: expected array, got object"),
        ({"anchor_scales": [[8]]}, "at anchor_scales[0]: expected float, got array"),
        ({"context": "yes"}, "at context: expected bool"),
        ({"pooling": "mean"}, "at pooling: invalid enum value 'mean'"),
        ({"most": 1.5}, "at most: expected int, got float"),
    ],
)
def test_a_plan_of_wrong_types_is_refused_by_the_name_of_its_field(tiny, tmp_path, plan, told):
    with pytest.raises(InputError) as caught:
        package.load(hostile(tiny, tmp_path / "net.safetensors", detector=plan))
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"classes": ["one", "two"]}, "the list of classes has 2 entries, faster-rcnn-resnet20 has 3 classes"),
        ({"num_classes": 4}, "wrong shape score.weight"),
        ({"num_classes": 2**31 - 1, "classes": None}, "classes of its header must be a list of names"),
        ({"num_classes": 0}, "must be 1 or more"),
        ({"detector": {"anchor_scales": [8], "rpn_channels": 16}}, "wrong shape rpn.objectness.weight"),
        ({"network": "resnet18"}, "these weights are not of resnet18"),
        ({"network": "faster-rcnn-resnet34"}, "these weights are not of faster-rcnn-resnet34"),
        ({"network": "faster-rcnn-" * 5_000 + "resnet18"}, "a detector is no backbone of another one"),
        ({"network": "faster-rcnn-prelu-net"}, "cannot be cut for regions"),
        ({"network": "faster-rcnn-"}, "unknown network"),
    ],
)
def test_a_header_that_the_tensors_do_not_fit_is_refused(tiny, tmp_path, fields, told):
    with pytest.raises(InputError) as caught:
        package.load(hostile(tiny, tmp_path / "net.safetensors", **fields))
    assert told in str(caught.value) and len(str(caught.value)) < 1_000


def test_a_huge_number_of_classes_takes_no_memory(tiny, tmp_path):
    file = tmp_path / "net.safetensors"
    header = {key: value for key, value in tiny.header.items() if key != "classes"} | {"num_classes": 2**31 - 1}
    file.write_bytes(serialise(tiny.state_dict(), tiny.mean, header))
    with pytest.raises(InputError, match="wrong shape score"):
        package.load(file)


def test_the_mean_of_a_detector_must_be_one_colour(tiny, tmp_path):
    file = tmp_path / "net.safetensors"
    file.write_bytes(serialise(tiny.state_dict(), torch.full((3, 32, 32), 0.5), tiny.header))
    with pytest.raises(InputError, match=r"the mean of a detector is one color.*\(3, 32, 32\)"):
        package.load(file)


def test_a_std_is_folded_into_the_first_layer_of_the_backbone(tiny, tmp_path):
    back = package.load(hostile(tiny, tmp_path / "net.safetensors", std=[0.5, 0.25, 0.2]))
    ours, theirs = (own.features.conv1.conv.weight for own in (back, tiny))
    assert ours.allclose(theirs / torch.tensor([0.5, 0.25, 0.2])[:, None, None]) and "std" not in back.header


def test_convert_keeps_a_detector_and_gives_it_a_mean(net, deepres, tmp_path):
    file = tmp_path / "bare.safetensors"
    file.write_bytes(serialise(net.state_dict(), None, net.header))
    result = deepres("convert", file, "--mean", "0.5,0.45,0.4", "--to", "new.safetensors", "--json")
    assert result.returncode == 0, result.stderr
    facts = json.loads(result.stdout)
    assert facts["network"] == "faster-rcnn-resnet18" and facts["mean"] and facts["detector"]["pooling"] == "align"
    assert read_file(tmp_path / "new.safetensors").header["classes"] == list(CLASSES)
    assert load_file(tmp_path / "new.safetensors")["box.weight"].equal(net.box.weight)
    back = package.load(tmp_path / "new.safetensors")
    assert_same_detections(back.detect(PICTURE)[0], net.detect(PICTURE)[0])


@pytest.mark.parametrize("backbone", ["resnet20", "googlenet"])
def test_a_detector_has_no_form_of_torchvision(refused, tmp_path, backbone):
    written(small(f"faster-rcnn-{backbone}"), tmp_path / "net.safetensors")
    assert f"torchvision has no faster-rcnn-{backbone}" in refused("convert", "net.safetensors", "--to", "out.pth")
    assert not (tmp_path / "out.pth").exists()


def test_the_final_figures_of_a_run_go_into_the_header_of_its_weights(net, deepres, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"task": "detection", "network": net.name, "recipe": {}}))
    weights = serialise(net.state_dict(), net.mean, net.header | {"iteration": 8})
    checkpoint.save(run / "checkpoints", 8, weights, {"iteration": 8})
    done = {"iteration": 8, "train_loss": 0.5, "map50": 71.5, "map": 40.25, "seconds": 1.0}
    (run / "done.json").write_text(json.dumps(done))
    result = deepres("convert", run, "--to", "new.safetensors")
    assert result.returncode == 0, result.stderr
    assert read_file(tmp_path / "new.safetensors").header["figures"] == {"map50": 71.5, "map": 40.25}


def test_info_shows_the_cost_of_a_detector(deepres):
    table = json.loads(deepres("info", "faster-rcnn-resnet18", "--json").stdout)[0]
    rows = {row["stage"]: row for row in table["rows"]}
    backbone = {row["stage"]: row for row in json.loads(deepres("info", "resnet18", "--json").stdout)[0]["rows"]}
    assert table["title"] == "ResNet-18, Faster R-CNN"
    assert rows["conv1"]["output"] == "300x500" and rows["conv5_x"]["output"] == "7x7"
    # conv5_x runs for each of 300 regions of the size that a 224-pixel image has there.
    assert rows["conv5_x"]["multiply-adds"] == 300 * backbone["conv5_x"]["multiply-adds"]
    assert rows["conv5_x"]["parameters"] == backbone["conv5_x"]["parameters"]
    # A 3x3 convolution and two 1x1 convolutions at 38x63 positions, for nine anchors.
    assert rows["rpn"]["multiply-adds"] == 38 * 63 * (9 * 256 * 512 + 512 * 9 * 5)
    assert rows["box"]["multiply-adds"] == 300 * 512 * 4 * 80


def test_info_counts_the_whole_image_as_one_more_region_of_the_context(net, deepres, tmp_path):
    tables = json.loads(deepres("info", written(net, tmp_path / "net.safetensors"), "--json").stdout)
    rows = {row["stage"]: row for row in tables[1]["rows"]}
    assert rows["score"]["multiply-adds"] == 40 * 2 * 512 * 4
    assert rows["total"]["parameters"] == sum(value.numel() for value in net.parameters())


def test_info_tells_what_weights_know_of_themselves(net, deepres, tmp_path):
    tables = json.loads(deepres("info", written(net, tmp_path / "net.safetensors"), "--json").stdout)
    facts = {row["field"]: row["value"] for row in tables[0]["rows"]}
    assert facts["classes"] == "ball, cube, rod" and facts["detector.side"] == "96"
    assert facts["mean"] == "0.5000, 0.4500, 0.4000"
    shown = deepres("info", "net.safetensors").stdout
    assert "detector.anchor_scales" in shown and "ResNet-18, Faster R-CNN" in shown


def test_info_refuses_what_is_neither_a_network_nor_weights(refused, tmp_path):
    assert "there is no resnet51" in refused("info", "faster-rcnn-resnet51")
    assert "there is no weights file nowhere.safetensors" in refused("info", "nowhere.safetensors")
    (tmp_path / "empty").mkdir()
    assert "empty is no run folder" in refused("info", "empty")
