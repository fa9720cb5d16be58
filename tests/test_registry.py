"""A network is added in one place: a row of the table."""

import json

import pytest
import torch
from torch import nn

import deepres as package
from deepres.findings import describe
from deepres.models import catalog
from deepres.models.blocks import ConvBN
from deepres.models.init import he_initialise
from deepres.models.registry import NETWORKS, Entry
from deepres.models.staged import StagedNetwork
from deepres.runtime.errors import InputError
from deepres.weights.identify import identify


class Toy(StagedNetwork):
    """Two convolutions and fc."""

    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.conv1 = ConvBN(in_channels, 4, 3)
        self.conv2_x = nn.Sequential(ConvBN(4, 8, 3, 2), nn.ReLU())
        self.fc = nn.Linear(8, num_classes)
        he_initialise(self)


@pytest.fixture
def toy(monkeypatch):
    """The table with one row more."""
    monkeypatch.setitem(NETWORKS, "toynet", Entry(3, "ToyNet", Toy, family="cifar"))


def test_a_maker_that_gives_no_network_of_ours_is_named_to_the_developer(monkeypatch):
    """Before anything misses `backbone` or `stages` in it."""
    odd = Entry(2, "Odd", lambda classes, channels: nn.Linear(channels, classes))  # pyright: ignore[reportArgumentType]
    monkeypatch.setitem(NETWORKS, "oddnet", odd)
    with pytest.raises(TypeError, match=r"NETWORKS\['oddnet'\] gives a Linear, which is no Network"):
        catalog.build("oddnet")


@pytest.mark.usefixtures("toy")
def test_a_row_of_the_table_is_a_network_everywhere(deepres, folder, tmp_path):
    """It builds, is listed, trains, is reported, and its weights are found again, with and without a header."""
    assert catalog.build("toynet").maps(torch.zeros(1, 3, 32, 32)).keys() == {"conv1", "conv2_x"}
    assert describe("toynet") == ("ToyNet", 3, "plain")
    with pytest.raises(InputError, match=r"did you mean toynet\?"):
        catalog.entry("toynte")
    (stages,), compared = (json.loads(deepres("info", what, "--json").stdout) for what in ("toynet", "--compare"))
    assert stages["title"] == "ToyNet" and [row["stage"] for row in stages["rows"]][:-1] == ["conv1", "conv2_x", "fc"]
    assert ("toynet", 3) in [(row["network"], row["layers"]) for row in compared[1]["rows"]]

    result = deepres("train", "toynet", "--data", folder, "--iterations", 3, "--batch-size", 8, "--run", "run")
    assert result.returncode == 0 and "toynet after 3 iterations" in result.stdout, result.stderr
    assert json.loads(deepres("eval", "run", "--json").stdout)["images"] == 18
    assert deepres("report", "run").returncode == 0
    assert "ToyNet" in (tmp_path / "run" / "report.html").read_text()

    assert deepres("convert", "run", "--to", "net.safetensors").returncode == 0
    ours, images = package.load(tmp_path / "run"), torch.rand(2, 3, 32, 32)
    assert identify(ours.state_dict()) == "toynet"
    torch.save(ours.state_dict(), tmp_path / "bare.pth")
    for file in ("net.safetensors", "bare.pth"):
        again = package.load(tmp_path / file)
        assert (again.name, type(again)) == ("toynet", Toy)
        assert torch.equal(again(images), ours(images))


def test_what_a_row_says_of_batch_normalization_counts(toy, refused, folder, monkeypatch):
    """Without it, muon has no place."""
    monkeypatch.setitem(NETWORKS, "toynet", Entry(3, "ToyNet", Toy, family="cifar", has_bn=False))
    message = refused("train", "toynet", "--data", folder, "--recipe", "fast", "--run", "run")
    assert "muon keeps the lengths of kernels, which toynet learns" in message
