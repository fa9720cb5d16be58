"""Batches of which batch normalization would see one value a channel: one sentence, before anything is written."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from deepres import build
from deepres.training.batchnorm import smallest_map
from deepres.weights.file import serialise


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Folders of pictures of 1, 4, 5 and 32 pixels a side, six to train on."""
    root, random = tmp_path_factory.mktemp("tiny"), np.random.default_rng(0)
    for size in (1, 4, 5, 32):
        for part in ("train", "test"):
            for name in "ab":
                (root / str(size) / part / name).mkdir(parents=True)
                for number in range(3):
                    pixels = random.integers(0, 256, (size, size, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(root / str(size) / part / name / f"{number}.png")
    return root


def training(tiny, network, size, batch, *more):
    how = ("--iterations", 1, "--batch-size", batch, "--image-size", size, "--run", "run", "--lr", 1e-3)
    return ("train", network, "--data", tiny / str(size), *how, *more)


@pytest.mark.parametrize(
    ("network", "size", "batch", "more"),
    [
        ("resnet8", 1, 1, ()),
        ("resnet8", 4, 1, ()),
        ("highway19", 4, 1, ()),
        ("resnet18-32px", 5, 1, ()),
        ("resnet18", 32, 1, ()),
        ("resnet8", 4, 4, ("--bn-group", 3)),
        ("resnet8", 4, 4, ("--set", "accumulate=4")),
        ("resnet8", 4, 4, ("--set", "accumulate=2", "--set", "bn_average=4", "--bn-group", 3)),
    ],
)
def test_one_value_a_channel_is_refused_before_anything_is_written(tmp_path, refused, tiny, network, size, batch, more):
    message = refused(*training(tiny, network, size, batch, *more))
    assert f"would see one image, whose last map has one value at {size}x{size} pixels" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("network", "size", "batch", "more"),
    [
        ("resnet8", 5, 1, ()),  # four positions
        ("resnet8", 1, 2, ()),
        ("resnet8", 5, 4, ("--bn-group", 3)),
    ],
)
def test_a_batch_of_one_trains_where_a_map_has_more_values(deepres, tiny, network, size, batch, more):
    result = deepres(*training(tiny, network, size, batch, *more))
    assert result.returncode == 0, result.stderr


def test_the_smallest_map_is_that_of_a_layer_in_training():
    known = {("resnet20", 32): 64, ("resnet50", 64): 4, ("resnet50", 32): 1, ("googlenet", 32): 1}
    with torch.device("meta"):
        for (name, size), positions in (known | {("prelu-net", 32): math.inf}).items():
            assert smallest_map(build(name, 2), torch.empty(2, 3, size, size)) == positions, name


def test_finetuning_is_refused_alike_but_where_the_last_stages_are_frozen(deepres, refused, tiny, tmp_path):
    torch.manual_seed(0)
    header = {"network": "resnet8", "classes": ["a", "b"]}
    content = serialise(build("resnet8", 2).state_dict(), torch.full((3, 1, 1), 0.5), header)
    (tmp_path / "net.safetensors").write_bytes(content)
    how = ("finetune", "net.safetensors", "--data", tiny / "4", "--iterations", 1, "--batch-size", 1, "--run", "run")
    assert "would see one image" in refused(*how)
    stages = ",".join(name for name in build("resnet8", 2).stages() if name.startswith("conv"))
    result = deepres(*how, "--freeze", stages)
    assert result.returncode == 0, result.stderr


def test_tests_and_predictions_take_one_tiny_picture(deepres, tiny):
    assert deepres(*training(tiny, "resnet8", 1, 2)).returncode == 0
    assert deepres("eval", "run", "--batch-size", 1).returncode == 0
    assert deepres("predict", "run", tiny / "1" / "test" / "a" / "0.png", "--batch-size", 1).returncode == 0
