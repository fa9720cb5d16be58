"""A detector learns a few photographs by heart: what no fault in targets, losses or decoding leaves possible."""

import json
import shutil

import pytest

PICTURES = 8
LEAST = 0.1  # size of the smallest object that counts, of the picture's shorter side: the net sees 25 pixels or more
RECIPE = ("flip=false", "colour=0", "sides=", "side=256", "longest=400", "smallest=0", "weight_decay=1e-4")
LENGTH = ("regions=32", "decay=linear", "window=100", "evaluate_every=500")


def learnable(image, objects):
    """Whether a picture has two objects or more, none of them tiny or a crowd."""
    least = LEAST * min(image["width"], image["height"])
    sizes = [(own["bbox"][2] * own["bbox"][3]) ** 0.5 for own in objects]
    return len(objects) > 1 and min(sizes) >= least and not any(own["iscrowd"] for own in objects)


@pytest.fixture
def eight(real_data, tmp_path):
    """Eight photographs of COCO, which are trained on and tested on: 25 objects of 14 classes."""
    root = real_data / "coco128"
    truth = json.loads((root / "annotations" / "instances_train2017.json").read_text())
    objects = {image["id"]: [] for image in truth["images"]}
    for own in truth["annotations"]:
        objects[own["image_id"]].append(own)
    truth["images"] = [image for image in truth["images"] if learnable(image, objects[image["id"]])][:PICTURES]
    truth["annotations"] = [own for image in truth["images"] for own in objects[image["id"]]]
    for part in ("train2017", "val2017"):
        (tmp_path / "eight" / part).mkdir(parents=True)
        (tmp_path / "eight" / "annotations").mkdir(exist_ok=True)
        (tmp_path / "eight" / "annotations" / f"instances_{part}.json").write_text(json.dumps(truth))
        for image in truth["images"]:
            shutil.copy(root / "train2017" / image["file_name"], tmp_path / "eight" / part)
    return tmp_path / "eight"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_detector_learns_eight_photographs_by_heart(deepres, eight, tmp_path):
    settings = [word for setting in (*RECIPE, *LENGTH) for word in ("--set", setting)]
    result = deepres(
        *("train", "detector", "--data", eight, "--backbone", "resnet18", "--iterations", 500, "--lr", 0.02),
        *("--bn-average", 16, *settings, "--run", "run", "--json"),
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["map50"] >= 95
