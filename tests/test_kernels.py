"""The C++ kernels against their twin: PyTorch's own operations in double precision."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import deepres
from deepres.acceleration.on_kernels import FastBlock, accelerate, resolve_kernels
from deepres.kernels import library as kernels
from deepres.kernels import residual, stock, unfolded
from deepres.kernels.pool import Pool
from deepres.kernels.residual import conv_bn
from deepres.models.blocks import bottleneck
from deepres.models.imagenet import STEM_32, ImageNetNet, Row
from deepres.models.init import he_initialise
from deepres.models.shortcuts import option_b
from deepres.runtime.errors import InputError

CHANNELS_LAST = {"memory_format": torch.channels_last}
convolve = unfolded.convolve


@pytest.fixture(autouse=True)
def two_threads():
    """Also where the tests run side by side with a thread each."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def winograd(monkeypatch):
    """Also for as few positions as are enough for a test."""
    monkeypatch.setattr(residual, "FEW", 0)


def layer(into, out, kernel, stride):
    """A convolution and a normalization with values of their own."""
    torch.manual_seed(into + out + kernel + stride)
    conv = nn.Conv2d(into, out, kernel, stride, kernel // 2, bias=False).to(**CHANNELS_LAST)
    bn = nn.BatchNorm2d(out)
    nn.init.normal_(bn.weight, 1, 0.2)
    nn.init.normal_(bn.bias, 0, 0.2)
    nn.init.normal_(bn.running_mean)
    return conv, bn


def twin(conv, bn, x, added, relu):
    y = bn(conv(x))
    y = y if added is None else y + added
    return F.relu(y) if relu else y


def gradients(function, conv, bn, x, added, relu, dy):
    """The result, and the gradients of everything that has one."""
    x = x.clone().requires_grad_()
    added = None if added is None else added.clone().requires_grad_()
    result = function(conv, bn, x, added, relu)
    result.backward(dy)
    found = [result.detach(), x.grad, conv.weight.grad, bn.weight.grad, bn.bias.grad, bn.running_mean, bn.running_var]
    return found if added is None else [*found, added.grad]


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("adds", [True, False])
@pytest.mark.parametrize(
    ("into", "out", "kernel", "stride", "height", "width"),
    [
        (16, 16, 3, 1, 32, 32),
        (32, 32, 3, 1, 16, 16),
        (64, 64, 3, 1, 8, 8),
        (16, 48, 3, 1, 7, 9),
        (48, 16, 3, 1, 5, 14),
        (32, 32, 3, 1, 1, 3),
        (16, 32, 3, 2, 11, 8),
        (3, 16, 3, 1, 10, 10),
        (320, 288, 3, 1, 6, 5),
        (32, 64, 1, 1, 6, 6),
        (32, 16, 1, 1, 30, 30),
        (64, 32, 1, 2, 7, 7),
        (32, 64, 1, 2, 6, 9),
        (3, 64, 7, 2, 20, 20),
    ],
)
def test_the_kernels_compute_what_pytorch_computes(into, out, kernel, stride, height, width, adds, relu):
    """Results, all gradients and running statistics to 2e-5 of float64's, in norm."""
    conv, bn = layer(into, out, kernel, stride)
    exact = [copy.deepcopy(module).double() for module in (conv, bn)]
    x = torch.randn(5, into, height, width).contiguous(**CHANNELS_LAST)
    shape = conv(x).shape
    dy = torch.randn(shape)
    added = torch.randn(shape) if adds else None
    # values near 0 fall on either side of the ReLU: push them away from it
    if added is not None and relu:
        added += 0.5 * added.sign()
    ours = gradients(conv_bn, conv, bn, x, added, relu, dy)
    theirs = gradients(twin, *exact, x.double(), None if added is None else added.double(), relu, dy.double())
    flipped = ((ours[0] > 0) != (theirs[0] > 0)).sum()
    assert flipped == 0 or not relu, "a value this near to 0 makes the gradients differ: draw others"
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine - other).norm() <= 2e-5 * other.norm()


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize(("into", "out", "stride", "side"), [(64, 64, 1, 2), (32, 64, 2, 4), (48, 16, 2, 5)])
def test_few_positions_go_through_unfolded_products_and_compute_the_same(into, out, stride, side, relu, monkeypatch):
    monkeypatch.setattr(residual, "FEW", 512)
    monkeypatch.setattr(stock, "WIDE", False)
    taken = []
    monkeypatch.setattr(unfolded, "convolve", lambda *given: taken.append(1) or convolve(*given))
    conv, bn = layer(into, out, 3, stride)
    exact = [copy.deepcopy(module).double() for module in (conv, bn)]
    x = torch.randn(3, into, side, side)
    dy = torch.randn(conv(x).shape)
    ours = gradients(conv_bn, conv, bn, x, None, relu, dy)
    theirs = gradients(twin, *exact, x.double(), None, relu, dy.double())
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine - other).norm() <= 2e-5 * other.norm()
    assert taken


@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (2, 1)])
@pytest.mark.parametrize(("size", "padding"), [((3, 3), (1, 1)), ((1, 1), (0, 0)), ((3, 1), (1, 0)), ((5, 3), (0, 2))])
def test_unfolded_products_are_the_convolution_and_its_gradients(size, padding, stride):
    """In double precision, for kernels and maps of any shape."""
    x = torch.randn(2, 4, 7, 6, dtype=torch.double, requires_grad=True)
    kernel = torch.randn(5, 4, *size, dtype=torch.double, requires_grad=True)
    y = F.conv2d(x, kernel, None, stride, padding)
    dy = torch.randn_like(y)
    expected = torch.autograd.grad(y, (x, kernel), dy)
    with torch.no_grad():
        torch.testing.assert_close(unfolded.convolve(x, kernel, stride, padding), y)
        torch.testing.assert_close(unfolded.differentiate(dy, x, kernel, stride, padding, True, True), expected)
    assert unfolded.differentiate(dy, x, kernel, stride, padding, False, False) == (None, None)


@pytest.mark.parametrize("channels", [16, 64])
def test_more_threads_than_there_is_work_for_compute_the_same(channels):
    """Each has a part, or none; the order of the sums differs."""
    conv, bn = layer(channels, channels, 3, 1)
    x, dy = (torch.randn(2, channels, 7, 7).contiguous(**CHANNELS_LAST) for _ in range(2))
    found = []
    for threads in (1, 2, 3, 5):
        torch.set_num_threads(threads)
        found.append(gradients(conv_bn, copy.deepcopy(conv), copy.deepcopy(bn), x, None, False, dy))
    for others in found[1:]:
        for mine, other in zip(found[0], others, strict=True):
            assert (mine - other).norm() <= 2e-6 * other.norm()


@pytest.mark.parametrize("adds", [True, False])
def test_a_value_that_is_not_a_number_stays_one(adds):
    """As through PyTorch's ReLU, forward and backward: it reaches the loss, which ends the training."""
    conv, bn = layer(16, 32, 3, 1)
    x, added = torch.randn(2, 16, 8, 8), torch.randn(2, 32, 8, 8) if adds else None
    x[0, 0, 3, 3] = float("nan")
    dy = torch.randn(2, 32, 8, 8)
    ours = gradients(conv_bn, copy.deepcopy(conv), copy.deepcopy(bn), x, added, True, dy)
    theirs = gradients(twin, conv, bn, x, added, True, dy)
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.equal(mine.isnan(), other.isnan())
    assert ours[0].isnan().all()


def test_kernels_that_cannot_be_kept_are_gone_without(tmp_path, monkeypatch):
    """A cache folder that cannot be made."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("DEEPRES_CACHE", str(tmp_path / "file"))
    kernels.library.cache_clear()
    told = []
    try:
        assert not resolve_kernels("auto", "cpu", 0, told.append)
    finally:
        kernels.library.cache_clear()
    assert "cannot be kept" in told[0] and "take longer" in told[0]


def test_a_large_mean_does_not_spoil_the_variance():
    """Sums of squares of shifted values: no cancellation at a mean of 1000 standard deviations."""
    conv, bn = layer(16, 16, 3, 1)
    nn.init.dirac_(conv.weight)
    x = (1000 + torch.randn(8, 16, 12, 12)).contiguous(**CHANNELS_LAST)
    result = conv_bn(conv, bn, x)
    middle = (result - bn.bias[:, None, None]) / bn.weight[:, None, None]
    assert (middle[:, :, 1:-1, 1:-1].var((0, 2, 3)) > 0).all()
    exact = twin(copy.deepcopy(conv).double(), copy.deepcopy(bn).double(), x.double(), None, False)
    assert (result - exact).norm() <= 1e-3 * exact.norm()


def test_the_same_input_gives_the_same_bits():
    net = deepres.build("resnet20").to(**CHANNELS_LAST)
    accelerate(net)
    images = torch.randn(8, 3, 32, 32)
    weight = net.conv2_x[0].residual.layer1.conv.weight
    seen = set()
    for _ in range(3):
        net.zero_grad()
        net(images).square().sum().backward()
        seen.add(weight.grad.numpy().tobytes())
    assert len(seen) == 1


def distance(mine, other):
    """Of two state dicts, relative to the second one's norm."""
    pairs = [(mine[key].double(), other[key].double()) for key in other if "num_batches" not in key]
    return (sum((a - b).square().sum() for a, b in pairs) / sum(b.square().sum() for _, b in pairs)).sqrt().item()


def step(net, optimizer, images, labels):
    loss = F.cross_entropy(net(images), labels)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def bottlenecks():
    """The blocks of ResNet-50, few and narrow, on the small stem."""
    net = ImageNetNet(Row(bottleneck, (64, 64, 128, 128), (1, 2, 1, 1)), option_b, STEM_32, 4, 3)
    he_initialise(net)
    return net


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "lr", "together"),
    [("resnet20", 1e-4, False)]
    + [(name, 0.01, True) for name in ("resnet20", "plain8", "resnet8-c", "highway7", "bottlenecks")],
)
def test_thirty_steps_are_those_of_the_plain_network(name, lr, together):
    """Losses and weights to 1e-4, relative, in fp32: the fast path is the paper's training.

    `together`: each step starts from the plain network's state, since any change of rounding grows at such a rate:
    PyTorch's own two memory formats are 3e-2 apart after thirty steps. At a small rate both run on their own.
    """
    torch.manual_seed(0)
    plain = (bottlenecks() if name == "bottlenecks" else deepres.build(name, num_classes=4)).to(**CHANNELS_LAST)
    fast = copy.deepcopy(plain)
    accelerate(fast)
    ours, theirs = (torch.optim.SGD(net.parameters(), lr, 0.9, weight_decay=1e-4) for net in (fast, plain))
    for _ in range(30):
        images, labels = torch.rand(16, 3, 32, 32) - 0.5, torch.randint(4, (16,))
        if together:
            fast.load_state_dict(plain.state_dict())
            ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
        expected = step(plain, theirs, images, labels)
        assert step(fast, ours, images, labels) == pytest.approx(expected, rel=1e-4)
        assert distance(fast.state_dict(), plain.state_dict()) <= 1e-4


def test_evaluation_is_the_plain_networks():
    net = deepres.build("resnet20").to(**CHANNELS_LAST).eval()
    images = torch.randn(4, 3, 32, 32)
    before = net(images)
    accelerate(net)
    assert isinstance(net.conv2_x[0], FastBlock)
    assert torch.allclose(net(images), before, atol=1e-6)


def test_without_a_compiler_it_says_so_and_goes_on(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    kernels.library.cache_clear()
    said: list[str] = []
    assert not resolve_kernels("auto", "cpu", 0, said.append)
    assert "no C++ compiler" in said[0]
    with pytest.raises(InputError, match="no C\\+\\+ compiler"):
        resolve_kernels("on", "cpu", 0, said.append)
    kernels.library.cache_clear()


def test_the_kernels_are_for_processors_and_the_whole_batch():
    assert resolve_kernels("auto", "cpu", 0, print)
    for elsewhere in (("cuda", 0), ("cpu", 64)):
        assert not resolve_kernels("auto", *elsewhere, print)
        with pytest.raises(InputError, match="alone; leave it out"):
            resolve_kernels("on", *elsewhere, print)
    with pytest.raises(InputError, match="one of auto, on, off"):
        resolve_kernels("of", "cpu", 0, print)


def test_a_compiler_that_fails_is_named(monkeypatch, tmp_path):
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\necho 'error: no such option -fopenmp' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("DEEPRES_CACHE", str(tmp_path))
    kernels.library.cache_clear()
    with pytest.raises(kernels.UnavailableError, match="no such option -fopenmp"):
        kernels.library()
    assert not list(tmp_path.rglob("*.so"))
    kernels.library.cache_clear()


def test_freed_maps_are_used_again_and_tensors_in_use_are_not():
    pool = Pool()
    first = pool.maps(2, 16, 8, 8)
    assert first.is_contiguous(**CHANNELS_LAST)
    place, view = first.data_ptr(), first[1]
    del first
    assert pool.maps(2, 16, 8, 8).data_ptr() != place  # a view still stands on it
    del view
    assert pool.maps(2, 16, 8, 8).data_ptr() == place


def test_what_nobody_uses_goes_back_to_the_system_beyond_what_was_in_use_at_once():
    """Maps of one size, then of another: both are kept only as far as the first ones took the room already."""
    pool = Pool()
    held = [pool.maps(1, 16, 64, 64) for _ in range(4)]  # 2**18 bytes each
    assert (pool.used, pool.idle) == (2**20, 0)
    del held
    assert (pool.used, pool.idle) == (0, 2**20)
    held = [pool.maps(1, 16, 32, 64) for _ in range(8)]  # 2**17 bytes each
    assert pool.used == 2**20 and pool.idle <= 2**19
    del held
    assert pool.idle <= 1.5 * 2**20
