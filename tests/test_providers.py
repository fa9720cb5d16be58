"""ONNX Runtime on a GPU: what can be tested without one is the choice of its providers, and tensors bound in place."""

import sys

import pytest
import torch

from deepres.acceleration.folded import folded
from deepres.runtime.errors import InputError
from deepres.serving import engine as serving
from deepres.serving import file_network, onnx
from deepres.serving.export import Inputs, export
from deepres.serving.file_network import open_file
from deepres.serving.pytorch import InPrecision
from networks import warmed

ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def resnet8():
    return warmed("resnet8", 32, 2)


@pytest.fixture(scope="module")
def model(resnet8):
    return onnx.exported(folded(resnet8), torch.zeros(2, 3, 32, 32))


@pytest.fixture
def installed(monkeypatch):
    """Sets the providers of the ONNX Runtime that seems to be installed."""

    def install(*names):
        monkeypatch.setattr(ort, "get_available_providers", lambda: list(names))

    return install


@pytest.fixture
def on_gpu_machine(monkeypatch):
    """`auto` and `cuda` are a GPU for files."""
    chosen = {"auto": "cuda", "cuda": "cuda", "cpu": "cpu"}
    monkeypatch.setattr(file_network, "resolve_device", chosen.__getitem__)


@pytest.fixture(scope="module")
def files(resnet8, tmp_path_factory):
    """The network as .onnx and as .xml that take pictures."""
    place, mean = tmp_path_factory.mktemp("files"), torch.zeros(3, 32, 32)
    facts = {"network": "resnet8", "crop": 32, "classes": ["a", "b"], "precision": "fp32", "protocol": "single"}
    pictures = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    for form, ending in (("onnx", "onnx"), ("openvino", "xml")):
        inputs = Inputs([pictures], mean)
        export(resnet8, place / f"net.{ending}", form, inputs, facts | {"input": "uint8 (N, 32, 32, 3)"})
    return place


def test_cuda_comes_before_the_processor_and_computes_fp32_as_fp32():
    (first, settings), (last, _) = onnx.providers("cuda")
    assert (first, last) == ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert settings["use_tf32"] == 0


def test_tensorrt_builds_for_the_sizes_up_to_the_example_and_keeps_what_it_builds(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPRES_CACHE", str(tmp_path / "cache"))
    (first, settings), (second, _), _ = onnx.providers("tensorrt", (16, 3, 32, 32))
    assert first == "TensorrtExecutionProvider" and second == "CUDAExecutionProvider"
    assert settings["trt_profile_min_shapes"] == "images:1x3x32x32"
    assert settings["trt_profile_max_shapes"] == settings["trt_profile_opt_shapes"] == "images:16x3x32x32"
    assert settings["trt_engine_cache_path"] == str(tmp_path / "cache" / "tensorrt")
    assert (tmp_path / "cache" / "tensorrt").is_dir()


@pytest.mark.parametrize(
    ("name", "precision", "sentence"),
    [
        (
            "onnxruntime",
            "fp32",
            "CUDAExecutionProvider, which the installed one lacks: put the package onnxruntime-gpu",
        ),
        (
            "tensorrt",
            "fp16",
            "TensorrtExecutionProvider, which the installed one lacks: .*onnxruntime-gpu and TensorRT",
        ),
        ("tensorrt", "fp32", "tensorrt has no fp32 on cuda; give one of fp16, int8"),
        ("eager", "int8", "eager has no int8 on cuda; give one of fp32, bf16, fp16"),
        ("openvino", "fp32", "openvino does not run on cuda; give --device cpu"),
    ],
)
def test_what_a_gpu_cannot_have_is_refused_in_one_sentence(installed, name, precision, sentence):
    installed("CPUExecutionProvider")
    with pytest.raises(InputError, match=sentence):
        serving.require(name, precision, "cuda")


def test_what_is_installed_is_not_refused(installed):
    installed("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
    serving.require("onnxruntime", "fp16", "cuda")
    serving.require("tensorrt", "int8", "cuda")


def test_a_provider_that_does_not_start_is_told(installed, model):
    """ONNX Runtime itself would go on with the processor."""
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(InputError, match="does not start here"),
    ):
        onnx.onnxruntime_opened(model, "cuda")


def test_bound_tensors_are_read_and_written_where_they_lie(resnet8, model):
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    run = onnx.bound(session, "cpu")
    for count in (1, 5):
        images = torch.randn(count, 3, 32, 32).to(memory_format=torch.channels_last)
        with torch.no_grad():
            expected = resnet8(images)
        found = run(images)["scores"]
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_in_fp16_the_model_takes_and_gives_float32(resnet8):
    images = torch.randn(4, 3, 32, 32)
    run, _ = onnx.onnxruntime_opened(onnx.exported(InPrecision(folded(resnet8), "fp16"), images))
    with torch.no_grad():
        expected = resnet8(images)
    found = run(images)["scores"]
    assert found.dtype == torch.float32
    assert 0 < float((found - expected).abs().max()) <= 1e-2 * float(expected.abs().max())


def test_a_file_goes_to_the_processor_where_the_gpu_is_not_asked_for_by_name(installed, on_gpu_machine, files):
    installed("CPUExecutionProvider")
    for ending, reason in (("onnx", "CUDAExecutionProvider"), ("xml", "is for a processor; give --device cpu")):
        said = []
        net = open_file(files / f"net.{ending}", said.append, "auto")
        assert net.place == net.header["device"] == "cpu"
        assert len(said) == 1 and reason in said[0] and said[0].endswith("; it runs on the processor")
        assert net(torch.rand(2, 3, 32, 32)).shape == (2, 2)
        with pytest.raises(InputError, match=reason):
            open_file(files / f"net.{ending}", said.append, "cuda")
        assert open_file(files / f"net.{ending}", said.append, "cpu").place == "cpu" and len(said) == 1


def test_a_file_of_onnx_runs_on_the_gpu_where_onnxruntime_can(installed, on_gpu_machine, files, monkeypatch):
    installed("CUDAExecutionProvider", "CPUExecutionProvider")
    asked = []

    def opened(model, provider):
        asked.append(provider)
        raise InputError("opened")

    monkeypatch.setattr(onnx, "onnxruntime_opened", opened)
    for device in ("auto", "cuda", "cpu"):
        with pytest.raises(InputError, match="opened"):
            open_file(files / "net.onnx", print, device)
    assert asked == ["cuda", "cuda", "cpu"]


def test_without_onnxruntime_a_gpu_needs_it_as_well(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match="tensorrt needs the package onnxruntime"):
        serving.require("tensorrt", "fp16", "cuda")
