"""The augmentation as one Triton kernel: the bits of PyTorch's operations. Without a GPU it runs interpreted."""

import os
import subprocess
import sys

import pytest
import torch

from deepres.data.augment import CropFlip, channels_last
from deepres.data.order import Order
from deepres.data.resident import ImageSet
from deepres.data.resident_batches import Batches

pytest.importorskip("triton", reason="Triton is not installed")


def assert_same_batches(device):
    from deepres.kernels.triton.augment import crop_flip_normalise

    for channels, height, width in ((3, 32, 32), (1, 7, 9)):
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (20, channels, height, width), dtype=torch.uint8, generator=generator)
        mean = torch.rand(channels, height, width, generator=generator)
        given = (ImageSet(images, torch.arange(20)), mean, Order(0, 8), torch.device(device), CropFlip())
        plain, fused = Batches(*given), Batches(*given, crop_flip_normalise)
        for step in range(4):  # across the end of an epoch, too
            (images_, labels), (images, own_labels) = plain.batch(step), fused.batch(step)
            assert torch.equal(images, images_) and torch.equal(own_labels, labels)
            assert images.is_contiguous(memory_format=torch.channels_last)
            assert channels_last(mean).shape[1] == images.shape[1]


@pytest.mark.long
def test_batches_have_the_same_bits_interpreted():
    code = "import test_triton_augment as own; own.assert_same_batches('cpu')"
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=200)


@pytest.mark.gpu
def test_batches_have_the_same_bits_on_a_gpu():
    assert_same_batches("cuda")
