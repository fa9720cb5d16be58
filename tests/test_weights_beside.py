"""Folders as the hub has them: the JSON beside the weights tells mean, std, classes and crop, and what is not read."""

import json

import pytest
import torch
from safetensors.torch import save_file

import deepres as package
from deepres.models.catalog import build
from networks import assert_same_scores, noise_images, theirs

NAMES = ["ant", "bee", "cow", "dog", "eel", "fox", "gnu"]
MEAN, STD = [0.5, 0.4, 0.3], [0.25, 0.2, 0.125]
TIMM = {"mean": MEAN, "std": STD, "input_size": [3, 160, 160], "interpolation": "bilinear", "crop_pct": 0.875}


def folder(place, net, state=None, **files):
    """A folder with the weights of `net` and JSON files, named with _ for the dot."""
    place.mkdir(exist_ok=True)
    save_file(net.state_dict() if state is None else state, place / "model.safetensors")
    for name, content in files.items():
        (place / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return place


@torch.no_grad()
def assert_normalised(place, net, mean=MEAN, std=STD, names=NAMES, crop=160):
    loaded = package.load(place)
    assert loaded.mean.flatten().tolist() == pytest.approx(mean)
    assert (loaded.header.get("classes"), loaded.header.get("crop")) == (names, crop)
    mean, std = (torch.tensor(values)[:, None, None] for values in (mean, std))
    assert_same_scores(loaded(noise_images() - loaded.mean), net((noise_images() - mean) / std))
    return loaded


@pytest.mark.parametrize("older", [False, True])
def test_a_folder_of_timm_tells_mean_std_names_and_crop(deepres, tmp_path, older):
    net = theirs("resnet18")
    labels = {"label_names": NAMES, "label_descriptions": {}, "num_classes": 7}
    config = TIMM | labels if older else {"pretrained_cfg": TIMM, **labels}
    folder(tmp_path / "net", net, config={"architecture": "resnet18", "num_features": 512} | config)
    assert_normalised(tmp_path / "net", net)
    result = deepres("convert", "net", "--to", "ours.safetensors")
    assert (result.returncode, "not read" in result.stderr) == (0, False)
    assert_normalised(tmp_path / "ours.safetensors", net)


def test_names_within_pretrained_cfg_are_read_and_those_beside_it_come_first(tmp_path):
    net = theirs("resnet18")
    folder(tmp_path / "net", net, config={"pretrained_cfg": TIMM | {"label_names": NAMES}})
    assert_normalised(tmp_path / "net", net)
    other = {"label_names": NAMES[::-1], "pretrained_cfg": TIMM | {"label_names": NAMES}}
    folder(tmp_path / "net", net, config=other)
    assert_normalised(tmp_path / "net", net, names=NAMES[::-1])


def test_predict_and_eval_take_what_the_folder_tells(deepres, photographs, tmp_path):
    """The scores are those of the network on images normalised as the folder says, by the names that it says."""
    net = build("resnet18", 2)
    torch.manual_seed(0)
    state = {key: value.contiguous() for key, value in net.state_dict().items()}
    config = {"pretrained_cfg": TIMM | {"input_size": [3, 32, 32], "crop_pct": 1.0}, "label_names": ["dark", "light"]}
    folder(tmp_path / "net", net, state=theirs_of(state), config=config)
    picture = next((photographs / "test" / "dark").iterdir())
    result = deepres("predict", "net", picture, "--format", "jsonl", "--precision", "fp32")
    assert {row["class"] for row in json.loads(result.stdout)["top"]} == {"dark", "light"}
    report = json.loads(deepres("eval", "net", "--data", photographs, "--json").stdout)
    assert (report["classes"], report["protocol"], report["crop"]) == (["dark", "light"], "center", 32)
    assert "Traceback" not in deepres("eval", "net").stderr  # config.json makes it no run


def theirs_of(state):
    from deepres.weights.names import to_torchvision

    return to_torchvision(state)


def test_what_is_not_read_of_a_folder_is_said(deepres, tmp_path):
    other = {"interpolation": "bicubic", "crop_pct": 0.95, "test_input_size": [3, 288, 288]}
    config = {"architecture": "resnetblur18", "pretrained_cfg": TIMM | other}
    folder(tmp_path / "net", theirs("resnet18"), config=config)
    said = deepres("convert", "net", "--to", "ours.safetensors").stderr
    for words in (
        "interpolation bicubic (here bilinear)",
        "crop_pct 0.95 (here 0.875)",
        "test_input_size [3, 288, 288]",
        "architecture resnetblur18",
    ):
        assert words in said, said


def transformers(net):
    """The state dict of the same network in transformers' ResNetForImageClassification."""
    renamed = {}
    for key, value in net.state_dict().items():
        parts = key.split(".")
        kinds = {"conv": "convolution", "bn": "normalization"}
        if parts[0] in ("conv1", "bn1"):
            name = f"resnet.embedder.embedder.{kinds[parts[0][:-1]]}"
        elif parts[0] == "fc":
            name = "classifier.1"
        else:
            stage = f"resnet.encoder.stages.{int(parts[0][-1]) - 1}.layers.{parts[1]}"
            if parts[2] == "downsample":
                name = f"{stage}.shortcut.{('convolution', 'normalization')[int(parts[3])]}"
            else:
                name = f"{stage}.layer.{int(parts[2][-1]) - 1}.{kinds[parts[2][:-1]]}"
        renamed[f"{name}.{parts[-1]}"] = value
    return renamed


BY_NUMBER = {str(number): name for number, name in enumerate(NAMES)}
OF_TRANSFORMERS = {
    "architectures": ["ResNetForImageClassification"],
    "model_type": "resnet",
    "hidden_act": "relu",
    "downsample_in_first_stage": False,
    "id2label": dict(sorted(BY_NUMBER.items(), reverse=True)),
}
PREPROCESSOR = {"image_mean": MEAN, "image_std": STD, "crop_pct": 0.875, "resample": 2, "do_normalize": True}


@pytest.mark.parametrize(("name", "layer"), [("resnet18", "basic"), ("resnet50", "bottleneck")])
@pytest.mark.parametrize("size", [160, {"shortest_edge": 160}, {"height": 160, "width": 160}])
def test_a_folder_of_transformers_gives_its_outputs(deepres, tmp_path, name, layer, size):
    net = theirs(name)
    files = {"config": OF_TRANSFORMERS | {"layer_type": layer}, "preprocessor_config": PREPROCESSOR | {"size": size}}
    folder(tmp_path / "net", net, transformers(net), **files)
    assert assert_normalised(tmp_path / "net", net).name == name


def test_a_stride_on_the_first_layer_of_a_bottleneck_is_read(tmp_path):
    net = theirs("resnet50")
    folder(tmp_path / "net", net, transformers(net), config=OF_TRANSFORMERS | {"downsample_in_bottleneck": True})
    assert package.load(tmp_path / "net").header["stride_on"] == "1x1"


def test_images_that_are_not_normalised_are_taken_as_they_are(tmp_path):
    net = theirs("resnet18")
    folder(tmp_path / "net", net, preprocessor_config={"do_normalize": False, "image_mean": MEAN, "image_std": STD})
    assert_normalised(tmp_path / "net", net, [0.0] * 3, [1.0] * 3, None, None)


def test_fields_of_torchvisions_weights_are_read(tmp_path):
    net = theirs("resnet18")
    config = {"categories": NAMES, "mean": MEAN, "std": STD, "crop_size": 160, "interpolation": "bilinear"}
    folder(tmp_path / "net", net, config=config)
    assert_normalised(tmp_path / "net", net)


def test_older_weights_of_the_hub_are_a_pickle(tmp_path):
    net = theirs("resnet18")
    folder(tmp_path / "net", net, config={"pretrained_cfg": TIMM, "label_names": NAMES})
    (tmp_path / "net" / "model.safetensors").unlink()
    torch.save(net.state_dict(), tmp_path / "net" / "pytorch_model.bin")
    assert_normalised(tmp_path / "net", net)


def test_our_own_header_says_more_than_json_beside_it(tmp_path):
    net = build("resnet8", 7)
    net.mean = torch.full((3, 1, 1), 0.25)
    net.save_pretrained(tmp_path / "net")
    (tmp_path / "net" / "config.json").write_text(json.dumps({"mean": MEAN, "std": STD, "label_names": NAMES}))
    loaded = package.load(tmp_path / "net")
    assert (loaded.mean.flatten().tolist(), loaded.header) == ([0.25] * 3, net.header)


@pytest.mark.usefixtures("checked_types")
@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"config": "{"}, "config.json cannot be read"),
        ({"config": "[" * 100_000}, "config.json"),
        ({"config": "[1]"}, "config.json"),
        ({"config": {"pretrained_cfg": [1]}}, "pretrained_cfg"),
        ({"config": {"pretrained_cfg": {"mean": "half"}}}, "mean"),
        ({"config": {"mean": MEAN, "std": [0, 1, 1]}}, "std"),
        ({"config": {"mean": [0.5], "std": [0.5]}}, "the mean has 1 entries, resnet18 has 3 input channels"),
        ({"config": {"label_names": ["ant"]}}, "the list of classes has 1 entries, resnet18 has 7 classes"),
        ({"config": {"id2label": {"0": "ant", "2": "bee"}}}, "id2label must have a name for each"),
        ({"config": {"input_size": [3, -1, 10**12]}}, "input_size"),
        ({"config": {"hidden_act": "gelu"}}, "its activation is not ReLU"),
        ({"config": {"downsample_in_first_stage": True}}, "it halves the map in its first stage"),
        ({"config": {"global_pool": "max"}}, "it does not pool by the average"),
        ({"preprocessor_config": {"rescale_factor": 1.0}}, "it does not scale pixels to 0..1"),
        ({"preprocessor_config": {"image_mean": [0.5, None, 0.5]}}, "image_mean"),
    ],
)
def test_json_of_another_shape_and_networks_that_are_none_of_ours_are_refused(refused, tmp_path, files, words):
    folder(tmp_path / "net", theirs("resnet18"), **files)
    assert words in refused("convert", "net", "--to", "ours.safetensors")
    assert not (tmp_path / "ours.safetensors").exists()


def test_a_config_alone_makes_no_run(deepres, refused, photographs, tmp_path):
    """Of a folder of the hub; beside what a run leaves, it does, if it be damaged."""
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "config.json").write_text(json.dumps({"architecture": "resnet18", "pretrained_cfg": TIMM}))
    for verb in (("eval", "net"), ("eval", "net", "--data", photographs), ("convert", "net", "--to", "x.safetensors")):
        assert "net is no run folder and holds no model.safetensors" in refused(*verb)
    assert "holds no run" in refused("train", "resnet8", "--data", photographs, "--image-size", 32, "--run", "net")
    (tmp_path / "runs" / "second").mkdir(parents=True)
    (tmp_path / "runs" / "second" / "config.json").write_text('{"network": "", "data": "", "recipe": ""}')
    assert "runs is no run folder and holds no model.safetensors; give a run in it (runs/second)" in refused(
        "eval", "runs"
    )
    (tmp_path / "net" / "config.json").write_text("{")
    (tmp_path / "net" / "environment.json").write_text("[]")
    assert "config.json" in refused("train", "--run", "net")
