"""Inference on a GPU: the captured forward pass has the scores of the plain network."""

import json

import pytest
import torch
from torch.nn import functional as F

from deepres.acceleration.evaluation import EvaluationForm
from deepres.acceleration.folded import folded
from deepres.classification.accuracy import score
from deepres.classification.scorer import Execution, scorer
from deepres.classification.views import Protocol
from deepres.data.sources import load_data_set
from deepres.models.catalog import build
from deepres.models.convolutional import fully_convolutional
from deepres.runtime.device import resolve_device
from deepres.runtime.errors import InputError
from deepres.serving import gpu
from deepres.serving.engine import engine
from deepres.weights.file import serialise
from networks import settled, warmed

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]
NETS = [("resnet20", 32), ("resnet20-b", 32), ("plain20", 32), ("highway19", 32), ("resnet50", 64), ("resnet34", 64)]
MOST = {"fp32": 1e-4, "bf16": 3e-2, "fp16": 5e-3}  # change of a score relative to the largest


@pytest.fixture(autouse=True)
def exact():
    """fp32 is fp32, as wherever a verb has chosen the device."""
    resolve_device("cuda")


def change(found, expected):
    return float((found.cpu() - expected.cpu()).abs().max() / expected.abs().max())


def ready(name, size):
    """The net on the GPU, images there, and its scores by the processor."""
    net, images = settled(name), torch.rand(7, 3, size, size) - 0.5
    with torch.no_grad():
        expected = net(images)
    return net.cuda(), images.cuda(), expected


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize(("name", "size"), NETS)
def test_captured_scores_are_those_of_the_processor(name, size, precision):
    net, images, expected = ready(name, size)
    run = gpu.captured(folded(net), precision)
    for count in (7, 7, 7, 2, 2, 2):
        found = run(images[:count])["scores"]
        assert found.is_cuda and found.dtype == torch.float32
        assert change(found, expected[:count]) <= MOST[precision]
    assert len(run.graphs) == 2


def test_other_batches_do_not_move_the_scores_of_an_image_beyond_rounding():
    net, images, expected = ready("resnet20", 32)
    run = gpu.captured(folded(net), "fp32")
    run(images)
    run(1e3 * images)  # stays behind the images of the next batch
    assert change(run(images[:5])["scores"], expected[:5]) <= MOST["fp32"]


def test_views_of_many_sizes_are_scored_by_graphs_and_plainly():
    net = warmed("resnet18", 64, 10).cuda()
    dense = fully_convolutional(net, 64)
    run = gpu.captured(folded(dense), "fp32")
    run.most = 2
    for _ in range(3):
        for side in (64, 96, 128):
            images = torch.rand(2, 3, side, side + 32, device="cuda") - 0.5
            with torch.no_grad():
                assert change(run(images)["scores"], dense(images)) <= MOST["fp32"]
    assert len(run.graphs) == 2


def test_the_form_of_a_training_run_follows_weights_and_statistics():
    net, form = build("resnet20", 10).cuda(), EvaluationForm()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    images, labels = torch.rand(64, 3, 32, 32, device="cuda") - 0.5, torch.randint(0, 10, (64,), device="cuda")
    for _ in range(4):
        net.train()
        F.cross_entropy(net(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        expected = score(net, [(images, labels)] * 3).scores
        assert change(score(form.of(net), [(images, labels)] * 3).scores, expected) <= MOST["fp32"]
        assert net.training


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_an_engine_takes_images_on_the_gpu_and_on_the_processor(precision):
    net, images, expected = ready("resnet20", 32)
    made = engine(net, images[:4], "eager", precision)
    assert made.device == "cuda"
    for place in (images, images.cpu(), images.cpu().pin_memory()):
        for count in (4, 1, 7):
            found = made.scores(place[:count])
            assert found.device == place.device and found.dtype == torch.float32
            assert change(found, expected[:count]) <= MOST[precision]


@pytest.mark.long
def test_the_compiled_engine_pads_and_divides_batches():
    net, images, expected = ready("resnet20", 32)
    made = engine(net, images[:4], "compile", "fp16", say=lambda message: None)
    for count in (4, 1, 7):
        assert change(made.scores(images[:count]), expected[:count]) <= MOST["fp16"]


def test_auto_times_what_runs_here_and_says_what_does_not(monkeypatch):
    from deepres.serving import engine as serving

    monkeypatch.setitem(serving.KINDS, "compile", serving.KINDS["eager"])  # it takes a minute
    said = []
    net, images, expected = ready("resnet20", 32)
    made = engine(net, images, "auto", "fp16", say=said.append)
    assert said[-1].startswith("the fastest for a batch of 7 in fp16") and "eager" in said[-1]
    assert change(made.scores(images), expected) <= MOST["fp16"]
    with pytest.raises(InputError, match="eager has no int8 on cuda"):
        engine(net, images, "eager", "int8", [images])


@pytest.mark.parametrize("protocol", ["center", "10-crop", "dense"])
def test_the_protocols_have_the_scores_of_the_processor(protocol):
    net = warmed("resnet18", 64, 10)
    net.mean, net.header = torch.full((3, 64, 64), 0.5), {"crop": 64, "num_classes": 10}
    random = torch.Generator().manual_seed(0)
    images = [
        torch.randint(0, 256, (3, 80 + 16 * place, 100), dtype=torch.uint8, generator=random) for place in range(3)
    ]
    how = Protocol(protocol)
    expected = scorer(net, how, Execution(device="cpu"))(images)
    on_gpu = scorer(net, how, Execution(device="cuda"))
    for _ in range(3):  # plainly, captured, replayed
        assert float((on_gpu(images) - expected).abs().max()) <= 1e-4


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_eval_and_predict_by_the_command_line(deepres, photographs, tmp_path, precision):
    data = load_data_set(str(photographs), image_size=32)
    header = {"network": "resnet18", "classes": ("dark", "light"), "crop": 32}
    (tmp_path / "net.safetensors").write_bytes(serialise(warmed("resnet18", 32, 2).state_dict(), data.mean(), header))
    how = ("net.safetensors", "--data", photographs, "--json")
    reports = []
    for more in (("--device", "cuda", "--precision", precision), ("--device", "cpu")):
        result = deepres("eval", *how, *more)
        assert result.returncode == 0, result.stderr
        reports.append(json.loads(result.stdout))
    assert reports[0]["device"] == "cuda" and reports[0]["precision"] == precision
    assert reports[0]["top1_error"] == pytest.approx(reports[1]["top1_error"], abs=0 if precision == "fp32" else 20)
    result = deepres("predict", "net.safetensors", photographs / "test", "--device", "cuda", "--format", "csv")
    assert result.returncode == 0 and len(result.stdout.splitlines()) == 1 + 2 * 10
