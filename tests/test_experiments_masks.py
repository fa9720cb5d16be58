"""The sheet of masks: ours beside what the authors of Multi-task Network Cascades print."""

import json
from pathlib import Path

import pytest
import torch

from deepres.models.catalog import build
from deepres.paper.masks import MASKS, RESNET101, VGG
from deepres.paper.samples import drawn
from deepres.paper.sheet import Reproduction
from deepres.runtime.errors import InputError, silent
from deepres.weights.file import serialise


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return drawn("masks", tmp_path_factory.mktemp("data"))


def weights(network, file):
    """Trained weights, as it were, of a classifier."""
    torch.manual_seed(0)
    net = build(network, 4)
    net.mean = torch.full((3, 1, 1), 0.5)
    file.write_bytes(serialise(net.state_dict(), net.mean, net.header))
    return file


def asked(scale, root):
    return Reproduction(scale, "pictures", {}, root, None, None, silent, None)  # pyright: ignore[reportArgumentType]


@pytest.mark.long
def test_the_sheet_has_masks_of_ours_beside_those_of_mnc(deepres, pictures):
    command = ("reproduce", "masks", "--scale", "smoke", "--data", pictures, "--networks", "resnet8", "--json")
    first = deepres(*command)
    assert first.returncode == 0, first.stderr
    table, runs = json.loads(first.stdout)["tables"]
    rows = {row["detector"]: row for row in table["rows"]}
    assert list(rows) == ["ResNet-8", "VGG-16", "ResNet-101"]
    assert [rows["VGG-16"][f"MNC: {name}"] for name in ("VOC 2012 mAP^r@.5", "mAP^r@.7")] == ["63.5", "41.5"]
    assert rows["ResNet-101"]["MNC: COCO test-dev mAP"] == "24.6"
    assert "The ResNet paper prints no table of masks" in Path(json.loads(first.stdout)["page"]).read_text()
    for name in ("mAP^r@.5", "mAP^r@.7", "mask mAP@[.5,.95]"):
        assert 0 <= float(rows["ResNet-8"][name].split()[0]) <= 100 and rows["VGG-16"][name] is None
    assert [row["run"] for row in runs["rows"]] == ["mnc-resnet8-seed0"]
    # The same again trains and tests nothing.
    again = deepres(*command)
    assert again.returncode == 0 and json.loads(again.stdout) == json.loads(first.stdout)
    assert "kept from an earlier test" in again.stderr


def test_the_papers_scale_has_the_recipe_of_mnc_and_starts_from_trained_weights(pictures, tmp_path):
    names = [str(weights(network, tmp_path / f"{network}.safetensors")) for network in ("vgg16", "resnet101")]
    plan = MASKS.plan("paper", str(pictures), tmp_path, ",".join(names), 1)
    assert plan.networks == (VGG, RESNET101)
    config = MASKS.config(plan, RESNET101, 0, asked("paper", tmp_path))
    assert (config.task, config.network, config.recipe.name) == ("segmentation", RESNET101, "mnc")
    assert (config.recipe.iterations, config.stages, config.train_set, config.test_set) == (25_000, 5, "train", "val")
    assert config.start == names[1]
    with pytest.raises(InputError, match="starts from weights that were trained on ImageNet; give those of vgg16"):
        MASKS.reproduce(Reproduction("paper", str(pictures), {}, tmp_path, None, None, silent, None))
