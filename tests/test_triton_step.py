"""Parts of a step as one Triton kernel each: what PyTorch's operations compute. Without a GPU they run interpreted."""

import os
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from deepres.data.augment import CropFlip
from deepres.data.order import Order
from deepres.data.resident import ImageSet
from deepres.data.resident_batches import Batches

pytest.importorskip("triton", reason="Triton is not installed")


def assert_same_batches(device):
    """The same bits, across the end of an epoch, too."""
    from deepres.kernels.triton.augment import crop_flip_normalise

    for channels, height, width in ((3, 32, 32), (1, 7, 9)):
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (20, channels, height, width), dtype=torch.uint8, generator=generator)
        mean = torch.rand(channels, height, width, generator=generator)
        given = (ImageSet(images, torch.arange(20)), mean, Order(0, 8), torch.device(device), CropFlip())
        plain, fused = Batches(*given), Batches(*given, crop_flip_normalise)
        for step in range(4):
            (images_, labels), (images, own_labels) = plain.batch(step), fused.batch(step)
            assert torch.equal(images, images_) and torch.equal(own_labels, labels)
            assert images.is_contiguous(memory_format=torch.channels_last)


def assert_same_losses(device):
    """Loss, error and gradient, with and without label smoothing, of batches that fill the last rows or do not."""
    from deepres.kernels.triton.cross_entropy import cross_entropy

    for count, classes, smoothing in ((128, 10, 0.0), (37, 3, 0.2), (5, 100, 0.1)):
        generator = torch.Generator().manual_seed(0)
        logits = (3 * torch.randn(count, classes, generator=generator)).to(device).requires_grad_()
        labels = torch.randint(classes, (count,), generator=generator).to(device)
        loss, error = cross_entropy(logits, labels, smoothing)
        other = F.cross_entropy(logits, labels, label_smoothing=smoothing)
        (slope,), (expected,) = (torch.autograd.grad(0.5 * own, logits) for own in (loss, other))
        torch.testing.assert_close(loss, other)
        torch.testing.assert_close(slope, expected)
        assert error.item() == pytest.approx(100 * (logits.argmax(1) != labels).float().mean().item())


CHECKS = [assert_same_batches, assert_same_losses]


@pytest.mark.long
def test_the_kernels_compute_what_pytorch_does_interpreted():
    code = "import test_triton_step as own; [check('cpu') for check in own.CHECKS]"
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=200)


@pytest.mark.gpu
@pytest.mark.parametrize("check", CHECKS)
def test_the_kernels_compute_what_pytorch_does_on_a_gpu(check):
    check("cuda")
