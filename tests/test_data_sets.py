"""The decoded data set: its mean, its channels, and the division of its training part."""

import dataclasses

import pytest
import torch

from deepres.data.resident import Data, ImageSet, hold_out
from deepres.runtime.errors import InputError


def made(counts: tuple[int, ...], channels: int = 1) -> Data:
    """So many training images of each class, in mixed order; the pixels of image i hold i."""
    labels = torch.tensor([label for label, count in enumerate(counts) for _ in range(count)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    images = torch.arange(len(labels)).to(torch.uint8)[:, None, None, None].expand(-1, channels, 2, 2)
    part = ImageSet(images, labels)
    test = dataclasses.replace(part, images=part.images[:1], labels=labels[:1])
    return Data("made", part, test, tuple(map(str, range(len(counts)))), "print")


def test_the_mean_is_per_pixel_over_the_training_images_only():
    """Two images, one white pixel in one of them."""
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    images[0, 1, 2, 3] = 255
    white = ImageSet(torch.full_like(images, 255), torch.tensor([0, 0]))
    mean = Data("two", ImageSet(images, torch.tensor([0, 0])), white, ("a",)).mean()
    assert mean.dtype == torch.float32 and mean.shape == (3, 4, 4)
    assert mean[1, 2, 3] == 0.5 and mean.sum() == 0.5


def test_the_mean_is_exact_for_more_images_than_one_sum_takes():
    """5,000 equal images: float32 sums would drift."""
    images = torch.full((5000, 1, 1, 1), 77, dtype=torch.uint8)
    part = ImageSet(images, torch.zeros(5000, dtype=torch.int64))
    assert Data("flat", part, part, ("a",)).mean().item() == torch.tensor(77 / 255).item()


def test_the_split_is_stratified_fixed_and_whole():
    """A share of each class; every image in one part, in its old order; the same again."""
    data = made((40, 20, 10))
    split = hold_out(data, "63/7")
    assert split.train.labels.bincount().tolist() == [36, 18, 9] and split.test.labels.bincount().tolist() == [4, 2, 1]
    kept, held = (part.images[:, 0, 0, 0].tolist() for part in (split.train, split.test))
    assert sorted(kept + held) == list(range(70)) and kept == sorted(kept) and held == sorted(held)
    assert torch.equal(hold_out(data, "63/7").test.images, split.test.images)
    assert split.fingerprint != data.fingerprint and split.fingerprint != hold_out(data, "62/8").fingerprint


def test_shares_that_do_not_come_out_even_still_add_up():
    """Seven images of three classes, three held out."""
    split = hold_out(made((3, 2, 2)), "4/3")
    assert len(split.train) == 4 and split.test.labels.bincount().tolist() == [1, 1, 1]


def test_k_stands_for_a_thousand():
    """45k/5k is the paper's split of CIFAR-10."""
    labels = torch.arange(5000) % 10
    part = ImageSet(torch.zeros(5000, 1, 1, 1, dtype=torch.uint8), labels)
    split = hold_out(Data("many", part, part, tuple("0123456789")), "4k/1000")
    assert split.train.labels.bincount().tolist() == [400] * 10 and split.test.labels.bincount().tolist() == [100] * 10


@pytest.mark.parametrize("split", ["45k/5k", "70/0", "0/70", "a/b", "60", "60/10/0", "-1/71"])
def test_a_split_that_does_not_divide_the_training_set_is_refused(split: str):
    """Wrong sums, empty parts, and what is no split."""
    with pytest.raises(InputError, match="the split"):
        hold_out(made((40, 20, 10)), split)


def test_grayscale_is_repeated_for_a_network_of_three_channels():
    """All three channels are the same; labels and fingerprint stay."""
    data = made((3, 2))
    wide = data.with_channels(3)
    assert wide.channels == 3 and torch.equal(wide.train.images[:, 0], wide.train.images[:, 2])
    assert wide.mean().shape == (3, 2, 2) and wide.fingerprint == data.fingerprint
    assert data.with_channels(1) is data


def test_colour_is_not_thrown_away():
    """A network of one channel cannot take a colour set."""
    with pytest.raises(InputError, match="made has 3 channels and the network takes 1"):
        made((3, 2), channels=3).with_channels(1)
