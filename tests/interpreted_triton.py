"""Run by test_triton.py with TRITON_INTERPRET=1: the Triton kernels on the processor against PyTorch in float64."""

import copy
import sys

import torch
from torch import nn
from torch.nn import functional as F

import deepres
from deepres.acceleration import on_triton
from deepres.kernels.triton import tiles
from deepres.kernels.triton.tiles import Share, Tile

# Several programs with several tiles each, and a last tile that is not full; few, since each is slow here.
tiles.EXACT = Tile(64, 4, 64, taps=4, valid=3)
tiles.EXACT_SHARE = Share(64, 4, 4, 3, splits=2, stages=1)
CASES = {  # network, images, channels, size, memory format
    "residual": ("resnet14", 3, 3, (8, 8), torch.channels_last),
    "plain": ("plain8", 2, 3, (8, 8), torch.channels_last),
    "odd": ("resnet8", 3, 1, (7, 5), torch.contiguous_format),
}


def shaken(name: str, channels: int) -> nn.Module:
    """A network whose BN is not at its start values."""
    net = deepres.build(name, num_classes=4, in_channels=channels)
    for norm in (module for module in net.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, 0, 0.3)
        nn.init.normal_(norm.running_mean)
    return net


def distance(mine, exact) -> float:
    return ((mine.double() - exact).norm() / exact.double().norm().clamp_min(1e-12)).item()


def check(name: str, number: int, channels: int, size: tuple[int, int], memory_format: torch.memory_format) -> None:
    torch.manual_seed(0)
    fast = shaken(name, channels).to(memory_format=memory_format)
    plain = copy.deepcopy(fast).double()
    on_triton.accelerate(fast)
    images = (3 + torch.randn(number, channels, *size)).contiguous(memory_format=memory_format)
    labels = torch.randint(4, (number,))
    assert on_triton.fits(fast, images)
    seen = set()
    for _ in range(2):
        fast.zero_grad()
        loss = F.cross_entropy(fast(images), labels)
        loss.backward()
        seen.add(b"".join(parameter.grad.numpy().tobytes() for parameter in fast.parameters()))
    assert len(seen) == 1, "two passes differ"
    plain(images.double())
    exact = F.cross_entropy(plain(images.double()), labels)
    exact.backward()
    assert abs(loss.item() - exact.item()) < 1e-5 * exact.item()
    for (key, mine), other in zip(fast.named_parameters(), plain.parameters(), strict=True):
        assert mine.grad.stride() == mine.stride(), key
        assert distance(mine.grad, other.grad) < 1e-4, (key, distance(mine.grad, other.grad))
    for (key, mine), other in zip(fast.named_buffers(), plain.buffers(), strict=True):
        assert distance(mine, other) < 1e-5, (key, mine, other)


def check_overflow() -> None:
    """Sums that leave the range of fixed point do not become wrong statistics: the loss is not finite."""
    net = deepres.build("resnet8", num_classes=4)
    on_triton.accelerate(net)
    images = torch.randn(2, 3, 4, 4)
    assert net(images).isfinite().all()
    for value in (1e30, torch.inf):
        images[0, 0, 0, 0] = value
        assert not net(images).isfinite().any(), value


if __name__ == "__main__":
    if sys.argv[1] == "overflow":
        check_overflow()
    else:
        check(*CASES[sys.argv[1]])
