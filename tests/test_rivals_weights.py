"""Weights of the networks that the paper compares with: torchvision's, in and out."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.transforms.v2.functional import normalize

import deepres as library
from deepres.models.catalog import build
from deepres.models.registry import NETWORKS
from deepres.runtime.errors import InputError
from deepres.weights.start import take
from deepres.weights.state import ends, load_state
from networks import assert_same_scores, made, on_meta, rival_of_torchvision


@pytest.mark.parametrize("name", ["alexnet", "vgg16-bn", "googlenet"])
def test_outputs_equal_torchvisions_with_the_same_weights(name):
    """Under its own names, with random weights and BN statistics."""
    images = torch.randn(2, 3, 64, 64)
    with torch.device("meta"):
        source = rival_of_torchvision(name, 5).eval()
    with torch.no_grad():
        expected = torch.func.functional_call(source, made(name).state_dict(), images, strict=True)
        assert_same_scores(made(name)(images), expected)


def test_weights_of_torchvision_load_under_its_names():
    torch.manual_seed(0)
    source, net = rival_of_torchvision("googlenet", 5).eval(), build("googlenet", 5).eval()
    load_state(net, source.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(net(images), source(images))


def test_weights_without_auxiliary_classifiers_load():
    """torchvision's trained GoogLeNet has none; of another layer, none may lack."""
    state = {key: value for key, value in made("googlenet").state_dict().items() if not key.startswith("aux")}
    net = build("googlenet", 5)
    load_state(net, state)
    assert torch.equal(net.fc.weight, state["fc.weight"])
    del state["conv2.conv.weight"]
    with pytest.raises(InputError, match=r"not of googlenet: missing conv2\.conv\.weight$"):
        load_state(net, state)


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_tell_classes_and_channels(name):
    assert ends(on_meta(name, 7, 1).state_dict()) == (7, 1)


def test_weights_that_torchvision_saved_are_tested_by_the_command_line(deepres, folder, tmp_path):
    torch.manual_seed(0)
    torch.save(rival_of_torchvision("googlenet", 3).state_dict(), tmp_path / "their.pth")
    report = json.loads(
        deepres("eval", tmp_path / "their.pth", "--network", "googlenet", "--data", folder, "--json").stdout
    )
    assert report["images"] == 18
    assert report["network"] == "googlenet"


def test_torchvisions_weights_go_through_ours_and_back_to_the_last_bit(deepres, tmp_path):
    torch.manual_seed(0)
    state = rival_of_torchvision("googlenet", 3).state_dict()
    torch.save(state, tmp_path / "their.pth")
    deepres("convert", "their.pth", "--to", "ours.safetensors")
    result = deepres("convert", "ours.safetensors", "--to", "back.pth")
    assert (result.returncode, "warning" in result.stderr) == (0, False)
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], value) for key, value in state.items())


@pytest.mark.parametrize("name", ["googlenet", "alexnet"])
def test_torchvisions_weights_are_given_the_inputs_that_they_were_trained_on(name, tmp_path):
    """As `transform_input` does it in torchvision's GoogLeNet, whose own inputs are normalised as all others'."""
    torch.manual_seed(0)
    net = rival_of_torchvision(name, 1000).eval()
    for parameter in net.parameters():
        if (
            parameter.dim() > 1
        ):  # its own start values are so small that its scores hardly tell one picture from another
            nn.init.kaiming_normal_(parameter)
    torch.save(net.state_dict(), tmp_path / "their.pth")
    images = torch.rand(2, 3, 224, 224)
    ours = library.load(tmp_path / "their.pth")
    if name == "googlenet":
        net.transform_input = True
    with torch.no_grad():
        expected = net(normalize(images, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
        assert_same_scores(ours(images - ours.mean), expected)
    assert ours.header["classes"][0] == "tench"


def without_auxiliary(tmp_path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A file of torchvision's GoogLeNet as its trained weights are published, and what is in it."""
    state = {key: value for key, value in made("googlenet").state_dict().items() if not key.startswith("aux")}
    torch.save(state, tmp_path / "their.pth")
    return tmp_path / "their.pth", state


def test_a_googlenet_without_auxiliary_classifiers_goes_through_ours_and_back_as_it_is(deepres, tmp_path):
    file, state = without_auxiliary(tmp_path)
    for source, to in ((file, "ours.safetensors"), ("ours.safetensors", "back.pth")):
        assert deepres("convert", source, "--to", to).returncode == 0
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], value) for key, value in state.items())
    net = library.load(tmp_path / "ours.safetensors").train()
    assert net(torch.rand(2, 3, 32, 32)).shape == (2, 5)  # no scores of classifiers that it lacks


def test_auxiliary_classifiers_that_the_weights_lack_begin_with_start_values(tmp_path):
    """Where the classes are the same ones, too: of zeros, none would learn."""
    file, state = without_auxiliary(tmp_path)
    start = take(file, print)
    net = start.begin([str(label) for label in range(5)], 3)
    own, trained = net.state_dict(), start.net.state_dict()
    assert trained.keys() == state.keys()
    assert all(torch.equal(own[key], value) for key, value in trained.items())
    assert own["aux1.fc1.weight"].std().item() == pytest.approx(0.01, rel=0.2)
    assert (own["aux2.conv.bn.running_var"] == 1).all()
    assert len(net.train()(torch.rand(2, 3, 32, 32))) == 3


def test_half_an_auxiliary_classifier_is_refused(tmp_path):
    file, state = without_auxiliary(tmp_path)
    torch.save(state | {"aux1.fc2.bias": torch.zeros(5)}, file)
    with pytest.raises(InputError, match=r"missing aux1\.conv\.conv\.weight"):
        library.load(file)
