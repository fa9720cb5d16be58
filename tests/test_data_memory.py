"""Resident batches: an endless stream that depends on (seed, epoch, position) alone."""

import dataclasses

import pytest
import torch
from torch import Tensor

from deepres.classification.recipe import CIFAR, ClassificationConfig
from deepres.classification.task import classification_task
from deepres.data.augment import CropFlip, normalise
from deepres.data.order import Order
from deepres.data.resident import ImageSet
from deepres.data.resident_batches import Batches
from deepres.data.resident_batches import test_batches as in_order
from deepres.data.sources import load_data_set
from deepres.runtime.errors import InputError
from deepres.runtime.ranks import ALONE

CPU = torch.device("cpu")


def numbered(count: int, size: int = 4) -> ImageSet:
    """Images of noise whose label is their number."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    return ImageSet(images, torch.arange(count))


def batches(count: int, batch_size: int, *, seed: int = 0, augment: bool = True) -> Batches:
    order, augmentation = Order(seed, batch_size), CropFlip() if augment else None
    return Batches(numbered(count), torch.full((3, 4, 4), 0.5), order, CPU, augmentation)


def stream(source: Batches, steps: int) -> tuple[Tensor, Tensor]:
    images, labels = zip(*(source.batch(step) for step in range(steps)), strict=True)
    return torch.cat(images), torch.cat(labels)


def test_every_image_is_seen_once_an_epoch_and_batches_go_on_across_its_end():
    """Seven steps of 3 are three epochs of 7, each a permutation; the orders differ."""
    _, labels = stream(batches(7, 3), 7)
    epochs = labels.view(3, 7).tolist()
    assert [sorted(epoch) for epoch in epochs] == [list(range(7))] * 3
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_a_batch_larger_than_the_set_spans_several_epochs():
    """Five images in batches of 12: always exactly 12."""
    images, labels = batches(5, 12).batch(3)
    assert images.shape == (12, 3, 4, 4) and labels.shape == (12,)


def test_the_stream_does_not_depend_on_the_batch_size():
    """Images, order and augmentation are the same in batches of 2, 3 and 12."""
    expected = stream(batches(7, 12), 1)
    for size in (2, 3):
        images, labels = stream(batches(7, size), 12 // size)
        assert torch.equal(images, expected[0]) and torch.equal(labels, expected[1])


def test_a_fresh_object_gives_the_same_batch_at_any_step():
    """A resumed run needs no state: step 9 is step 9 whatever was asked before."""
    used = batches(7, 3)
    for step in (0, 5, 30, 2):
        used.batch(step)
    for got, expected in zip(used.batch(9), batches(7, 3).batch(9), strict=True):
        assert torch.equal(got, expected)


def test_another_seed_gives_another_order():
    """The seed enters both the order and the draws."""
    assert not torch.equal(batches(50, 50).batch(0)[1], batches(50, 50, seed=1).batch(0)[1])


def test_without_augmentation_an_image_is_only_normalised():
    """Label i leads back to image i."""
    images, labels = batches(7, 7, augment=False).batch(0)
    assert torch.equal(images, normalise(numbered(7).images[labels], torch.full((3, 4, 4), 0.5)))


def test_batches_are_float32_in_channels_last_memory():
    """What the convolutions are fastest with, for training and for testing, with repeated channels too."""
    images, _ = batches(7, 3).batch(0)
    assert images.dtype == torch.float32 and images.is_contiguous(memory_format=torch.channels_last)
    gray = numbered(7)
    wide = ImageSet(gray.images[:, :1].expand(-1, 3, -1, -1), gray.labels)
    images, _ = next(in_order(wide, torch.zeros(3, 4, 4), 3, CPU))
    assert images.dtype == torch.float32 and images.is_contiguous(memory_format=torch.channels_last)
    images, _ = Batches(wide, torch.zeros(3, 4, 4), Order(0, 3), CPU, CropFlip()).batch(0)
    assert torch.equal(images[:, 0], images[:, 2])


def test_offsets_reach_both_ends_and_half_of_the_images_are_flipped():
    """A single bright pixel in the middle tells where each of 4,000 images was cut and whether it was flipped."""
    images = torch.zeros(4000, 1, 18, 18, dtype=torch.uint8)
    images[:, 0, 8, 6] = 100  # unflipped it lands in columns 2 to 10, flipped in 7 to 15
    images[:, 0, 8, 7] = 200
    data = ImageSet(images, torch.zeros(4000, dtype=torch.int64))
    source = Batches(data, torch.zeros(1, 18, 18), Order(3, 4000), CPU, CropFlip())
    shown, _ = source.batch(0)
    flat = (shown[:, 0] * 255).round().int()
    dark, bright = ((flat == value).flatten(1).int().argmax(1) for value in (100, 200))
    flipped = bright < dark
    rows, columns = dark // 18, torch.where(flipped, 17 - dark % 18, dark % 18)
    row_offsets, column_offsets = 12 - rows, 10 - columns
    for offsets in (row_offsets, column_offsets):
        counts = offsets.bincount(minlength=9)
        assert len(counts) == 9 and counts.min() > 350 and counts.max() < 550
    assert 0.46 < flipped.double().mean() < 0.54


def test_alternating_flips_show_every_image_both_ways_in_two_epochs_some_flipped_first():
    images = numbered(8)
    source = Batches(images, torch.zeros(3, 4, 4), Order(0, 8), CPU, CropFlip(pad=0, alternate_flips=True))
    flipped = []
    for epoch in range(4):
        shown, labels = source.batch(epoch)
        as_they_are = images.images[labels] / 255
        mirrored = (shown - as_they_are.flip(-1)).abs().flatten(1).amax(1) < 1e-5
        assert torch.equal(~mirrored, (shown - as_they_are).abs().flatten(1).amax(1) < 1e-5)
        flipped.append(mirrored[labels.argsort()])
    assert 0 < flipped[0].sum() < 8
    assert torch.equal(flipped[0], ~flipped[1]) and torch.equal(flipped[0], flipped[2])


def test_test_batches_give_all_images_in_order_as_they_are():
    """The last batch is shorter; nothing is cut or left out."""
    images = numbered(7)
    got, labels = zip(*in_order(images, torch.full((3, 4, 4), 0.5), 3, CPU), strict=True)
    assert [len(part) for part in labels] == [3, 3, 1]
    assert torch.equal(torch.cat(labels), images.labels)
    assert torch.equal(torch.cat(got), normalise(images.images, torch.full((3, 4, 4), 0.5)))


@pytest.mark.parametrize(("count", "size"), [(0, 3), (7, 0)])
def test_an_empty_batch_is_refused(count: int, size: int):
    """No images, or a batch size of 0."""
    with pytest.raises(InputError, match="empty"):
        batches(count, size)


def test_a_recipe_that_pads_by_nothing_shows_whole_images_and_their_mirror_images(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("DEEPRES_CACHE", str(tmp_path))
    recipe = dataclasses.replace(CIFAR, batch_size=48, pad=0)
    config = ClassificationConfig("resnet8", str(folder), device="cpu", precision="fp32", recipe=recipe)
    data = load_data_set(str(folder))
    shown = classification_task(config, data, ALONE, print).batch_at(0)[0] + data.mean()
    images = data.train.images / 255
    whole, mirrored = (
        (shown[:, None] - choices).abs().flatten(2).amax(2).lt(1e-5).any(1) for choices in (images, images.flip(3))
    )
    assert whole.sum() >= 12
    assert torch.equal(mirrored, ~whole)
