"""The networks that the paper compares with: what they cost, start values, training."""

import json
import os
import signal

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from deepres.analysis.cost import stages
from deepres.bench.contestants import ready
from deepres.bench.job import Job
from deepres.classification.loss import classification_loss
from deepres.findings import describe
from deepres.models import catalog
from deepres.models.catalog import build
from deepres.records import Run
from deepres.runtime.errors import InputError
from deepres.training.loop import StoppedError, train
from deepres.training.recipe import Recipe
from deepres.weights import checkpoint
from networks import made, on_meta, rival_of_torchvision
from tasks import GivenTask

# parameters, multiply-adds, activations at 224x224
COSTS = {
    "alexnet": (61_100_840, 714_188_480, 494_184),
    "vgg16": (138_357_544, 15_470_264_320, 13_556_712),
    "vgg16-bn": (138_365_992, 15_470_264_320, 13_556_712),
    "vgg19": (143_667_240, 19_632_062_464, 14_861_288),
    "vgg19-bn": (143_678_248, 19_632_062_464, 14_861_288),
    "googlenet": (6_624_904, 1_498_376_192, 3_227_160),
    "prelu-net": (178_032_072, 19_058_106_368, 7_736_296),
    "plain34": (21_623_848, 3_644_493_824, 3_563_496),
    "resnet50": (25_557_032, 3_857_973_248, 10_588_136),
}
THEIRS = ("alexnet", "vgg16", "vgg16-bn", "vgg19", "vgg19-bn", "googlenet")


# --- cost ---


@pytest.mark.parametrize("name", COSTS)
def test_costs_are_exactly_the_known_numbers(name):
    total = stages(on_meta(name), 224)[-1]
    assert (total.parameters, total.multiply_adds, total.activations) == COSTS[name]


@pytest.mark.parametrize("name", THEIRS)
def test_parameters_are_those_that_torchvision_publishes(name):
    weights = torchvision.models.get_model_weights(name.replace("-", "_")).DEFAULT
    assert stages(on_meta(name), 224)[-1].parameters == weights.meta["num_params"]


@pytest.mark.parametrize("name", ["alexnet", "vgg16-bn", "googlenet", "prelu-net"])
def test_multiply_adds_are_half_the_flops_that_torch_counts(name):
    net = on_meta(name).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.zeros(1, 3, 96, 96, device="meta"))
    assert stages(net, 96)[-1].multiply_adds == counter.get_total_flops() // 2


def test_the_figures_of_the_papers_text():
    """Sec. 3.3: 19.6e9 for VGG-19, 15.3e9 for VGG-16 (its convolutions), 18 % of VGG-19 for plain-34."""
    vgg16, vgg19 = stages(on_meta("vgg16"), 224), stages(on_meta("vgg19"), 224)
    convolutions = sum(row.multiply_adds for row in vgg16 if row.name.startswith("conv"))
    assert f"{convolutions / 1e9:.2f}" == "15.35"
    assert f"{vgg19[-1].multiply_adds / 1e9:.1f}" == "19.6"
    assert int(100 * COSTS["plain34"][1] / vgg19[-1].multiply_adds) == 18


def test_stages_are_the_rows_of_the_networks_tables():
    columns = [(row.name, row.output_size, row.weighted_layers) for row in stages(on_meta("vgg16"), 224)]
    assert columns == [
        ("conv1", "224x224", 2),
        ("conv2", "112x112", 2),
        ("conv3", "56x56", 3),
        ("conv4", "28x28", 3),
        ("conv5", "14x14", 3),
        *((name, "1x1", 1) for name in ("fc6", "fc7", "fc8")),
        ("total", "", 16),
    ]
    assert [row.output_size for row in stages(on_meta("alexnet"), 224)][:5] == ["55x55", "27x27", *3 * ["13x13"]]
    prelu = [(row.name, row.output_size, row.weighted_layers) for row in stages(on_meta("prelu-net"), 224)]
    assert prelu[:4] == [
        ("conv1", "112x112", 1),
        ("conv2_x", "56x56", 5),
        ("conv3_x", "28x28", 5),
        ("conv4_x", "14x14", 5),
    ]


def test_googlenets_auxiliary_classifiers_are_not_counted():
    """22 layers, as in its paper; what works in training alone costs nothing in a test."""
    net = on_meta("googlenet")
    rows = stages(net, 224)
    assert not any(row.name.startswith("aux") for row in rows)
    assert rows[-1].weighted_layers == 22
    assert sum(p.numel() for p in net.parameters()) == 13_004_888


def test_info_compares_all_networks_as_table_and_json(deepres):
    tables = json.loads(deepres("info", "--compare", "--json").stdout)
    rows = {row["network"]: row for table in tables for row in table["rows"]}
    assert rows.keys() == set(catalog.names())
    for name, costs in COSTS.items():
        assert tuple(rows[name][column] for column in ("parameters", "multiply-adds", "activations")) == costs
    assert rows["vgg16"]["paper"] == 15.3
    text = deepres("info", "--compare").stdout
    assert "19,632,062,464" in text
    assert "18.6 % of VGG-19" in text


def test_info_of_a_rival_prints_its_stages(deepres):
    result = deepres("info", "vgg16")
    assert "VGG-16" in result.stdout
    assert "102,764,544" in result.stdout
    assert describe("vgg19-bn")[:2] == ("VGG-19 bn", 19)
    depths = {"alexnet": 8, "vgg16": 16, "vgg16-bn": 16, "vgg19": 19, "vgg19-bn": 19, "googlenet": 22, "prelu-net": 19}
    assert {name: describe(name)[1] for name in depths} == depths


# --- start values ---


def test_start_values_are_torchvisions():
    """The same from the same seed, and of the same deviation where the images have another number of channels."""
    for name in ("alexnet", "googlenet"):
        torch.manual_seed(1)
        expected = rival_of_torchvision(name, 5).state_dict()
        torch.manual_seed(1)
        assert all(torch.equal(value, expected[key]) for key, value in build(name, 5).state_dict().items())
    assert build("googlenet", 5, 1).conv1.conv.weight.std().item() == pytest.approx(0.01, rel=0.05)
    vgg = catalog.build("vgg16", 5, 1)
    assert vgg.features[0].weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.1)
    assert not vgg.features[0].bias.any()


def test_start_values_of_prelu_net_keep_the_size_of_what_goes_through():
    """Weights by the slope of 1/4, which every channel starts with; biases 0."""
    net = made("prelu-net")
    weight = net.conv3_x[1].conv.weight
    assert weight.std().item() == pytest.approx((2 / ((1 + 0.25**2) * weight[0].numel())) ** 0.5, rel=0.01)
    slopes = [module.weight for module in net.modules() if isinstance(module, nn.PReLU)]
    assert [len(slope) for slope in slopes] == [96, *5 * [256], *10 * [512], 4096, 4096]
    assert all((slope == 0.25).all() for slope in slopes)
    with torch.no_grad():
        deviation = net.feature_map(torch.randn(2, 3, 64, 64)).pow(2).mean().sqrt()
    assert 0.2 < deviation < 5


# --- training ---


def test_auxiliary_scores_count_in_the_loss_with_their_weight():
    """Szegedy et al. 2015: 0.3; the scores are the network's own."""
    own, second, first = torch.randn(3, 4, 5)
    labels = torch.tensor([0, 1, 2, 4])
    scores, loss = classification_loss((own, second, first), labels)
    assert scores is own
    expected = F.cross_entropy(own, labels) + 0.3 * (F.cross_entropy(second, labels) + F.cross_entropy(first, labels))
    assert loss.item() == pytest.approx(expected.item())
    assert classification_loss(own, labels, 0.1)[1] == F.cross_entropy(own, labels, label_smoothing=0.1)


@pytest.mark.parametrize(("name", "size"), [("alexnet", 64), ("googlenet", 32), ("prelu-net", 24), ("vgg16-bn", 32)])
def test_a_step_trains_all_of_a_rival(name, size):
    """Every parameter has a gradient, those of auxiliary classifiers as well; only shapes are run."""
    with torch.device("meta"):
        net = build(name, 4, 1).train().to(memory_format=torch.channels_last)
        images = torch.rand(3, 1, size, size).contiguous(memory_format=torch.channels_last)
        scores, loss = classification_loss(net(images), torch.empty(3, dtype=torch.int64))
        loss.backward()
    assert scores.shape == (3, 4)
    assert all(p.grad is not None for p in net.parameters())


class Stopping:
    """A monitor that sends this process a signal after step `at`."""

    def __init__(self, at: int | None = None):
        self.at = at

    def step(self, iteration, row):
        if iteration == self.at:
            os.kill(os.getpid(), signal.SIGINT)

    def say(self, message):
        pass


def test_dropout_goes_on_with_the_same_draws_after_a_stop(tmp_path):
    """GoogLeNet under the loop ends with the same bits, interrupted or not."""
    recipe = Recipe(iterations=3, batch_size=4, lr=0.01, milestones=(), window=1, evaluate_every=3)

    def batch_at(step):
        images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(step))
        return images, torch.tensor([0, 1, 2, 0])

    def run(place, at=None):
        torch.manual_seed(0)
        net = build("googlenet", 3)
        train(net, recipe, GivenTask(batch_at), Run(place), Stopping(at))
        return net.state_dict()

    expected = run(tmp_path / "undisturbed")
    with pytest.raises(StoppedError):
        run(tmp_path / "stopped", at=1)
    assert checkpoint.load_latest(tmp_path / "stopped" / "checkpoints", print) is not None
    assert all(torch.equal(value, expected[key]) for key, value in run(tmp_path / "stopped").items())
    losses = Run(tmp_path / "stopped").curve("train_loss")
    assert losses == Run(tmp_path / "undisturbed").curve("train_loss")
    assert losses[1][0] > 1.5 * torch.tensor(3.0).log()  # its own loss and 0.6 of the auxiliary ones


@pytest.mark.parametrize("name", ["ours", "textbook"])
def test_the_bench_trains_a_net_with_auxiliary_classifiers(name):
    assert ready(name, Job("train", "googlenet", 2)).turn() == 2


@pytest.mark.long
def test_the_command_line_trains_and_tests_a_rival(deepres, folder):
    run = ("--data", folder, "--iterations", 1, "--batch-size", 4, "--lr", 0.001, "--run", "run")
    result = deepres("train", "googlenet", *run)
    assert result.returncode == 0, result.stderr
    assert "googlenet after 1 iterations" in result.stdout
    report = json.loads(deepres("eval", "run", "--json").stdout)
    assert report["images"] == 18


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("alexnet", "--recipe", "cifar"), "alexnet takes images of 63 pixels a side or more, not of 32x32"),
        (("googlenet", "--compile", "on"), "googlenet has no blocks to compile"),
        (("googlenet", "--memory-budget", "1"), "googlenet has no blocks that could run twice"),
        (("vgg17",), "did you mean vgg1"),
    ],
)
def test_what_a_rival_cannot_do_is_refused(refused, folder, arguments, words):
    """In one sentence."""
    assert words in refused("train", *arguments, "--data", folder, "--iterations", 1, "--batch-size", 4)


def test_images_that_are_too_small_are_refused_before_a_run_begins(refused, folder, tmp_path):
    refused("train", "alexnet", "--recipe", "cifar", "--data", folder, "--iterations", 1, "--run", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_rival_has_no_residual_layers_to_choose():
    with pytest.raises(InputError, match="residual_layers cannot be chosen for vgg16"):
        build("vgg16", residual_layers=1)
