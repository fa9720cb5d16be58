"""Files of `deepres export --preprocess` under the test protocols, and on pictures."""

import json

import pytest
import torch

from deepres.classification import score_table
from deepres.data.sources import load
from deepres.weights.file import serialise
from test_protocols import warmed

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def weights(photographs, tmp_path_factory):
    """A network of crops, and one of whole images of 64 pixels."""
    place = tmp_path_factory.mktemp("weights")
    for name, facts in (("resnet18", {"crop": 32}), ("resnet20", {})):
        data = load(str(photographs), image_size=facts.get("crop", 32))
        header = {"network": name, "classes": ("dark", "light")} | facts
        content = serialise(warmed(name, 32, 2).state_dict(), data.mean(), header)
        (place / f"{name}.safetensors").write_bytes(content)
    return place


def evaluated(deepres, *arguments):
    result = deepres("eval", *arguments, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("ending", ["onnx", "xml"])
@pytest.mark.parametrize("network", ["resnet18", "resnet20"])
def test_a_file_has_the_scores_of_its_network_by_the_same_protocol(
    deepres, photographs, weights, tmp_path, network, ending
):
    own, file = weights / f"{network}.safetensors", f"net.{ending}"
    assert deepres("export", own, "--out", file, "--preprocess").returncode == 0
    how = ("--data", photographs, *(("--protocol", "10-crop") if network == "resnet18" else ("--image-size", 32)))
    reports = [
        evaluated(deepres, given, *how, "--save-scores", f"{given}.scores".split("/")[-1]) for given in (file, own)
    ]
    assert reports[0]["protocol"] == reports[1]["protocol"]
    assert reports[0]["precision"] == "fp32" and reports[0]["weights"] == file
    mine, its = (
        score_table.read(tmp_path / f"{name}.scores").members[0].scores for name in (file, f"{network}.safetensors")
    )
    assert len({round(score, 3) for score in mine[:, 0].tolist()}) > 5
    assert (mine - its).abs().max() <= 1e-4


def test_without_a_protocol_a_file_is_tested_as_its_network(deepres, photographs, weights):
    own = weights / "resnet18.safetensors"
    deepres("export", own, "--out", "net.onnx", "--preprocess")
    assert evaluated(deepres, "net.onnx", "--data", photographs)["protocol"] == "center"


def test_int8_is_tested_as_it_is(deepres, photographs, weights):
    own = weights / "resnet18.safetensors"
    more = ("--preprocess", "--int8", "--calibrate", photographs / "train")
    assert deepres("export", own, "--out", "net.onnx", *more).returncode == 0
    report = evaluated(deepres, "net.onnx", own, "--data", photographs)
    assert report["members"][0]["precision"] == "int8"
    assert report["members"][0]["top1_error"] == pytest.approx(report["members"][1]["top1_error"], abs=20)


def test_a_file_predicts_what_its_network_does(deepres, photographs, weights):
    own = weights / "resnet18.safetensors"
    deepres("export", own, "--out", "net.xml", "--preprocess")
    found = [deepres("predict", given, photographs / "test", "--format", "csv").stdout for given in ("net.xml", own)]
    rows = [[line.split(",") for line in text.splitlines()] for text in found]
    assert len(rows[0]) == len(rows[1]) == 1 + 2 * 10
    assert [row[:3] for row in rows[0]] == [row[:3] for row in rows[1]]
    gaps = [abs(float(mine[3]) - float(its[3])) for mine, its in zip(rows[0][1:], rows[1][1:], strict=True)]
    assert max(gaps) <= 1e-4


def test_what_is_no_file_for_pictures_is_refused_in_one_sentence(deepres, refused, photographs, weights, tmp_path):
    import onnx

    own, data = weights / "resnet18.safetensors", ("--data", photographs)
    deepres("export", own, "--out", "net.onnx", "--preprocess")
    assert "views of one size" in refused("eval", "net.onnx", *data, "--protocol", "dense")
    assert "its own runtime" in refused("predict", "net.onnx", photographs / "test", "--engine", "auto")
    deepres("export", own, "--out", "float.xml")
    assert "export it again with --preprocess" in refused("eval", "float.xml", *data)
    (tmp_path / "pytorch_model.bin").write_bytes(own.read_bytes())
    assert "would be lost" in refused("export", "pytorch_model.bin", "--out", "pytorch_model.xml")
    assert (tmp_path / "pytorch_model.bin").read_bytes() == own.read_bytes()
    (tmp_path / "float.bin").unlink()
    assert "there is no file float.bin" in refused("eval", "float.xml", *data)
    assert "an exported network" in refused("export", "net.onnx", "--out", "again.onnx")
    assert "there is no file" in refused("eval", "nowhere.onnx", *data)
    whole = (tmp_path / "net.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    assert "no whole file of deepres export" in refused("eval", "cut.onnx", *data)
    model = onnx.load_model_from_string(whole)
    del model.metadata_props[:]
    (tmp_path / "foreign.onnx").write_bytes(model.SerializeToString())
    assert "does not say its network" in refused("eval", "foreign.onnx", *data)


def test_pixels_reach_a_file_as_they_were():
    from deepres.data.augment import normalise
    from deepres.serving.file_network import FileNetwork

    every = torch.arange(256, dtype=torch.uint8).expand(1, 3, 1, 256)
    net = FileNetwork()
    net.run = lambda images: images
    assert net(normalise(every, torch.zeros(3, 1, 256))).permute(0, 3, 1, 2).equal(every)
