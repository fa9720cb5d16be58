"""The recipe, its schedule, the paper's SGD, and batch statistics over groups."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from deepres.classification.recipe import (
    CIFAR,
    CIFAR_DEEP,
    FAST,
    FINETUNE,
    IMAGENET,
    paper_recipe,
    rate_for,
)
from deepres.classification.recipe import ClassificationRecipe as Recipe
from deepres.runtime.device import resolve_device, resolve_precision
from deepres.runtime.errors import InputError
from deepres.training.batchnorm import group_batch_norm
from deepres.training.optimizer import SGD
from deepres.training.schedule import rate
from deepres.workflows.configure import slug
from tasks import from_json, merge


def test_the_cifar_recipe_is_the_papers():
    """Sec. 4.2: rate 0.1, divided by 10 at 32k and 48k, 64k iterations of 128, momentum 0.9, decay 1e-4."""
    assert [rate(CIFAR, i) for i in (0, 31_999, 32_000, 47_999, 48_000)] == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001])
    assert (CIFAR.iterations, CIFAR.batch_size, CIFAR.momentum, CIFAR.weight_decay) == (64_000, 128, 0.9, 1e-4)


def test_the_warm_up_by_error_begins_at_110_layers():
    assert paper_recipe(56).warmup == "none"
    assert paper_recipe(110) == CIFAR_DEEP
    assert rate(CIFAR_DEEP, 5_000, warm=False) == 0.01
    assert rate(CIFAR_DEEP, 5_000, warm=True) == 0.1


def test_a_warm_up_that_never_ends_still_drops_with_the_schedule():
    assert rate(CIFAR_DEEP, 50_000, warm=False) == pytest.approx(0.001)


def test_a_linear_warm_up_rises_to_the_rate():
    recipe = dataclasses.replace(CIFAR, warmup="linear", warmup_iterations=10)
    assert [rate(recipe, i) for i in (0, 4, 9, 10)] == pytest.approx([0.01, 0.05, 0.1, 0.1])


def test_a_linear_decay_falls_from_the_end_of_the_warm_up_to_nothing():
    recipe = dataclasses.replace(CIFAR, iterations=10, decay="linear", milestones=())
    assert [rate(recipe, i) for i in (0, 5, 9)] == pytest.approx([0.1, 0.05, 0.01])
    warmed = dataclasses.replace(recipe, warmup="linear", warmup_iterations=5)
    assert [rate(warmed, i) for i in (0, 4, 5, 9)] == pytest.approx([0.02, 0.1, 0.1, 0.02])
    assert all(rate(FAST.scaled(length), i) > 0 for length in (1, 2, 7) for i in range(length))


def test_the_fast_recipe_is_nobodys_default_and_is_called_so():
    assert all(paper_recipe(depth).name.startswith("cifar") for depth in (8, 20, 110, 1202))
    assert FAST.name == "fast"
    assert FAST.iterations <= CIFAR.iterations / 6


def test_nesterov_is_pytorchs_at_a_constant_rate():
    weights = [nn.Parameter(torch.tensor([1.0, -2.0])) for _ in range(2)]
    ours = SGD(weights[:1], 0.9, 0.01, nesterov=True)
    theirs = torch.optim.SGD(weights[1:], 0.1, momentum=0.9, weight_decay=0.01, nesterov=True)
    for _ in range(5):
        for weight in weights:
            weight.square().sum().backward()
        ours.step_at(0.1)
        theirs.step()
        theirs.zero_grad()
    assert torch.allclose(*weights)


def test_another_length_scales_all_marks_in_proportion():
    short = CIFAR.scaled(8_000)
    assert (short.iterations, short.milestones, short.evaluate_every) == (8_000, (4_000, 6_000), 250)
    assert CIFAR.scaled(64_000) == CIFAR
    assert short.scaled(64_000).milestones == CIFAR.milestones


def test_the_same_length_again_leaves_marks_set_by_hand_alone():
    """Or the same command would be refused by the run that it began."""
    base = {"network": "resnet20", "data": "x"}
    for every in (50, 2_000_000):
        changes = {"iterations": 4_000, "evaluate_every": every}
        assert (once := merge(base, changes)) == merge(once, changes)


def test_changed_iterations_scale_the_recipe_and_given_milestones_are_kept():
    base = {"network": "resnet20", "data": "x"}
    config = from_json(merge(base, {"iterations": 640}), "test")
    assert config.recipe.milestones == (320, 480)
    config = from_json(merge(base, {"iterations": "640", "milestones": "10,20", "lr": "0.3"}), "test")
    assert (config.recipe.milestones, config.recipe.lr) == ((10, 20), 0.3)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch_size", 0),
        ("lr", -0.1),
        ("lr", float("nan")),
        ("iterations", 0),
        ("momentum", 1.0),
        ("milestones", (20, 10)),
        ("bn_group", 1),
        ("warmup", "slowly"),
        ("warmup_iterations", 500),
        ("decay", "cosine"),
        ("label_smoothing", 1.0),
        ("colour", 0.1),
        ("sides", (40, 50)),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused_with_its_field(field, value):
    with pytest.raises(InputError, match=field):
        Recipe(**{field: value})


def test_a_linear_warm_up_needs_its_length():
    with pytest.raises(InputError, match="warmup_iterations is 0"):
        Recipe(warmup="linear")


def test_what_is_not_among_the_choices_is_told_with_the_choices():
    with pytest.raises(InputError, match="optimizer is 'adam', but must be one of sgd, muon"):
        from_json({"network": "resnet20", "data": "x", "recipe": {"optimizer": "adam"}}, "file")


def test_drops_at_epochs_become_iterations_of_the_data():
    base = {"network": "resnet18", "data": "x", "recipe": dataclasses.asdict(IMAGENET)}
    recipe = from_json(merge(base, {"epochs": "30,60", "iterations": "10000", "batch_size": "100"}), "test").recipe
    assert (recipe.decay, recipe.epochs, recipe.bn_average) == ("steps", (30, 60), 1667)
    assert from_json(merge(base, {"iterations": 20, "batch_size": 16}), "test").recipe.bn_average == 160
    found = recipe.in_iterations(images=1234)
    assert (found.milestones, found.epochs) == ((370, 740), ())
    assert found.in_iterations(images=1) == found
    with pytest.raises(InputError, match=r"milestones is \[4680, 9360\], but must be within the 9000 iterations"):
        dataclasses.replace(recipe, iterations=9000).in_iterations(images=15_600)
    with pytest.raises(InputError, match="epochs"):
        dataclasses.replace(found, epochs=(1,))


def test_an_unknown_field_suggests_the_nearest():
    with pytest.raises(InputError, match="weight_decay"):
        from_json({"network": "resnet20", "data": "x", "recipe": {"wieght_decay": 1}}, "file")


def test_a_field_of_another_type_is_named():
    with pytest.raises(InputError, match=r"seed is 'many'.*int"):
        from_json({"network": "resnet20", "data": "x", "seed": "many"}, "file")


def test_a_recorded_configuration_comes_back_whole():
    config = from_json({"network": "resnet20", "data": "x", "recipe": {"milestones": [1, 2], "bn_group": 64}}, "file")
    assert from_json(config.as_json(), "record") == config


def test_sgd_follows_the_form_of_the_paper_through_a_change_of_rate():
    """v = m * v + lr * (g + decay * w), w = w - v, over three rates."""
    torch.manual_seed(0)
    parameter = nn.Parameter(torch.randn(5, dtype=torch.float64))
    w, v = parameter.detach().clone(), torch.zeros(5, dtype=torch.float64)
    optimizer = SGD([parameter], momentum=0.9, weight_decay=0.01)
    for lr in (0.1, 0.1, 0.01, 0.01, 0.5, 0.05):
        g = torch.randn(5, dtype=torch.float64)
        parameter.grad = g.clone()
        optimizer.step_at(lr)
        v = 0.9 * v + lr * (g + 0.01 * w)
        w = w - v
        torch.testing.assert_close(parameter.detach(), w)
    assert parameter.grad is None


def test_groups_are_normalized_by_their_own_statistics():
    torch.manual_seed(0)
    net, x = nn.BatchNorm2d(3), torch.randn(8, 3, 4, 4)
    apart = torch.cat([nn.BatchNorm2d(3)(half) for half in x.split(4)])
    group_batch_norm(net, 4)
    torch.testing.assert_close(net(x), apart)


def test_groups_together_move_the_running_statistics_as_far_as_one_batch():
    """On a batch of two equal halves the running mean is that of ordinary batch normalization."""
    torch.manual_seed(0)
    half = torch.randn(4, 3, 4, 4)
    whole, grouped = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    group_batch_norm(grouped, 4)
    for _ in range(3):
        whole(half)
        grouped(torch.cat([half, half]))
    torch.testing.assert_close(grouped.running_mean, whole.running_mean)
    torch.testing.assert_close(grouped.running_var, whole.running_var)


def test_group_0_leaves_the_network_alone():
    net = nn.Sequential(nn.BatchNorm2d(3))
    group_batch_norm(net, 0)
    assert type(net[0]) is nn.BatchNorm2d


def test_unknown_devices_and_precisions_are_refused():
    with pytest.raises(InputError, match="tpu"):
        resolve_device("tpu")
    with pytest.raises(InputError, match="fp8"):
        resolve_precision("fp8", "cpu")


@pytest.mark.parametrize("features", [{"amx_bf16": True}, {"avx512_bf16": True}, {"avx2": True}])
def test_auto_precision_is_bf16_only_where_the_processor_multiplies_it(monkeypatch, features):
    monkeypatch.delenv("DEEPRES_BF16", raising=False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)
    assert resolve_precision("auto", "cpu") == ("fp32" if "avx2" in features else "bf16")


def test_networks_without_batch_normalization_go_at_a_tenth_of_the_rate():
    assert rate_for("vgg16", IMAGENET).lr == pytest.approx(0.01)
    assert rate_for("vgg16", FINETUNE).lr == pytest.approx(0.001)
    assert rate_for("resnet18", FINETUNE) == FINETUNE
    assert rate_for("vgg16", CIFAR) == CIFAR


@pytest.mark.parametrize(
    ("data", "name"),
    [("hf:me/my-set", "my-set"), ("wds:/d/train-{000..146}.tar", "train--000..146-.tar"), ("a/b c/", "b-c")],
)
def test_a_folder_is_named_after_the_data(data, name):
    assert slug(data) == name
    assert slug(".") == slug(str(Path.cwd()))
