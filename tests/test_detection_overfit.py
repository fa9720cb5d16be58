"""A detector learns a few photographs by heart: what no fault in targets, losses or decoding leaves possible."""

import json
import shutil

import pytest

PICTURES = 8
RECIPE = ("flip=false", "colour=0", "sides=", "side=320", "longest=512", "smallest=0", "weight_decay=1e-4")
MARKS = ("window=100", "evaluate_every=500")


@pytest.fixture
def eight(real_data, tmp_path):
    """The first photographs of COCO, which are trained on and tested on."""
    root = real_data / "coco128"
    truth = json.loads((root / "annotations" / "instances_train2017.json").read_text())
    truth["images"] = truth["images"][:PICTURES]
    kept = {image["id"] for image in truth["images"]}
    truth["annotations"] = [own for own in truth["annotations"] if own["image_id"] in kept]
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
    settings = [word for setting in (*RECIPE, *MARKS) for word in ("--set", setting)]
    result = deepres(
        *("train", "detector", "--data", eight, "--backbone", "resnet18", "--iterations", 1000, "--bn-average", 16),
        *(*settings, "--run", "run", "--json"),
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["map50"] >= 95
