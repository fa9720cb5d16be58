"""Weights in files: whose they are, told by their tensors; written, read back, refused."""

import json
import re

import pytest
import torch
from safetensors.torch import save, save_file
from torch import nn

import deepres as package
from deepres.models.catalog import build
from deepres.models.spec import of_depth
from deepres.runtime.errors import InputError
from deepres.weights import file as weights_file
from deepres.weights.identify import identify
from deepres.weights.names import foreign_state_dict, to_torchvision, torchvision_state_dict
from networks import theirs

NO_FLOATS = (torch.int8, torch.bool, torch.complex64, torch.float8_e4m3fn)


@pytest.mark.parametrize("name", ["resnet18", "resnet34-c", "resnet50-a", "resnet50-32px", "resnet26-b", "highway19"])
def test_a_network_is_told_by_its_tensors(name):
    assert identify(build(name, 3, 1).state_dict()) == name


def test_shortcuts_without_parameters_cannot_be_told_from_none():
    for name, words in {"plain20": "resnet20 or plain20", "resnet34-a": "plain34 or resnet34-a"}.items():
        state = build(name).state_dict()
        with pytest.raises(InputError, match=f"could be {words}"):
            identify(dict(reversed(state.items())))


def test_every_network_of_a_depth_has_one_name():
    assert set(of_depth(34)) == {
        "resnet34",
        "resnet34-a",
        "resnet34-c",
        "resnet34-32px",
        "plain34",
        "plain34-32px",
        "highway34",
    }
    assert set(of_depth(20)) == {"resnet20", "resnet20-b", "resnet20-c", "plain20", "highway20"}
    assert of_depth(3) == ()


def test_a_wrong_name_is_answered_with_the_nearest_network(refused, tmp_path):
    torch.save(theirs("resnet34").state_dict(), tmp_path / "net.pth")
    message = refused("convert", "net.pth", "--network", "resnet18", "--to", "out.safetensors")
    assert "not of resnet18 (the nearest network is resnet34)" in message
    state = build("resnet20").state_dict()
    del state["conv3_x.2.residual.layer1.bn.weight"]
    with pytest.raises(InputError, match=r"nearest is resnet20, but: missing conv3_x\.2\.residual\.layer1\.bn\.weight"):
        identify(state)
    with pytest.raises(InputError, match="no network that is known"):
        identify({"weight": torch.zeros(2)})


def test_a_run_becomes_one_file_with_its_whole_story(deepres, folder, tmp_path):
    run = tmp_path / "run"
    how = ("--iterations", 2, "--batch-size", 8, "--kernels", "off", "--compile", "off", "--run", run)
    assert deepres("train", "resnet8", "--data", folder, *how).returncode == 0
    facts = json.loads(deepres("convert", run, "--to", "net.safetensors", "--json").stdout)
    found = weights_file.read_file(tmp_path / "net.safetensors")
    done = json.loads((run / "done.json").read_text())
    (environment,) = json.loads((run / "environment.json").read_text())
    expected = {"network": "resnet8", "stride_on": "1x1", "classes": ["ant", "bee", "cow"], "recipe": "cifar"}
    assert expected.items() <= found.header.items()
    assert {"commit", "seed", "iteration"} <= found.header.keys()
    assert found.header["errors"] == {"single": {"top1": done["test_error"], "top5": done["test_top5_error"]}}
    assert found.header.items() <= facts.items()
    assert found.mean.shape == (3, 32, 32)
    again = package.load(run)
    assert torch.equal(again.mean, found.mean)
    assert all(torch.equal(value, found.state[key]) for key, value in again.state_dict().items())
    report = json.loads(deepres("eval", "net.safetensors", "--data", folder, "--json").stdout)
    assert report["protocol"] == "single"
    assert report["top1_error"] == round(done["test_error"], 4)
    assert report["members"][0]["precision"] in ("fp32", "bf16")
    assert {"device": "cpu", "cpu": environment["cpu"]}.items() <= report["members"][0].items()


def test_errors_by_other_protocols_go_into_the_header(deepres, refused, folder, tmp_path):
    build("resnet8", 3).save_pretrained(tmp_path / "net")
    report = {"protocol": "dense", "scales": [32, 40], "images": 18, "top1_error": 50.0, "top5_error": 0.0}
    (tmp_path / "dense.json").write_text(json.dumps(report | {"members": [{"network": "resnet8"}]}))
    assert deepres("convert", "net", "--to", "out.safetensors", "--errors", "dense.json").returncode == 0
    expected = {"top1": 50.0, "top5": 0.0, "scales": [32, 40], "images": 18}
    assert weights_file.read_file(tmp_path / "out.safetensors").header["errors"] == {"dense": expected}
    (tmp_path / "two.json").write_text(json.dumps(report | {"members": [{"network": "resnet8"}] * 2}))
    (tmp_path / "other.json").write_text(json.dumps({"members": ["a"]}))
    (tmp_path / "short.json").write_text(json.dumps({"members": [{"network": "resnet8"}]}))
    for file in ("two.json", "nowhere.json", "other.json", "short.json"):
        assert "deepres eval" in refused("convert", "net", "--to", "other.safetensors", "--errors", file)


def test_weights_of_elsewhere_are_tested_as_our_own(deepres, folder, tmp_path):
    """The mean and the standard deviation are in what the command line tests."""
    net = theirs("resnet18")
    net.fc = nn.Linear(512, 3)
    torch.save(net.state_dict(), tmp_path / "net.pth")
    report = json.loads(deepres("eval", "net.pth", "--data", folder, "--json").stdout)
    assert (report["network"], report["images"], len(report["classes"])) == ("resnet18", 18, 3)


@pytest.mark.long
def test_what_torchvision_computes_otherwise_is_told(deepres, refused, tmp_path):
    for name in ("resnet50", "resnet18", "resnet34-c", "resnet20"):
        build(name, 2).save_pretrained(tmp_path / name)
    result = deepres("convert", "resnet50", "--to", "out.pth")
    assert result.returncode == 0 and "stride on the 3x3" in result.stderr
    assert "stride" not in deepres("convert", "resnet18", "--to", "out.pth").stderr
    for name in ("resnet34-c", "resnet20"):
        assert f"torchvision has no {name}" in refused("convert", name, "--to", "other.pth")
    assert not (tmp_path / "other.pth").exists()


def test_a_foreign_pickle_or_a_file_that_is_none_is_refused(refused, tmp_path):
    torch.save({"state_dict": {"a": torch.zeros(1)}, "how": print}, tmp_path / "code.pth")
    torch.save({"state_dict": {"a": "text"}}, tmp_path / "text.pth")
    (tmp_path / "net.t7").write_bytes(b"4")
    for name, words in {
        "code.pth": "refused",
        "text.pth": "refused",
        "net.t7": "Torch for Lua",
        "no": "no weights",
    }.items():
        assert words in refused("convert", name, "--to", "out.safetensors")
    build("resnet8").save_pretrained(tmp_path / "net")
    assert "--format" in refused("convert", "net", "--to", "out.bin")
    message = refused("convert", "net", "--mean", "0.5", "--to", "out.safetensors")
    assert "mean has 1 entries, resnet8 has 3 input channels" in message
    (tmp_path / "folder.safetensors").mkdir()
    assert "could not be written" in refused("convert", "net", "--to", "folder.safetensors")


@pytest.mark.usefixtures("checked_types")
@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("{network", "no JSON"),
        ("[" * 100_000, "nested more than 64 deep"),
        ("[1]", "expected object, got array"),
        ('{"classes": ["\\ud800"]}', "must be a list of names"),
        ({"network": ["resnet8"]}, 'network of its header must be a name, not ["resnet8"]'),
        ({"num_classes": "10"}, 'num_classes of its header must be a whole number below 2^31, not "10"'),
        ({"num_classes": 2**31}, "num_classes of its header must be a whole number below 2^31"),
        ({"num_classes": 7}, "wrong shape fc.weight (10, 64) where (7, 64) is needed"),
        ({"in_channels": None}, "in_channels of its header must be a whole number below 2^31, not null"),
        ({"residual_layers": 2.0}, "residual_layers of its header must be a whole number below 2^31, not 2.0"),
        ({"pool_padding": True}, "pool_padding of its header must be a whole number below 2^31, not true"),
        ({"crop": "32"}, 'crop of its header must be a whole number below 2^31, not "32"'),
        ({"classes": "abcdefghij"}, "classes of its header must be a list of names"),
        ({"classes": [1]}, "classes of its header must be a list of names, not [1]"),
        ({"classes": ["ant", "bee"]}, "the list of classes has 2 entries, resnet8 has 10 classes"),
        ({"std": 1}, "std of its header must be a list of numbers above 0, not 1"),
        ({"std": [1, 1]}, "the std has 2 entries, resnet8 has 3 input channels"),
        ({"std": [1, 0, 1]}, "std of its header must be a list of numbers above 0, not [1, 0, 1]"),
        ({"std": [1, 1e-46, 1]}, "std of its header must be a list of numbers above 0"),
        ({"std": [1, float("nan"), 1]}, "std of its header must be a list of numbers above 0, not [1, NaN, 1]"),
        ({"std": [1, 10**400, 1]}, "std of its header must be a list of numbers above 0"),
    ],
)
def test_a_header_that_cannot_be_of_these_weights_is_refused_in_one_sentence(tmp_path, header, words):
    net, file = build("resnet8"), tmp_path / "net.safetensors"
    text = header if isinstance(header, str) else json.dumps(net.header | header)
    file.write_bytes(save(net.state_dict(), {weights_file.HEADER: text}))
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        package.load(file)
    assert str(caught.value).startswith(str(file)) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("mean", "words"),
    [
        (torch.zeros(5, 1, 1), "the mean has 5 entries, resnet8 has 3 input channels"),
        (torch.zeros(3), "must be floats (channels, height, width), not torch.float32 of shape (3,)"),
        (torch.zeros(3, 0, 0), "must be floats (channels, height, width)"),
        (torch.zeros(3, 1, 1, dtype=torch.uint8), "not torch.uint8 of shape (3, 1, 1)"),
    ],
)
def test_a_mean_that_no_input_of_the_network_lacks_is_refused(tmp_path, mean, words):
    net, file = build("resnet8"), tmp_path / "net.safetensors"
    file.write_bytes(weights_file.serialise(net.state_dict(), mean, net.header))
    with pytest.raises(InputError, match=re.escape(words)):
        package.load(file)


def test_a_pickle_of_other_than_names_and_plain_tensors_is_refused_by_every_verb(refused, folder, tmp_path):
    torch.save({1: torch.zeros(2)}, tmp_path / "numbers.pth")
    torch.save({"state_dict": {"a": torch.eye(2).to_sparse()}}, tmp_path / "sparse.pth")
    for command in (
        ("predict", "numbers.pth", folder),
        ("eval", "numbers.pth", "--data", folder),
        ("convert", "sparse.pth", "--to", "out.safetensors"),
    ):
        assert "neither safetensors nor a state dict of names and dense tensors" in refused(*command)


def test_foreign_tensors_of_a_wrong_shape_are_named(tmp_path):
    state = theirs("resnet18").state_dict()
    torch.save(state | {"conv1.bias": torch.zeros(3)}, tmp_path / "bias.pth")
    with pytest.raises(InputError, match=r"unexpected conv1\.conv\.bias"):
        package.load(tmp_path / "bias.pth")
    torch.save({"pre_logits.fc1.weight": torch.zeros(3)}, tmp_path / "timm.pth")
    with pytest.raises(InputError, match=r"unexpected classifier\.0\.weight|wrong shape classifier\.0\.weight"):
        package.load(tmp_path / "timm.pth")


@pytest.mark.parametrize("option", ["--mean", "--std"])
def test_a_mean_and_a_std_are_finite_numbers(refused, tmp_path, option):
    build("resnet8").save_pretrained(tmp_path / "net")
    for text in ("nan,1,1", "1,inf,1", "1,1e39,1", "a,b,c", ","):
        message = refused("convert", "net", f"{option}={text}", "--to", "out.safetensors")
        assert f"{option} takes a finite number a channel" in message
    assert not (tmp_path / "out.safetensors").exists()


def test_a_std_is_above_0(refused, tmp_path):
    """conv1 is divided by it."""
    build("resnet8").save_pretrained(tmp_path / "net")
    for text in ("0,0,0", "1,-1,1", "1,1e-46,1"):
        assert "--std takes numbers above 0" in refused("convert", "net", f"--std={text}", "--to", "out.safetensors")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused_by_every_verb_in_the_same_words(refused, folder, tmp_path, value):
    net = build("resnet8", 3)
    net.mean = torch.zeros(3, 1, 1)
    with torch.no_grad():
        net.conv1.conv.weight[0, 0, 0, 0] = value
    net.save_pretrained(tmp_path / "net")
    before = sorted(tmp_path.iterdir())
    for command in (
        ("convert", "net", "--to", "out.safetensors"),
        ("predict", "net", folder),
        ("eval", "net", "--data", folder),
        ("export", "net", "--out", "out.onnx"),
        ("finetune", "net", "--data", folder, "--run", "run"),
    ):
        assert "the weights hold values that are not finite (conv1.conv.weight); give" in refused(*command)
    assert sorted(tmp_path.iterdir()) == before


def test_variances_below_0_and_a_mean_that_is_not_finite_are_refused(refused, tmp_path):
    net = build("resnet8", 3)
    net.mean = torch.full((3, 1, 1), torch.nan)
    net.save_pretrained(tmp_path / "mean")
    assert "its mean image holds values that are not finite" in refused("convert", "mean", "--to", "out.safetensors")
    net.mean = None
    net.conv1.bn.running_var[3] = -1
    net.save_pretrained(tmp_path / "net")
    message = refused("convert", "net", "--to", "out.safetensors")
    assert "hold variances below 0 (conv1.bn.running_var)" in message


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, kind) for name in ("net.pth", "net.safetensors") for kind in NO_FLOATS),
        ("net.pth", torch.qint8),  # which safetensors do not keep
    ],
)
@pytest.mark.filterwarnings("ignore:.*ComplexHalf|.*[Qq]uantiz")
def test_weights_of_another_type_than_floating_point_are_refused_by_name(refused, folder, tmp_path, name, kind):
    """As numbers they would be taken without a word, and be nothing: their scales are elsewhere."""
    state = theirs("resnet18").state_dict()
    fc = state["fc.weight"]
    if kind is torch.qint8:
        state["fc.weight"] = torch.quantize_per_tensor(fc, 0.1, 0, kind)
    else:
        state["fc.weight"] = fc.to(kind)
    torch.save(state, tmp_path / name) if name.endswith(".pth") else save_file(state, tmp_path / name)
    shown = str(kind).removeprefix("torch.")
    for command in (("convert", name, "--to", "out.safetensors"), ("predict", name, folder)):
        message = refused(*command)
        assert f"{name}: the weights hold {shown} (fc.weight), which is no floating point of 16 bits or more" in message


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_floating_point_are_converted_and_it_is_said(deepres, tmp_path, kind):
    state = theirs("resnet18").state_dict()
    torch.save(
        {key: value.to(kind) if value.is_floating_point() else value for key, value in state.items()},
        tmp_path / "net.pth",
    )
    result = deepres("convert", "net.pth", "--to", "out.safetensors")
    assert result.returncode == 0, result.stderr
    shown = str(kind).removeprefix("torch.")
    assert f"the weights are of {shown}, and are converted to float32" in result.stderr
    back = package.load(tmp_path / "out.safetensors")
    assert back.fc.weight.dtype is torch.float32
    assert torch.equal(back.fc.weight, state["fc.weight"].to(kind).float())
    assert "converted" not in deepres("convert", "out.safetensors", "--to", "again.safetensors").stderr


def test_a_mean_that_cannot_be_read_back_is_noticed(refused, tmp_path, monkeypatch):
    net = build("resnet8")
    net.mean = torch.zeros(3, 1, 1)
    net.save_pretrained(tmp_path / "net")
    whole = weights_file.serialise
    monkeypatch.setattr(
        weights_file, "serialise", lambda state, mean, header: whole(state, -mean, header)
    )  # -0 is not 0
    assert "could not be read back" in refused("convert", "net", "--to", "out.safetensors")


def test_what_cannot_be_read_back_leaves_the_old_file(deepres, refused, tmp_path, monkeypatch):
    """A disk that flips a bit."""
    build("resnet8").save_pretrained(tmp_path / "net")
    (tmp_path / "out.safetensors").write_text("old")
    whole = weights_file.serialise
    monkeypatch.setattr(weights_file, "serialise", lambda *content: whole(*content)[:-1] + b"\x01")
    assert "could not be read back" in refused("convert", "net", "--to", "out.safetensors")
    assert (tmp_path / "out.safetensors").read_text() == "old"
    assert [file.name for file in tmp_path.glob("*out*")] == ["out.safetensors"]


def test_names_go_to_torchvisions_and_back():
    state = build("resnet50").state_dict()
    there = to_torchvision(state)
    assert list(torchvision_state_dict(there)) == list(state)
    assert foreign_state_dict(state) is None
    with pytest.raises(InputError, match=r"no name for conv2_x\.1\.shortcut\.gate\.weight"):
        to_torchvision(build("highway8").state_dict())


def test_a_dictionary_that_holds_itself_is_refused(refused, tmp_path):
    endless: dict[str, object] = {}
    endless["model"] = endless
    torch.save(endless, tmp_path / "endless.pth")
    assert "is refused" in refused("convert", "endless.pth", "--to", "out.safetensors")
