"""What trainings of others save: prefixes, nests, averaged weights and heads; and weights of which no mean is known."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

import deepres as package
from deepres.models.catalog import build
from networks import theirs

GIVE = "--mean 0.49,0.48,0.45 --std"


@pytest.fixture(scope="module")
def net():
    return theirs("resnet18")


def prefixed(state, prefix):
    return {prefix + key: value for key, value in state.items()}


def assert_is(place, net):
    loaded = package.load(place)
    assert loaded.name == "resnet18"
    assert torch.equal(loaded.fc.bias, net.fc.bias)


@pytest.mark.parametrize(
    "prefix", ["model.", "backbone.", "module.", "_orig_mod.", "encoder.", "module._orig_mod.backbone.", "student.net."]
)
def test_what_all_names_begin_with_is_taken_off(tmp_path, net, prefix):
    save_file(prefixed(net.state_dict(), prefix), tmp_path / "net.safetensors")
    assert_is(tmp_path / "net.safetensors", net)


@pytest.mark.parametrize(
    "nest", ["state_dict", "model_state_dict", "net", "model", "model_ema", "state_dict_ema", "anything"]
)
def test_the_state_dict_within_a_checkpoint_is_taken_and_named(deepres, tmp_path, net, nest):
    others = {"epoch": 3, "acc": np.float64(93.5), "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}}}
    torch.save({nest: prefixed(net.state_dict(), "module."), **others}, tmp_path / "net.pth")
    assert_is(tmp_path / "net.pth", net)
    assert f"{nest} is taken of net.pth" in deepres("convert", "net.pth", "--to", "out.safetensors").stderr


def test_a_state_dict_deeper_within_is_found(tmp_path, net):
    torch.save({"model": {"state_dict": net.state_dict(), "depth": 18}}, tmp_path / "net.pth")
    assert_is(tmp_path / "net.pth", net)


@pytest.mark.parametrize(("plain", "averaged"), [("model", "model_ema"), ("state_dict", "state_dict_ema")])
def test_of_several_the_averaged_weights_are_taken_and_another_can_be_named(deepres, tmp_path, net, plain, averaged):
    other = {key: torch.zeros_like(value) for key, value in net.state_dict().items()}
    torch.save({plain: other, averaged: net.state_dict()}, tmp_path / "net.pth")
    assert_is(tmp_path / "net.pth", net)
    said = deepres("convert", "net.pth", "--to", "out.safetensors").stderr
    assert f"{averaged} is taken of net.pth, which also holds {plain}" in said
    assert deepres("convert", "net.pth", "--take", plain, "--to", "plain.safetensors").returncode == 0
    assert not package.load(tmp_path / "plain.safetensors").fc.bias.any()


def test_several_that_may_all_be_meant_are_asked_about(refused, tmp_path, net):
    torch.save({"left": net.state_dict(), "right": net.state_dict()}, tmp_path / "net.pth")
    message = refused("convert", "net.pth", "--to", "out.safetensors")
    assert "holds left, right; say which with deepres convert --take NAME" in message
    message = refused("convert", "net.pth", "--take", "middle", "--to", "out.safetensors")
    assert "holds left, right and no middle" in message
    save_file(net.state_dict(), tmp_path / "one.safetensors")
    torch.save(net.state_dict(), tmp_path / "one.pth")
    for place in ("one.safetensors", "one.pth"):
        assert "leave --take" in refused("convert", place, "--take", "net", "--to", "out.safetensors")


def test_an_averaged_model_of_torch_is_read(tmp_path, net):
    averaged = AveragedModel(net)
    averaged.update_parameters(net)
    assert "n_averaged" in averaged.state_dict()
    torch.save({"model_ema": averaged.state_dict()}, tmp_path / "net.pth")
    assert_is(tmp_path / "net.pth", net)


def test_parts_that_work_in_training_alone_are_left_out_by_name(deepres, tmp_path, net):
    state = prefixed(net.state_dict(), "model.") | {"criterion.weight": torch.ones(7)}
    state |= prefixed(nn.Linear(512, 4).state_dict(), "model.rotation_head.") | {
        "model.projector.weight": torch.ones(1)
    }
    torch.save({"state_dict": state}, tmp_path / "net.pth")
    assert_is(tmp_path / "net.pth", net)
    said = deepres("convert", "net.pth", "--to", "out.safetensors").stderr
    for name in ("criterion.weight", "rotation_head.weight", "rotation_head.bias", "projector.weight"):
        assert name in said.partition("as part of its training")[2]


METRICS = {"train_acc.tp": torch.zeros(2), "val_acc.total": torch.tensor(3)}


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
def test_metrics_and_averaged_weights_beside_a_network_are_left_out_by_name(deepres, tmp_path, net, name):
    """As Lightning saves a module with torchmetrics, and with a copy of its model."""
    other = {key: torch.zeros_like(value) for key, value in net.state_dict().items()}
    for state, taken, left in (
        (prefixed(net.state_dict(), "model.") | METRICS, "model", "train_acc.tp, val_acc.total"),
        (
            prefixed(other, "model.") | prefixed(net.state_dict(), "model_ema.module."),
            "model_ema",
            "model\n",
        ),
    ):
        whole = {key: value.clone() for key, value in state.items()}
        torch.save({"state_dict": whole}, tmp_path / name) if name == "net.pth" else save_file(whole, tmp_path / name)
        assert_is(tmp_path / name, net)
        said = deepres("convert", name, "--to", "out.safetensors").stderr
        assert f"{taken} is taken of {name}; left out: {left}" in said


def test_two_networks_under_prefixes_are_asked_about(refused, tmp_path, net):
    state = prefixed(net.state_dict(), "student.") | prefixed(net.state_dict(), "teacher.")
    torch.save(state, tmp_path / "net.pth")
    assert "it holds several networks (student, teacher)" in refused("convert", "net.pth", "--to", "out.safetensors")


def test_parts_that_may_be_of_the_network_are_refused(refused, tmp_path, net):
    torch.save(net.state_dict() | {"attention.weight": torch.ones(3)}, tmp_path / "net.pth")
    assert "unexpected attention.weight" in refused("convert", "net.pth", "--to", "out.safetensors")


def test_where_nothing_fits_the_names_in_the_file_are_shown(refused, tmp_path):
    state = {f"encoder.layers.{number}.attn.qkv.weight": torch.zeros(3, 1) for number in range(12)}
    torch.save(state | {"encoder.norm.bias": torch.zeros(3)}, tmp_path / "transformer.pth")
    message = refused("convert", "transformer.pth", "--to", "out.safetensors")
    assert "layers.0.attn.qkv.weight" in message and "and 9 more" in message
    assert "nearest" not in message and "alexnet" not in message


def test_weights_without_a_mean_are_refused_by_all_verbs_in_the_same_words(refused, folder, tmp_path):
    build("resnet8", 3).save_pretrained(tmp_path / "net")
    verbs = (
        ("eval", "net", "--data", folder),
        ("predict", "net", folder / "test"),
        ("export", "net", "--out", "net.onnx"),
        ("export", "net", "--out", "net.onnx", "--preprocess"),
        ("finetune", "net", "--data", folder, "--run", "run"),
    )
    messages = {refused(*verb) for verb in verbs}
    assert len(messages) == 1
    assert "net holds no mean" in messages.pop() and GIVE in refused(*verbs[0])
    assert not (tmp_path / "net.onnx").exists() and not (tmp_path / "run").exists()


def test_a_mean_that_is_given_once_is_used_by_all_verbs(deepres, folder, tmp_path):
    build("resnet8", 3).save_pretrained(tmp_path / "net")
    result = deepres("convert", "net", "--to", "without.safetensors")
    assert (result.returncode, "without a mean" in result.stdout) == (0, True)
    how = ("--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25")
    result = deepres("convert", "net", *how, "--to", "with.safetensors")
    assert (result.returncode, "with a mean" in result.stdout) == (0, True)
    for verb in (("eval", "with.safetensors", "--data", folder), ("predict", "with.safetensors", folder / "test")):
        assert deepres(*verb).returncode == 0


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_file_for_torchvision_holds_no_mean_and_says_so(deepres, tmp_path, name):
    torch.save(theirs(name).state_dict(), tmp_path / "in.pth")
    result = deepres("convert", "in.pth", "--to", "out.pth")
    assert (result.returncode, "without a mean" in result.stdout, "warning" in result.stderr) == (0, True, False)
    assert json.loads(deepres("convert", "in.pth", "--to", "out.pth", "--json").stdout)["mean"] is False


def test_a_mean_that_torchvision_would_not_take_is_told(deepres, tmp_path, net):
    torch.save(net.state_dict(), tmp_path / "in.pth")
    how = ("--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5")
    assert "are not ImageNet's" in deepres("convert", "in.pth", *how, "--to", "out.pth").stderr
    build("resnet18", 3).save_pretrained(tmp_path / "net")
    assert "warning: no mean is known" in deepres("convert", "net", "--to", "out.pth").stderr


@pytest.mark.long
@pytest.mark.parametrize("mean", [torch.tensor([0.485, 0.456, 0.406])[:, None, None], torch.rand(3, 32, 32)])
def test_an_onnx_file_without_preprocessing_carries_mean_and_std(deepres, tmp_path, mean):
    """A program that knows only the file gets the scores of the network."""
    onnxruntime = pytest.importorskip("onnxruntime")
    own = build("resnet8", 3)
    own.mean, own.header["std"] = mean, [0.25, 0.2, 0.125]
    own.save_pretrained(tmp_path / "net")
    assert deepres("export", "net", "--out", "net.onnx").returncode == 0
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    said = {
        name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items() if "std" in name
    }
    said["deepres.mean"] = json.loads(session.get_modelmeta().custom_metadata_map["deepres.mean"])
    told, std = (np.array(said[f"deepres.{name}"], np.float32) for name in ("mean", "std"))
    assert np.array_equal(told.reshape(mean.shape), mean.numpy())
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32)).astype(np.float32) / 255
    images = (pixels - told.reshape(mean.shape)) / std.reshape(3, 1, 1)
    net = package.load(tmp_path / "net")
    with torch.no_grad():
        expected = net(torch.from_numpy(pixels) - net.mean).numpy()
    found = session.run(None, {"images": images})[0]
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
