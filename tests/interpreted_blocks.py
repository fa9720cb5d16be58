"""Blocks on Triton's kernels beside the plain ones in double precision, as JSON; Triton runs them on the processor.

A process of its own: Triton decides when it is imported whether it interprets (TRITON_INTERPRET=1).
"""

import copy
import json

import torch
from torch import nn

from deepres.acceleration.on_triton_blocks import ImageNetOnTriton, StageOnTriton, accelerate_blocks
from deepres.kernels.triton import batch_norm, pointwise
from deepres.models.blocks import basic, bottleneck, stage
from deepres.models.imagenet import ImageNetNet, Row, Stem
from deepres.models.shortcuts import OPTIONS, none
from deepres.training.batchnorm import group_batch_norm

CHANNELS_LAST = {"memory_format": torch.channels_last}
STAGES = {
    # name: F, shortcut, channels in, channels out, stride; 64 channels and more are multiplied by our products
    "basic, A": (basic, OPTIONS["a"], 16, 32, 2),
    "basic, plain": (basic, none, 16, 32, 2),
    "basic, C": (basic, OPTIONS["c"], 16, 16, 1),
    "narrow bottleneck, B": (bottleneck, OPTIONS["b"], 32, 64, 2),
    "bottleneck, B": (bottleneck, OPTIONS["b"], 64, 256, 2),
    "bottleneck, C": (bottleneck, OPTIONS["c"], 64, 256, 1),
    "bottleneck, plain": (bottleneck, none, 64, 256, 1),
}


def prepared(net):
    """`net` with normalizations of their own, some of which turn the sign."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, -1, 1.5)
            nn.init.normal_(module.bias)
    return net.to(**CHANNELS_LAST)


def difference(ours, theirs):
    """The largest relative difference of two dictionaries of tensors, each by its norm."""
    assert list(ours) == list(theirs)
    pairs = [(ours[name].double(), theirs[name].double()) for name in ours]
    return max(((one - other).norm() / other.norm().clamp_min(1e-6)).item() for one, other in pairs)


def results(net, x, steps=2):
    """What a net gives in steps of training: results, gradients, and running statistics at the end."""
    found = {}
    optimizer = torch.optim.SGD(net.parameters(), 0.01, 0.9)
    for step in range(steps):
        optimizer.zero_grad()
        given = x.clone().requires_grad_()
        y = net(given)
        (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)).sum().backward()
        found |= {f"y{step}": y.detach(), f"dx{step}": given.grad}
        found |= {f"{name}{step}": each.grad.clone() for name, each in net.named_parameters()}
        optimizer.step()
    return found | dict(net.named_buffers())


def compare(plain, x):
    """The largest difference of ours from the plain net in double precision."""
    net = copy.deepcopy(plain)
    accelerate_blocks(net)
    return difference(results(net, x), results(copy.deepcopy(plain).double(), x.double()))


def of_stage(residual, shortcut, into, out, stride):
    """A stage of two blocks on maps of an odd size."""
    net = prepared(nn.Sequential(stage(into, out, stride, 2, residual, shortcut)))
    return compare(net, torch.randn(3, into, 7, 5).to(**CHANNELS_LAST))


def of_stem(padding, size):
    """A network of Table 1 with few channels: its stem, and blocks that pick positions of the stage before."""
    row, stem = Row(bottleneck, (64, 64, 64, 64), (1, 2, 1, 1)), Stem(7, 2, True, padding)
    net = prepared(ImageNetNet(row, OPTIONS["b"], stem, 5, 3))
    fast = copy.deepcopy(net)
    accelerate_blocks(fast)
    assert type(fast) is ImageNetOnTriton
    x = torch.randn(2, 3, size, size + 2).to(**CHANNELS_LAST)
    ours, theirs = (each.feature_map(x, "conv2_x") for each in (fast, copy.deepcopy(net)))
    return max(compare(net, x), difference({"y": ours}, {"y": theirs}))


def plain_paths():
    """Where the kernels must not run, and what they do to what is no number."""
    net = prepared(nn.Sequential(stage(16, 16, 1, 2, basic, none)))
    fast, x = copy.deepcopy(net), torch.randn(2, 16, 6, 6).to(**CHANNELS_LAST)
    accelerate_blocks(fast)
    assert type(fast[0]) is StageOnTriton
    found = {"evaluation": torch.equal(net.eval()(x), fast.eval()(x))}
    # One frozen normalization, and gradients through it.
    for each in (net, fast):
        each.train()
        next(module for module in each.modules() if isinstance(module, nn.BatchNorm2d)).eval()
    ours, theirs = (results(each, x, 1) for each in (fast, net))
    found["frozen"] = all(torch.equal(ours[name], theirs[name]) for name in theirs)
    # Batch statistics over groups, also where they are asked for later.
    for each in (net, fast):
        each.train()
        group_batch_norm(each, 1)
    ours, theirs = (results(each, x, 1) for each in (fast, net))
    found["groups"] = all(torch.equal(ours[name], theirs[name]) for name in theirs)
    # One value a channel has no variance.
    fast = prepared(nn.Sequential(stage(16, 16, 1, 1, basic, none)))
    accelerate_blocks(fast)
    try:
        fast(torch.randn(1, 16, 1, 1))
    except ValueError as error:
        found["one value"] = str(error)
    # Infinite values become no number everywhere, as in PyTorch.
    x[0, 3, 2, 2] = torch.inf
    found["not finite"] = bool(fast(x).isnan().any())
    return found


if __name__ == "__main__":
    batch_norm.PROGRAMS = pointwise.PROGRAMS = (
        2  # each takes several tiles; the interpreter's time goes with their number
    )
    torch.manual_seed(0)
    report = {name: of_stage(*case) for name, case in STAGES.items()}
    report |= {f"stem {padding} {size}": of_stem(padding, size) for padding, size in ((1, 40), (0, 38), (1, 39))}
    print(json.dumps(report | {"plain paths": plain_paths()}))
