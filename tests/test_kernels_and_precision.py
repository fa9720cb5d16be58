"""The kernels with maps of bf16, x handed on to a shortcut, and evaluation on the kernels."""

import copy
import platform

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import deepres
from deepres.acceleration.on_kernels import accelerate, runs_on_kernels
from deepres.kernels import library as kernels
from deepres.kernels import residual, stock
from deepres.kernels.residual import conv_bn, conv_bn_scores, conv_bn_through

CHANNELS_LAST = {"memory_format": torch.channels_last}
ROUNDING = 2**-8  # of bf16


@pytest.fixture(params=["as here", "eight lanes"])
def lanes(request, monkeypatch):
    """The vectors of this processor, and shorter ones where it has AVX-512."""
    if request.param == "eight lanes":
        if platform.machine() != "x86_64" or not torch.cpu.get_capabilities()["avx512_f"]:
            pytest.skip("the vectors here have eight lanes as they are")
        monkeypatch.setattr(kernels, "FLAGS", (*kernels.FLAGS, "-mno-avx512f"))
        for module in (residual, stock):
            monkeypatch.setattr(module, "WIDE", False)
        kernels.library.cache_clear()
        yield
        kernels.library.cache_clear()
    else:
        yield


@pytest.fixture(autouse=True)
def winograd(monkeypatch):
    """Also for as few positions as are enough for a test."""
    monkeypatch.setattr(residual, "FEW", 0)


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


@pytest.fixture(params=["products of bf16", "products of fp32"])
def products(request, monkeypatch):
    """By processors that multiply bf16, and by those that do not."""
    monkeypatch.setenv("DEEPRES_BF16", "0" if request.param == "products of fp32" else "1")


@pytest.mark.usefixtures("lanes", "products")
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
        (64, 32, 3, 2, 4),
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
    """As PyTorch rounds: 1 scaled by ties, values of all sizes, beyond the largest, and NaN."""
    ties = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, 1 + 5 * 2**-8, -1 - 2**-8, -1 - 3 * 2**-8, 2.0**100 + 2.0**92])
    values = torch.cat([ties, torch.randn(64 - len(ties)) * 10.0 ** torch.linspace(-35, 35, 64 - len(ties))])
    values[-3:] = torch.tensor([3.4e38, -3.4e38, float("nan")])  # beyond the largest
    conv, bn = nn.Conv2d(64, 64, 1, bias=False), nn.BatchNorm2d(64, eps=0).eval()
    with torch.no_grad():
        nn.init.dirac_(conv.weight)
        bn.weight.copy_(values)
    ours = conv_bn_scores(conv, bn, torch.ones(3, 64, 2, 2).bfloat16(), None, False)
    theirs = values.bfloat16()[:, None, None].expand(3, 64, 2, 2)
    assert torch.equal(ours.nan_to_num(7), theirs.nan_to_num(7)) and torch.equal(ours.isnan(), theirs.isnan())


@pytest.mark.usefixtures("lanes")
@pytest.mark.parametrize(("into", "out"), [(320, 288), (16, 48), (48, 16), (32, 32), (64, 64)])
def test_both_widths_of_vectors_give_what_double_precision_gives(into, out):
    conv, bn = layer(into, out, 3, 1)
    exact = [copy.deepcopy(module).double() for module in (conv, bn)]
    x = torch.randn(4, into, 7, 9).contiguous(**CHANNELS_LAST).requires_grad_()
    double = x.detach().double().requires_grad_()
    ours, theirs = conv_bn(conv, bn, x), exact[1](exact[0](double))
    dy = torch.randn_like(ours)
    ours.backward(dy)
    theirs.backward(dy.double())
    for mine, other in ((ours, theirs), (x.grad, double.grad), (conv.weight.grad, exact[0].weight.grad)):
        assert (mine - other).norm() <= 2e-5 * other.norm()


@pytest.mark.long
@pytest.mark.parametrize("network", ["resnet8", "plain8", "resnet18", "resnet50"])
def test_a_step_behind_frozen_stages_gives_the_plain_networks_gradients(network):
    """The first stage's weights stay; what lies behind it needs no gradient of its input."""
    torch.manual_seed(0)
    net = deepres.build(network, num_classes=4).train().to(**CHANNELS_LAST)
    for stage in (net.conv1, net.conv2_x):
        stage.requires_grad_(False)
    images = torch.randn(4, 3, 64, 64).contiguous(**CHANNELS_LAST)
    fast, exact = copy.deepcopy(net), copy.deepcopy(net).double()
    accelerate(fast)
    found = []
    for one, batch in ((exact, images.double()), (net, images), (fast, images)):
        F.cross_entropy(one(batch), torch.arange(4)).backward()
        found.append(torch.cat([each.grad.flatten().double() for each in one.parameters() if each.requires_grad]))
    assert all(parameter.grad is None for parameter in fast.conv2_x.parameters())
    plain, ours = ((gradient - found[0]).norm() / found[0].norm() for gradient in found[1:])
    assert ours <= max(3 * plain, 0.03)  # float32 puts a few values on the other side of a ReLU


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


@pytest.mark.parametrize("size", [4, 9])
def test_scores_of_an_image_do_not_depend_on_the_number_of_images(size, monkeypatch):
    """Although in training the number of positions decides which way a convolution goes."""
    monkeypatch.setattr(residual, "FEW", 512)
    conv, bn = layer(64, 64, 3, 1)
    images = torch.randn(20, 64, size, size).contiguous(**CHANNELS_LAST)
    together = conv_bn_scores(conv, bn, images, None, True)
    assert torch.equal(together, torch.cat([conv_bn_scores(conv, bn, image, None, True) for image in images.split(1)]))


def test_one_value_a_channel_has_no_batch_statistics():
    conv, bn = layer(64, 64, 3, 1)
    with pytest.raises(ValueError, match="more than one value"):
        conv_bn(conv, bn, torch.randn(1, 64, 1, 1).contiguous(**CHANNELS_LAST))
