"""What a detector meets that it was not made for: odd values, no regions, changed data, weights of another kind."""

import dataclasses

import pytest
import torch

from box_scenes import write_scenes
from deepres.acceleration.on_kernels import accelerate
from deepres.detection.recipe import DetectionConfig, DetectionRecipe
from deepres.kernels.library import UnavailableError, library
from deepres.runtime.errors import InputError
from deepres.training.settings import merge
from deepres.workflows.configure import configure
from small_detectors import small

NAMES = {field.name for kind in (DetectionConfig, DetectionRecipe) for field in dataclasses.fields(kind)}
VALUES = ("", "0", "-1", "0.5", "nan", "1e400", "9" * 20, "none", ",", "1,nan", "text")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"), 6, 3)


@pytest.mark.parametrize("name", sorted(NAMES - {"network", "data"}))
def test_any_value_of_any_field_is_taken_or_refused_in_one_sentence(scenes, name):
    given = {"network": "detector", "backbone": "resnet8", "data": str(scenes)}
    for value in VALUES:
        try:
            configure([], None, given | {name: value})
        except InputError as error:
            assert "\n" not in str(error) and len(str(error)) < 2_000


def test_a_field_that_recipe_and_configuration_have_is_the_configuration_s_unless_recipe_is_said():
    """Without it, neither the threshold of a detector nor the proposals of its test could be set."""
    made = merge({}, {"proposals": "20", "threshold": "0.3", "recipe.proposals": "50"}, DetectionConfig)
    assert (made["proposals"], made["threshold"], made["recipe"]) == ("20", "0.3", {"proposals": "50"})
    for name in ("recipe", "recipe.lr", "recipe."):
        with pytest.raises(InputError, match="unknown field"):
            merge({}, {name: "1"}, DetectionConfig)


def test_no_regions_at_all_pass_the_kernels():
    """A network that has diverged, or a tiny picture, has no proposals."""
    try:
        library()
    except UnavailableError:
        pytest.skip("the kernels cannot be compiled here")
    net = small("faster-rcnn-resnet8", smallest=500.0)
    accelerate(net)
    found = net.eval().detect([torch.zeros(3, 40, 50, dtype=torch.uint8)])
    assert not len(found[0])
    shared = net.train().shared(torch.rand(2, 3, 96, 96))
    none = net.region_outputs(shared, [torch.zeros(0, 4)] * 2, [(96, 96)] * 2)
    (none.logits.sum() + none.deltas.sum() + shared.mean()).backward()
    assert none.logits.shape == (0, 4)
