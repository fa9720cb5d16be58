"""Networks as ONNX: every family that others export, and what PyTorch has no ONNX for."""

import pytest
import torch
from torch import nn

from deepres.acceleration.folded import folded
from deepres.runtime.errors import InputError
from deepres.serving import engine as serving
from deepres.serving import onnx
from deepres.serving.engine import engine
from deepres.serving.export import Inputs, export
from networks import assert_same_scores, made, on_meta

pytestmark = pytest.mark.long

IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def packages():
    for package in ("onnxscript", "onnxruntime"):
        pytest.importorskip(package)


def prelu_net():
    """Its own layers and pyramid, but fully connected layers of 8 values, not 4096: half a gigabyte less to write."""
    torch.manual_seed(0)
    net = on_meta("prelu-net", 5)
    net.fc1[0], net.fc1[1] = nn.Linear(net.fc1[0].in_features, 8, device="meta"), nn.PReLU(8, device="meta")
    net.fc2[0], net.fc2[1] = nn.Linear(8, 8, device="meta"), nn.PReLU(8, device="meta")
    net.fc3 = nn.Linear(8, 5, device="meta")
    net.to_empty(device="cpu")
    for value in net.state_dict().values():
        value.uniform_(-1, 1).mul_((6 / value[0].numel()) ** 0.5 if value.dim() > 1 else 0.3)
    return net.eval()


@pytest.mark.parametrize("name", ["prelu-net", "googlenet", "highway8"])
def test_the_onnx_of_a_network_gives_its_scores_for_any_number_of_images(name):
    net = prelu_net() if name == "prelu-net" else made(name)
    run, _ = onnx.onnxruntime_opened(onnx.exported(folded(net), IMAGES[:2]))
    with torch.no_grad():
        expected = net(IMAGES)
    for count in (1, 3):
        assert_same_scores(run(IMAGES[:count])["scores"], expected[:count])


class Unknown(nn.Sequential):
    """Bins of the largest values that do not divide the map, which ONNX does not have."""

    def __init__(self):
        super().__init__(nn.Conv2d(3, 4, 3), nn.AdaptiveMaxPool2d(7), nn.Flatten())


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_what_has_no_onnx_is_refused_in_one_sentence(name):
    pytest.importorskip(name)
    with pytest.raises(InputError, match=r"adaptive_max_pool2d.*or the engine eager") as refusal:
        engine(Unknown(), IMAGES, name)
    assert "\n" not in str(refusal.value)


def test_an_onnxscript_older_than_pytorch_is_said_in_one_sentence(monkeypatch):
    def export(*inputs, **how):
        raise ModuleNotFoundError("No module named 'onnxscript._framework_apis.torch_9_0'")

    monkeypatch.setattr(torch.onnx, "export", export)
    with pytest.raises(InputError, match=r"onnxscript is too old .*torch_9_0.*install a newer one"):
        engine(nn.Sequential(nn.Flatten(), nn.Linear(3072, 2)), IMAGES, "onnxruntime")


def test_no_file_is_left_of_what_has_no_onnx(tmp_path):
    with pytest.raises(InputError, match="give --format torch-export"):
        export(Unknown(), tmp_path / "net.onnx", "onnx", Inputs([IMAGES]), {})
    assert not list(tmp_path.iterdir())


def test_auto_passes_over_the_engines_that_need_onnx(monkeypatch):
    monkeypatch.setitem(serving.KINDS, "compile", serving.KINDS["eager"])  # it takes half a minute
    said = []
    assert engine(Unknown(), IMAGES, say=said.append).name in ("eager", "compile")
    assert [sentence for sentence in said if "adaptive_max_pool2d" in sentence and "passed over" in sentence]
