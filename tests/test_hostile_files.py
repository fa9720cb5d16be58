"""Weights, exports, scores, Parquet and caches made to break their reader: a sentence each, and no memory is filled."""

import io
import json
import os
import zipfile

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet as pq

from caffe_files import blob, field
from deepres.classification import score_table
from deepres.runtime import archive
from deepres.runtime.errors import InputError
from deepres.runtime.files import DAY, replacing, sweep

DEEP = "[" * 100_000


def refusal(file):
    with pytest.raises(InputError) as caught:
        archive.load(file)
    return str(caught.value)


def test_a_tensor_that_repeats_one_number_is_refused(refused, tmp_path):
    torch.save({"fc.weight": torch.ones(1).expand(10**9)}, tmp_path / "w.pth")
    assert "declares tensors of 4,000,000,000" in refusal(tmp_path / "w.pth")
    message = refused("convert", "w.pth", "--network", "resnet20", "--to", "out.safetensors")
    assert "declares tensors of 4,000,000,000" in message
    torch.save({str(number): torch.ones(1000).expand(8, 1000) for number in range(4)}, tmp_path / "many.pth")
    assert "declares tensors of 128,000" in refusal(tmp_path / "many.pth")


@pytest.mark.parametrize("kind", ["sparse", "meta", "nested"])
def test_tensors_without_their_values_are_refused_by_what_they_declare(tmp_path, kind):
    content = {
        "sparse": lambda: torch.sparse_coo_tensor([[0]], [1.0], (10**9,)),
        "meta": lambda: torch.empty(10**9, device="meta"),
        "nested": lambda: [{"deep": (torch.ones(1).expand(10**9),)}],
    }[kind]
    with torch.sparse.check_sparse_tensor_invariants():  # or PyTorch 2.11 warns
        torch.save({"w": content()}, tmp_path / "w.pth")
    assert "declares tensors of 4,000,000,000" in refusal(tmp_path / "w.pth")


def rewritten(file, compression, change=lambda name, content: content):
    target = file.with_name("other.pth")
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(target, "w", compression) as new:
        for member in old.infolist():
            new.writestr(member.filename, change(member.filename, old.read(member)))
    return target


def test_a_compressed_checkpoint_is_refused_before_it_is_unpacked(tmp_path):
    torch.save({"w": torch.zeros(500_000)}, tmp_path / "w.pth")
    packed = rewritten(tmp_path / "w.pth", zipfile.ZIP_DEFLATED)
    assert packed.stat().st_size < 10_000
    assert "is compressed, which torch.save never does" in refusal(packed)


def test_a_tensor_that_declares_more_than_its_bytes_is_refused(tmp_path):
    torch.save({"w": torch.zeros(500_000)}, tmp_path / "w.pth")
    count = (500_000).to_bytes(4, "little")

    def lie(name, content):
        return content.replace(count, (10**9).to_bytes(4, "little")) if name.endswith(".pkl") else content[:400]

    assert "is refused: it is cut short" in refusal(rewritten(tmp_path / "w.pth", zipfile.ZIP_STORED, lie))


def test_what_torch_saves_comes_back(tmp_path):
    tied = torch.randn(10, 10)
    for old in (False, True):
        content = {"a": tied, "b": tied, "view": torch.arange(9.0)[2:4], "plain": [1, "x", None]}
        torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=not old)
        read = archive.load(tmp_path / "w.pth")
        assert read["b"].equal(tied) and read["view"].tolist() == [2.0, 3.0] and read["plain"] == [1, "x", None]


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_torchscript_is_called_so(refused, tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "net.pt")
    message = refused("convert", "net.pt", "--to", "out.safetensors")
    assert "net.pt is TorchScript, a program and not weights alone; save its state dict" in message


class Foreign:
    def __reduce__(self):
        return os.system, ("touch ran",)


def test_a_pickle_that_runs_code_is_refused_in_our_words(refused, tmp_path):
    torch.save({"w": Foreign()}, tmp_path / "w.pth")
    message = refused("convert", "w.pth", "--network", "resnet20", "--to", "out.safetensors")
    assert "may run code when it is loaded" in message and "weights_only" not in message
    assert not (tmp_path / "ran").exists()


def test_a_caffe_layer_whose_name_is_no_utf8_is_a_sentence(refused, tmp_path):
    weights = field(7, blob(np.zeros((2, 2))))
    (tmp_path / "a.caffemodel").write_bytes(field(100, field(1, b"conv\xff\xfe") + weights))
    message = refused("convert", "a.caffemodel", "--to", "out.safetensors")
    assert "a.caffemodel is damaged: a layer has a name that is no UTF-8" in message


FACTS = {
    "network": "resnet20",
    "crop": "4",
    "classes": '["ant", "bee"]',
    "precision": "fp32",
    "protocol": "single",
    "input": "uint8 (N, 4, 4, 3), RGB",
}


def tiny(facts):
    """An ONNX model of two classes for pictures of 4 pixels, with the metadata `facts`."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.ones((48, 2), np.float32), "weight")
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["floats"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["scores"]),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 4, 4, 3])
    given = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 2])
    graph = helper.make_graph(nodes, "tiny", [images], [given], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {f"deepres.{name}": text for name, text in facts.items()})
    onnx.checker.check_model(model)
    return model


METADATA = {
    "crop of 10^12": ({"crop": "1000000000000"}, "at crop: expected int <= 4096"),
    "crop of text": ({"crop": "big"}, "the metadata of net.{} cannot be read"),
    "crop nested": ({"crop": DEEP}, "nested more than 64 deep"),
    "crop of another size": ({"crop": "32"}, "does not take pictures of 32 pixels, as it says"),
    "classes as an object": ({"classes": '{"a": 1}'}, "at classes: expected array, got object"),
    "classes of numbers": ({"classes": "[1, 2]"}, "at classes[0]: expected str, got int"),
    "classes nested": ({"classes": DEEP}, "nested more than 64 deep"),
    "no class": ({"classes": "[]"}, "at classes: expected array of length >= 1"),
    "a class too many": ({"classes": '["a", "b", "c"]'}, "names 3 classes, and gives scores (2,)"),
    "half a character": ({"classes": '["\\ud800", "b"]'}, "holds half a character"),
    "another protocol": ({"protocol": "best"}, "at protocol: invalid enum value 'best'"),
}


@pytest.mark.usefixtures("checked_types")
@pytest.mark.parametrize("what", METADATA)
def test_onnx_metadata_of_another_shape_are_a_sentence(refused, photographs, tmp_path, what):
    pytest.importorskip("onnxruntime")
    change, sentence = METADATA[what]
    (tmp_path / "net.onnx").write_bytes(tiny(FACTS | change).SerializeToString())
    assert sentence.format("onnx") in refused("predict", "net.onnx", photographs / "test")


@pytest.mark.usefixtures("checked_types")
def test_openvino_metadata_of_another_shape_are_a_sentence(refused, photographs, tmp_path):
    openvino = pytest.importorskip("openvino")
    for change, sentence in (
        ({"crop": 10**12}, "at crop: expected int <= 4096"),
        ({"classes": ["a", "b", "c"]}, "names 3 classes, and gives scores (2,)"),
        ({"classes": "ab"}, "at classes: expected array, got str"),
        (None, "nested more than 64 deep"),
    ):
        model = openvino.Core().read_model(tiny({}).SerializeToString())
        facts = FACTS | {"crop": 4, "classes": ["ant", "bee"]}
        model.set_rt_info(DEEP if change is None else json.dumps(facts | change), "deepres")
        openvino.save_model(model, tmp_path / "net.xml", compress_to_fp16=False)
        assert sentence in refused("predict", "net.xml", photographs / "test")


@pytest.mark.usefixtures("checked_types")
def test_scores_of_another_shape_are_a_sentence(refused, tmp_path):
    facts = {"network": "a", "weights": "a", "protocol": "single"}
    member = score_table.Member(facts, torch.full((2, 2), 0.5))
    table = score_table.ScoreTable("photos", ("x", "y"), torch.zeros(2).long(), ("a", "b"), (member,))
    score_table.write_scores(tmp_path / "s.json", table)
    assert score_table.read_scores(tmp_path / "s.json").members[0].facts == facts
    record = json.loads((tmp_path / "s.json").read_text())
    texts = {DEEP: "s.json", json.dumps([record]): "s.json"}
    for change in ({"names": None}, {"classes": [1, 2]}, {"members": [{"network": "a"}]}, {"data": 5}):
        texts[json.dumps(record | {score_table.HEADER: record[score_table.HEADER] | change})] = "s.json is damaged"
    texts[json.dumps(record | {"scores.0": [[1, 2], ["x"]]})] = "s.json is damaged"
    texts[json.dumps(record | {"labels": [10**30, 0]})] = "s.json is damaged"
    for text, sentence in texts.items():
        (tmp_path / "s.json").write_text(text)
        assert sentence in refused("eval", "s.json")


@pytest.mark.usefixtures("checked_types")
@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (DEEP, "nested more than 64 deep"),
        ('{"info": ', "cannot be read (no JSON"),
        ('{"info": {"features": {"label": {"names": [1]}}}}', "at [0]: expected str, got int"),
        ('{"info": {"features": {"label": {"names": ["\\ud800"]}}}}', "holds half a character"),
        ('{"info": []}', None),
    ],
)
def test_parquet_metadata_of_another_shape_are_a_sentence(deepres, tmp_path, text, sentence):
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    rows = [{"bytes": buffer.getvalue()}] * 10
    table = pa.table({"image": rows, "label": pa.array([0, 1] * 5)}).replace_schema_metadata({"huggingface": text})
    (tmp_path / "set").mkdir()
    pq.write_table(table, tmp_path / "set/train.parquet")
    result = deepres("data", "info", "set")
    assert "Traceback" not in result.stderr
    assert (result.returncode, sentence in result.stderr if sentence else True) == (2 if sentence else 0, True)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w.caffemodel", "w.json"])
def test_a_pipe_for_weights_or_scores_is_a_sentence_in_every_verb(refused, folder, tmp_path, name):
    os.mkfifo(tmp_path / name)
    for command in (
        ("eval", name, "--data", folder),
        ("eval", name),
        ("predict", name, folder),
        ("convert", name, "--to", "out.safetensors"),
        ("finetune", name, "--data", folder, "--run", "run"),
    ):
        assert "a named pipe" in refused(*command)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
@pytest.mark.parametrize("name", ["net.onnx", "net.xml", "net.bin"])
def test_a_pipe_for_an_exported_file_is_a_sentence(refused, photographs, tmp_path, name):
    for file in ("net.xml", "net.bin"):
        (tmp_path / file).touch()
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    asked = name.replace("bin", "xml")
    assert f"{name} is a named pipe, not a file" in refused("predict", asked, photographs / "test")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
@pytest.mark.parametrize("name", ["w.safetensors", "s.csv"])
def test_a_pipe_is_not_replaced_by_what_is_written(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(OSError, match="a named pipe, not a file"), replacing(tmp_path / name):
        pass
    assert [file.name for file in tmp_path.iterdir()] == [name] and not (tmp_path / name).is_file()


def test_what_is_half_written_in_a_shared_folder_is_swept_after_a_day_alone(tmp_path):
    import time

    for name, age in (("old", 2 * DAY), ("new", 60)):
        file = tmp_path / f".{name}.safetensors.{4**11}.partial"
        file.write_text("half")
        os.utime(file, (time.time() - age,) * 2)
    (tmp_path / ".theirs.partial").write_text("of another program")
    sweep(tmp_path, DAY)
    assert sorted(file.name for file in tmp_path.iterdir()) == [f".new.safetensors.{4**11}.partial", ".theirs.partial"]


def test_what_dead_processes_left_of_exports_is_swept_and_a_number_of_no_process_is_one(tmp_path):
    import time

    from deepres.serving.staging import staging

    left = [f".net.xml.{number}.partial" for number in (4**11, 10**20)] + [".other.xml.4194304.partial"]
    for name in (*left, ".theirs.txt.4194304.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "net.bin").touch()
        os.utime(tmp_path / name, (time.time() - 2 * DAY,) * 2)
    with staging(tmp_path / "net.xml") as place:
        place.write_text("new")
    assert sorted(file.name for file in tmp_path.iterdir()) == [".theirs.txt.4194304.partial", "net.xml"]
    assert (tmp_path / "net.xml").read_text() == "new"
