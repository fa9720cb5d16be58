"""The kernels with maps of bf16, x handed on to a shortcut, and evaluation on the kernels."""

import copy
import platform

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import deepres
from deepres.kernels import library as kernels
from deepres.kernels.residual import conv_bn, conv_bn_scores, conv_bn_through
from deepres.training.fast import accelerate, runs_on_kernels

CHANNELS_LAST = {"memory_format": torch.channels_last}
ROUNDING = 2**-8  # of bf16


@pytest.fixture(params=["as here", "eight lanes"])
def lanes(request, monkeypatch):
    """The vectors of this processor, and shorter ones where it has AVX-512."""
    if request.param == "eight lanes":
        if platform.machine() != "x86_64" or not torch.cpu.get_capabilities()["avx512_f"]:
            pytest.skip("the vectors here have eight lanes as they are")
        monkeypatch.setattr(kernels, "FLAGS", (*kernels.FLAGS, "-mno-avx512f"))
        kernels.library.cache_clear()
        yield
        kernels.library.cache_clear()
    else:
        yield


def layer(into, out, kernel, stride):
    """A convolution and a normalization with values of their own, as bf16 holds them."""
    torch.manual_seed(into + out + kernel + stride)
    conv = nn.Conv2d(into, out, kernel, stride, kernel // 2, bias=False).to(**CHANNELS_LAST)
    conv.weight.data = conv.weight.data.bfloat16().float()
    bn = nn.BatchNorm2d(out)
    nn.init.normal_(bn.weight, 1, 0.2)
    nn.init.normal_(bn.bias, 0, 0.2)
    return conv, bn


def maps(*shape):
    return torch.randn(shape).bfloat16().contiguous(**CHANNELS_LAST)


@pytest.mark.usefixtures("lanes")
@pytest.mark.parametrize("adds", [True, False])
@pytest.mark.parametrize(
    ("into", "out", "kernel", "stride", "side"),
    [
        (16, 16, 3, 1, 32),
        (64, 64, 3, 1, 8),
        (16, 32, 3, 2, 12),
        (3, 16, 3, 1, 9),
        (256, 256, 3, 1, 5),
        (64, 32, 1, 2, 8),
    ],
)
def test_maps_of_bf16_give_what_double_precision_gives_but_for_their_rounding(into, out, kernel, stride, side, adds):
    """Results, gradients and running statistics to the rounding of bf16, in norm; statistics stay in fp32."""
    conv, bn = layer(into, out, kernel, stride)
    exact = [copy.deepcopy(module).double() for module in (conv, bn)]
    x = maps(5, into, side, side)
    dy, added = (maps(*conv(x.float()).shape) for _ in range(2))
    inputs, doubles = [x.clone().requires_grad_()], [x.double().requires_grad_()]
    if adds:
        inputs.append(added.clone().requires_grad_())
        doubles.append(added.double().requires_grad_())
    with torch.autocast("cpu", torch.bfloat16):
        ours = conv_bn(conv, bn, *inputs)
    ours.backward(dy)
    theirs = exact[1](exact[0](doubles[0]))
    theirs = theirs + doubles[1] if adds else theirs
    theirs.backward(dy.double())
    assert ours.dtype == x.dtype and conv.weight.grad.dtype == torch.float32
    found = [(ours, theirs), (bn.running_mean, exact[1].running_mean), (bn.running_var, exact[1].running_var)]
    leaves = zip(
        [conv.weight, *bn.parameters(), *inputs], [exact[0].weight, *exact[1].parameters(), *doubles], strict=True
    )
    for mine, other in [*found, *((leaf.grad, twin.grad) for leaf, twin in leaves)]:
        assert (mine - other).norm() <= 2 * ROUNDING * other.norm()


@pytest.mark.usefixtures("lanes")
def test_bf16_is_rounded_to_the_nearest_and_ties_to_even():
    """As PyTorch rounds, for values of all sizes, infinities and NaN."""
    values = torch.randn(64, 16, 4, 4) * 10.0 ** torch.randint(-30, 30, (64, 16, 4, 4))
    values[0, 0, 0] = torch.tensor([float("inf"), -float("inf"), 1 + 2**-8, 1 + 3 * 2**-8])
    values[1, 3, 1, 2] = float("nan")
    conv, bn = nn.Conv2d(16, 16, 1, bias=False), nn.BatchNorm2d(16, eps=0).eval()
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(bn.bias)
    nothing = torch.zeros(64, 16, 4, 4).bfloat16().contiguous(**CHANNELS_LAST)
    rounded = values.bfloat16().contiguous(**CHANNELS_LAST)
    ours = conv_bn_scores(conv, bn, nothing, rounded, False)  # 0 + what is added: read and written again
    assert torch.equal(ours.nan_to_num(7), rounded.nan_to_num(7)) and ours.isnan().sum() == 1
    scale = torch.linspace(0.5, 2, 16)
    with torch.no_grad():
        nn.init.dirac_(conv.weight)
        bn.weight.copy_(scale)
    finite = torch.randn(64, 16, 4, 4).bfloat16().contiguous(**CHANNELS_LAST)
    ours = conv_bn_scores(conv, bn, finite, None, False)
    assert torch.equal(ours, (finite.float() * scale[:, None, None]).bfloat16())


@pytest.mark.usefixtures("lanes")
@pytest.mark.parametrize(("every", "stride"), [(1, 1), (2, 2), (1, 2)])
@pytest.mark.parametrize("channels", [16, 64])
def test_what_comes_back_through_a_shortcut_is_added_to_the_gradient_of_x(every, stride, channels):
    """At each `every`-th position, whether the layer's own part is Winograd's or oneDNN's."""
    conv, bn = layer(channels, channels, 3, stride)
    exact = [copy.deepcopy(module).double() for module in (conv, bn)]
    x = torch.randn(3, channels, 8, 8).contiguous(**CHANNELS_LAST).requires_grad_()
    double = x.detach().double().requires_grad_()
    result, carried = conv_bn_through(conv, bn, x, relu=True, every=every)
    assert torch.equal(carried, x[:, :, ::every, ::every])
    theirs = F.relu(exact[1](exact[0](double)))
    dy, dcarried = torch.randn_like(result), torch.randn_like(carried)
    torch.autograd.backward([result, carried], [dy, dcarried.clone()])
    torch.autograd.backward([theirs, double[:, :, ::every, ::every]], [dy.double(), dcarried.double()])
    assert (x.grad - double.grad).norm() <= 2e-5 * double.grad.norm()


@pytest.mark.parametrize("network", ["resnet20", "plain20", "resnet18", "resnet50"])
def test_evaluation_on_the_kernels_gives_the_plain_networks_scores(network):
    """Without gradients, with running statistics; with gradients the plain operations run."""
    torch.manual_seed(0)
    net = deepres.build(network).to(**CHANNELS_LAST)
    images = torch.randn(4, 3, 64, 64).contiguous(**CHANNELS_LAST)
    net(images)  # running statistics of its own
    fast = copy.deepcopy(net.eval())
    accelerate(fast)
    assert runs_on_kernels(fast) and not runs_on_kernels(net)
    with torch.no_grad():
        plain, ours = net(images), fast(images)
        with torch.autocast("cpu", torch.bfloat16):
            narrow = fast(images)
    assert (ours - plain).abs().max() <= 1e-5 * plain.abs().max()
    assert (narrow - plain).norm() <= 0.1 * plain.norm()
    assert torch.equal(fast(images), net(images))
