"""The forward pass as CUDA graphs: its shapes, padding and limits, by the same steps on a processor without a graph."""

import copy

import pytest
import torch
from torch import nn

from deepres.acceleration import evaluation
from deepres.acceleration.captured_forward import CapturedForward, padded
from deepres.acceleration.evaluation import EvaluationForm, refold
from deepres.acceleration.folded import folded
from deepres.acceleration.on_cudnn import CudnnBlock, on_cudnn
from deepres.classification.scorer import gpu_scores
from deepres.models.blocks import ConvBN
from deepres.models.convolutional import fully_convolutional
from deepres.serving import gpu
from networks import settled


class Counting(nn.Module):
    """Sums of the images, which remembers the shapes that it was run on."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def forward(self, images):
        self.shapes.append(tuple(images.shape))
        return images.flatten(1).sum(1)


@pytest.mark.parametrize(
    ("usual", "sizes"),
    [
        (0, {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 6, 7: 8, 9: 12, 13: 16, 17: 24, 128: 128, 129: 192, 500: 512}),
        (10, {1: 1, 5: 6, 7: 8, 8: 8, 9: 10, 10: 10, 11: 12}),
        (500, {385: 500, 384: 384, 500: 500, 501: 512}),
    ],
)
def test_a_batch_is_padded_by_less_than_a_half_and_never_beyond_the_usual_one(usual, sizes):
    assert {count: padded(count, usual) for count in sizes} == sizes
    assert all(count <= padded(count, usual) < 1.5 * count for count in range(1, 2000))


def test_a_shape_is_captured_when_it_comes_again_and_its_batches_are_padded():
    net = Counting()
    forward = CapturedForward(net)
    for count in (10, 10, 9, 7, 7):
        images = torch.randn(count, 3, 4, 4)
        assert forward(images).equal(images.flatten(1).sum(1))
    # Plainly as it is, for the capture and to replay it; 9 images as 10; 7 plainly, and as 8.
    assert net.shapes == [(10, 3, 4, 4), *[(10, 3, 4, 4)] * 3, (7, 3, 4, 4), *[(8, 3, 4, 4)] * 2]
    assert list(forward.graphs) == [(10, 3, 4, 4), (8, 3, 4, 4)]


def test_a_graph_of_inference_mode_runs_outside_of_it_as_well():
    forward = CapturedForward(Counting(), benchmark=True)
    images = torch.randn(2, 1, 2, 2)
    with torch.inference_mode():
        forward(images)
    assert forward(images).equal(images.flatten(1).sum(1))
    assert not forward.training and not forward.net.training


def test_outputs_are_kept_when_the_next_batch_comes():
    forward = CapturedForward(Counting(), benchmark=True)
    first, second = torch.randn(2, 1, 2, 2), torch.randn(2, 1, 2, 2)
    found = forward(first)
    forward(second)
    assert found.equal(first.flatten(1).sum(1))


def test_beyond_the_most_shapes_the_rest_runs_plainly():
    net = Counting()
    forward = CapturedForward(net, most=2)
    for _ in range(3):
        for side in (4, 5, 6, 7):
            images = torch.randn(5, 1, side, side)
            assert forward(images).equal(images.flatten(1).sum(1))
    assert list(forward.graphs) == [(5, 1, 4, 4), (5, 1, 5, 5)]
    assert net.shapes.count((5, 1, 7, 7)) == 3


def test_with_a_benchmark_a_shape_is_captured_at_once_and_cudnn_is_left_as_it_was():
    forward = CapturedForward(Counting(), benchmark=True)
    forward(torch.randn(3, 1, 4, 4))
    assert list(forward.graphs) == [(3, 1, 4, 4)]
    assert not torch.backends.cudnn.benchmark


@pytest.mark.parametrize("name", ["resnet8", "plain8", "resnet8-b", "highway7", "resnet18-32px", "resnet50"])
def test_fused_blocks_have_the_scores_of_the_net(name):
    net = settled(name)
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        expected = net(images)
        made = on_cudnn(folded(net))
        torch.testing.assert_close(made(images), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert any(isinstance(module, CudnnBlock) for module in made.modules()) or name == "highway7"


@pytest.mark.parametrize(("precision", "most"), [("fp32", 1e-5), ("bf16", 3e-2), ("fp16", 5e-3)])
def test_the_form_of_a_gpu_gives_float32_scores_in_each_precision(precision, most):
    net = settled("resnet8")
    run = gpu.captured(folded(net), precision)
    for _ in range(2):
        images = torch.randn(5, 3, 32, 32)
        with torch.no_grad():
            expected = net(images)
        found = run(images)["scores"]
        assert found.dtype == torch.float32 and len(found) == 5
        assert float((found - expected).abs().max()) <= most * float(expected.abs().max())
        assert precision == "fp32" or not found.to(torch.bfloat16).float().equal(found)


def test_the_dense_form_runs_captured_on_views_of_any_size():
    net = settled("resnet8")
    dense = fully_convolutional(net, 32)
    scores = gpu_scores(dense, "fp32")
    for side in (32, 40, 32, 40, 32):
        images = torch.randn(2, 3, side, side + 8)
        with torch.no_grad():
            torch.testing.assert_close(scores(images), dense(images), rtol=1e-4, atol=1e-4)


def test_a_folded_copy_is_brought_up_to_date_in_place():
    net, later = settled("resnet8-b"), settled("resnet8-b")
    for parameter in later.parameters():
        parameter.data.mul_(1.25)
    fast = folded(net)
    places = {name: value.data_ptr() for name, value in fast.state_dict().items()}
    refold(later, fast)
    assert {name: value.data_ptr() for name, value in fast.state_dict().items()} == places
    for name, value in folded(later).state_dict().items():
        assert value.equal(fast.state_dict()[name]), name


def test_the_form_of_a_training_run_is_kept_and_follows_the_weights(monkeypatch):
    """As on a GPU, without the graphs."""
    monkeypatch.setattr(evaluation, "CAPTURES", ("cpu",))
    net, form = settled("resnet8"), EvaluationForm()
    images = torch.randn(4, 3, 32, 32)
    kept = form.of(net)
    for _ in range(3):
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
            expected = net(images)
        assert form.of(net) is kept
        torch.testing.assert_close(kept(images), expected, rtol=1e-4, atol=1e-4)
    assert form.of(copy.deepcopy(net)) is not kept


def test_on_a_processor_the_form_is_the_folded_net():
    net = settled("resnet8")
    made = EvaluationForm().of(net)
    assert type(made) is type(net) and not any(isinstance(layer, nn.BatchNorm2d) for layer in made.modules())
    assert any(isinstance(layer, ConvBN) for layer in made.modules())
