import copy
import importlib
import os
import sys

import pytest
import torch
import torch._inductor.config as inductor
from torch import nn
from torch._inductor.utils import run_and_get_code
from torch.nn import functional as F

from deepres.acceleration.folded import folded
from deepres.acceleration.on_kernels import accelerate
from deepres.models.blocks import ConvBN
from deepres.models.catalog import build
from deepres.runtime import processor
from deepres.runtime.errors import InputError
from deepres.serving import onnx, openvino, pytorch
from deepres.serving.agreement import Agreement, agreement
from deepres.serving.engine import engine
from deepres.serving.int8 import quantized

pytestmark = pytest.mark.long
CLASSES = 10


def pictures(count, size, seed=0):
    """Smooth colour fields with grain: like photographs, near pixels are alike."""
    random = torch.Generator().manual_seed(seed)
    fields = torch.randn(count, 3, 4, 4, generator=random)
    smooth = F.interpolate(fields, size=(size, size), mode="bilinear")
    return smooth + 0.1 * torch.randn(count, 3, size, size, generator=random)


def warmed(name, size):
    """The net `name` in evaluation mode, with the statistics of pictures in its BN and parameters of BN not 1 and 0."""
    torch.manual_seed(0)
    net = build(name, CLASSES)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
            layer.momentum = None  # the plain average of all batches
    with torch.no_grad():
        for seed in range(3):
            net(pictures(16, size, seed))
    return net.eval()


def largest(scores):
    return float(scores.abs().max())


@torch.no_grad()
def scores_of(net, images):
    return net(images)


@pytest.fixture(scope="module")
def resnet20():
    return warmed("resnet20", 32)


@pytest.fixture
def silent(capfd):
    """Nothing may be printed, logged or warned of in the test that takes this."""
    yield
    assert capfd.readouterr() == ("", "")


FAMILIES = [
    *((name, 32) for name in ("plain20", "resnet20", "resnet20-b", "resnet20-c", "highway19", "resnet18-32px")),
    *((name, 64) for name in ("plain18", "resnet18-a", "resnet18", "resnet50")),
]


@pytest.mark.parametrize(("name", "size"), FAMILIES)
def test_a_folded_net_has_no_batch_norm_and_the_same_scores(name, size):
    net = warmed(name, size).double()  # so that what differs is not the rounding of fifty layers
    images = pictures(3, size, seed=9).double()
    expected = scores_of(net, images)
    plain = folded(net)
    accelerate(net)
    for fast in (plain, folded(net)):
        assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
        assert largest(scores_of(fast, images) - expected) <= 1e-11 * largest(expected)


def test_folding_leaves_the_net_as_it_is():
    net = build("resnet8").train()
    before = copy.deepcopy(net.state_dict())
    folded(net)
    assert net.training and all(parameter.requires_grad for parameter in net.parameters())
    assert before.keys() == net.state_dict().keys()
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize(
    ("name", "network", "size"),
    [
        ("eager", "resnet20", 32),
        ("eager", "resnet18", 64),
        ("onnxruntime", "resnet8", 32),
        ("openvino", "resnet18", 64),
    ],
)
def test_an_engine_gives_the_scores_of_the_net_for_any_number_of_images(silent, name, network, size):
    net = warmed(network, size)
    made = engine(net, pictures(2, size), name)
    assert (made.name, made.precision) == (name, "fp32")
    for count in (2, 1, 5):
        images = pictures(count, size, seed=9)
        expected = scores_of(net, images)
        for layout in (torch.contiguous_format, torch.channels_last):
            found = made.scores(images.to(memory_format=layout))
            assert found.shape == (count, CLASSES) and found.dtype == torch.float32
            assert largest(found - expected) <= 1e-5 * largest(expected)


def test_the_compiled_engine_gives_the_scores_of_the_net_for_any_number_of_images():
    net = warmed("plain8", 32)
    made = engine(net, pictures(2, 32), "compile")
    for count in (2, 5):
        images = pictures(count, 32, seed=9)
        expected = scores_of(net, images)
        assert largest(made.scores(images) - expected) <= 1e-5 * largest(expected)


def test_the_compiled_engine_has_bf16():
    net = nn.Sequential(ConvBN(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 8 * 8, CLASSES)).eval()
    images = pictures(2, 8, seed=9)
    made = engine(net, images, "compile", "bf16", say=lambda message: None)
    expected = scores_of(net, images)
    assert 0 < largest(made.scores(images) - expected) <= 2e-2 * largest(expected)


def test_a_compiled_net_holds_its_weights_as_constants():
    net = nn.Sequential(nn.Conv2d(3, 4, 3)).eval().requires_grad_(False)
    _, (code,) = run_and_get_code(pytorch.compiled, net, "fp32", torch.randn(2, 3, 8, 8))
    assert "_frozen_param" in code


def test_one_compiled_net_does_not_count_against_the_next():
    images = torch.randn(2, 3, 8, 8)
    with torch._dynamo.config.patch(recompile_limit=1, fail_on_recompile_limit_hit=True):
        for channels in (2, 3):
            net = nn.Sequential(nn.Conv2d(3, channels, 3)).eval().requires_grad_(False)
            run = pytorch.compiled(net, "fp32", images)
            with torch.inference_mode():
                torch.testing.assert_close(run(images)["scores"], net(images))


def test_bf16_changes_the_scores_a_little_and_is_said_where_it_is_emulated(resnet20, monkeypatch):
    said = []
    monkeypatch.setenv("DEEPRES_BF16", "0")
    made = engine(resnet20, pictures(2, 32), "eager", "bf16", say=said.append)
    assert made.precision == "bf16" and len(said) == 1 and "bf16" in said[0]
    images = pictures(64, 32, seed=9)
    found = agreement(made, resnet20, [images])
    assert 0 < found.change <= 2e-2
    assert found.same >= 0.9


@pytest.fixture(scope="module")
def resnet8():
    return warmed("resnet8", 32)


@pytest.fixture(scope="module")
def int8_model(resnet8):
    return quantized(onnx.exported(folded(resnet8), pictures(2, 32)), pictures(64, 32, seed=1).split(16))


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_int8_keeps_the_best_class_of_most_images(resnet8, int8_model, name):
    example = pictures(2, 32)
    run = {
        "onnxruntime": lambda: onnx.onnxruntime_opened(int8_model)[0],
        "openvino": lambda: openvino.openvino_runner(int8_model, "int8", example),
    }[name]()
    found = agreement(run, resnet8, [pictures(128, 32, seed=9)])
    assert 0 < found.change <= 0.2
    assert found.same >= 0.85


def test_int8_refuses_to_take_ranges_from_no_images():
    with pytest.raises(InputError, match="`calibrate` holds none"):
        quantized(b"", [])


def test_agreement_is_the_largest_change_by_the_largest_score_and_the_share_of_equal_classes():
    """Over all batches: the largest score is here in one, the largest change in the other."""
    net = nn.Sequential(nn.Flatten(), nn.Identity()).train()
    images = torch.tensor([[1.0, 0.0], [4.0, 1.0], [0.0, 3.0], [0.0, 2.0]]).reshape(4, 2, 1, 1)
    found = agreement(
        lambda images: {"scores": torch.tensor([[1.5, 0.0]]).expand(len(images), 2)}, net, images.split(2)
    )
    assert found == Agreement(images=4, change=0.75, same=0.5)
    assert net.training


def test_auto_takes_one_of_the_engines_that_can_be_had(silent, resnet8):
    said = []
    made = engine(resnet8, pictures(2, 32), precision="int8", calibrate=iter([pictures(16, 32)]), say=said.append)
    assert made.name in ("onnxruntime", "openvino") and made.precision == "int8"
    assert len(said) == 1 and all(f"{name} " in said[0] for name in ("onnxruntime", "openvino"))
    assert 0 < agreement(made, resnet8, [pictures(16, 32)]).change <= 0.2


def test_auto_says_what_is_missing_and_goes_on_without(resnet20, monkeypatch, tmp_path):
    said = []
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    with inductor.patch({"cpp.cxx": (None, "no-such-compiler")}):
        made = engine(warmed("plain8", 24), pictures(2, 24), say=said.append)
    assert made.name == "eager"
    *missing, fastest = said
    assert fastest.startswith("the fastest") and "eager" in fastest
    for sentence, part in zip(missing, ("C++ compiler", "onnxruntime", "openvino"), strict=True):
        assert part in sentence and "\n" not in sentence
    assert all("pip install -e '.[serve]'" in sentence for sentence in missing[1:])


@pytest.mark.parametrize(
    ("name", "package"),
    [("onnxruntime", "onnx"), ("onnxruntime", "onnxscript"), ("onnxruntime", "onnxruntime"), ("openvino", "openvino")],
)
def test_a_named_engine_without_its_package_is_refused(resnet20, monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"{name} needs the package {package}: pip install -e '.\[serve\]'"):
        engine(resnet20, pictures(2, 32), name)


def test_int8_needs_onnxruntime_whoever_runs_it(resnet20, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match="openvino needs the package onnxruntime"):
        engine(resnet20, pictures(2, 32), "openvino", "int8", [pictures(2, 32)])
    with pytest.raises(InputError, match="no engine for int8"):
        engine(resnet20, pictures(2, 32), "auto", "int8", [pictures(2, 32)], say=lambda message: None)


def test_openvino_is_refused_in_bf16_where_it_would_take_fp32_without_a_word(resnet20):
    capabilities = importlib.import_module("openvino").Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if "BF16" in capabilities and processor.multiplies_bf16():
        if "ONEDNN_MAX_CPU_ISA" in os.environ:
            pytest.skip("OpenVINO asks the processor for bf16, and not its oneDNN, which is held to less here")
        assert engine(resnet20, pictures(2, 32), "openvino", "bf16").precision == "bf16"
    else:
        with pytest.raises(InputError, match="openvino has no bf16 on this processor"):
            engine(resnet20, pictures(2, 32), "openvino", "bf16", say=lambda message: None)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("tvm",), "unknown engine 'tvm'; give one of auto, eager, compile, onnxruntime, tensorrt, openvino"),
        (("auto", "fp8"), "unknown precision 'fp8'; give one of fp32, bf16, fp16, int8"),
        (("auto", "fp16"), "no engine for fp16 can be had on cpu here"),
        (("eager", "fp16"), "eager has no fp16; give one of fp32, bf16"),
        (("tensorrt", "fp16"), "tensorrt does not run on cpu; give --device cuda"),
        (("eager", "int8", [torch.zeros(1, 3, 32, 32)]), "eager has no int8; give one of fp32, bf16"),
        (("onnxruntime", "int8"), "int8 takes its ranges from images"),
        (("onnxruntime", "bf16"), "onnxruntime has no bf16; give one of fp32, int8"),
    ],
)
def test_what_cannot_be_had_is_refused_in_one_sentence(resnet20, arguments, sentence):
    with pytest.raises(InputError) as refusal:
        engine(resnet20, torch.zeros(2, 3, 32, 32), *arguments, say=lambda message: None)
    assert sentence in str(refusal.value)


@pytest.mark.parametrize("shape", [(3, 32, 32), (0, 3, 32, 32), (2, 1, 32, 32), (2, 3, 24, 24)])
def test_an_engine_refuses_images_of_another_shape(resnet20, shape):
    made = engine(resnet20, pictures(2, 32), "eager")
    with pytest.raises(InputError, match=r"float32 images \(N, 3, 32, 32\)"):
        made(torch.zeros(shape))
    with pytest.raises(InputError, match=r"float32 images \(N, 3, 32, 32\), not torch.uint8"):
        made(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("features", "overflow"),
    [
        ({"architecture": "x86_64", "avx2": True}, True),
        ({"architecture": "x86_64", "avx512_vnni": True}, False),
        ({"architecture": "x86_64", "avx_vnni": True}, False),
        ({"architecture": "aarch64"}, False),
    ],
)
def test_weights_keep_to_seven_bits_where_sums_of_int8_products_overflow(monkeypatch, features, overflow):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)
    assert processor.int8_sums_overflow() is overflow
