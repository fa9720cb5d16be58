"""What a detector meets that it was not made for: odd values, no regions, changed data, weights of another kind."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from box_scenes import arguments, write_scenes
from deepres.acceleration.on_kernels import accelerate
from deepres.detection.recipe import DetectionConfig, DetectionRecipe
from deepres.kernels.library import UnavailableError, library
from deepres.runtime.errors import InputError
from deepres.training.settings import merge
from deepres.workflows.configure import configure
from runs import last_weights
from small_detectors import small

NAMES = {field.name for kind in (DetectionConfig, DetectionRecipe) for field in dataclasses.fields(kind)}
VALUES = ("", "0", "-1", "nan", "9" * 20, "none", "1,text")


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
    assert all(value.isfinite().all() for value in net.state_dict().values())


FROZEN = "conv1,conv2_x,conv3_x,conv4_x"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--set", "side=large"), "side is 'large', but must be int"),
        (("--set", "recipe=fast"), "unknown field 'recipe'"),
        (("--set", "warmup=error", "--set", "warmup_iterations=0"), "a detector has no training error"),
        (("--test-set", "none"), "a run is tested as it is trained"),
        (("--set", f"freeze={FROZEN},rpn", "--set", "part=rpn"), "nothing is left to train"),
        (("--set", f"freeze={FROZEN},score,box", "--set", "part=regions"), "nothing is left to train"),
        (("--set", "rpn=gone"), "there is no weights file gone"),
    ],
)
def test_settings_that_train_nothing_are_refused_before_a_run_begins(refused, scenes, tmp_path, more, said):
    assert said in refused(*arguments(scenes, "run", *more))
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_data_without_a_box_that_is_trained_on_are_refused(refused, tmp_path):
    root = write_scenes(tmp_path / "scenes", 4, 3)
    for file in (root / "Annotations").glob("0[0-3].xml"):
        file.write_text(file.read_text().replace("<bndbox>", "<difficult>1</difficult><bndbox>"))
    assert "give --set keep_difficult=true" in refused(*arguments(root, "run"))


def test_pictures_into_which_no_anchor_fits_are_told(deepres, scenes):
    small, large = (
        deepres(*arguments(scenes, scales, "--iterations", 1, "--set", f"anchor_scales={scales}"))
        for scales in ("2", "16")
    )
    told = "all anchors are larger than 6 of the 6 training pictures"
    assert (told in large.stderr, told in small.stderr) == (True, False)
    assert small.returncode == large.returncode == 0


def test_four_steps_do_not_go_into_the_folder_of_another_run(deepres, refused, scenes):
    assert deepres(*arguments(scenes, "run", "--iterations", 1)).returncode == 0
    assert "holds a run of its own" in refused("train", "--run", "run", "--alternating")
    # Training further goes on with the recipe's own proposals, and with the plan of the detector.
    finetuned = deepres("finetune", "run", "--data", scenes, "--run", "further", "--iterations", 1)
    assert finetuned.returncode == 0, finetuned.stderr
    config = json.loads(Path("further/config.json").read_text())
    assert (config["side"], config["proposals"], config["threshold"]) == (48, 300, 0.05)
    assert (config["recipe"]["proposals"], config["recipe"]["threshold"]) == (2000, 0.1)


def test_kept_proposals_that_are_damaged_are_made_anew(deepres, scenes, tmp_path):
    assert deepres(*arguments(scenes, "rpn", "--iterations", 1)).returncode == 0
    regions = ("--iterations", 2, "--set", "part=regions", "--set", "rpn=rpn", "--set", "recipe.proposals=20")
    assert deepres(*arguments(scenes, "whole", *regions)).returncode == 0
    (file,) = (tmp_path / "rpn").glob("proposals-*")
    kept, content = load_file(file), file.read_bytes()
    damaged = [kept | {"boxes": kept["boxes"] / 0}, kept | {"ends": kept["ends"] * torch.tensor([-1, 1, 1, 1, 1, 1])}]
    for number, tensors in enumerate(damaged):
        save_file(tensors, file)
        assert deepres(*arguments(scenes, f"again{number}", *regions)).returncode == 0
        assert file.read_bytes() == content
        assert last_weights(tmp_path / f"again{number}").read_bytes() == last_weights(tmp_path / "whole").read_bytes()
