"""A decoded data set in memory, and the fixed division of its training part."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepres.data.manifest import UNKNOWN, Manifest
from deepres.data.walk import names_of
from deepres.runtime.errors import InputError, Say


@dataclass(frozen=True)
class ImageSet:
    """One part of a data set, decoded: `images` uint8 (N, C, H, W) and `labels` int64 (N,).

    `skipped` names the pictures of this part that did not decode and were left out. `manifest` has all pictures: first
    those of the images in their order, then those left out.
    """

    images: Tensor
    labels: Tensor
    skipped: tuple[str, ...] = ()
    manifest: Manifest = UNKNOWN

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Data:
    """A decoded data set: `name` as the user gave it, `source` the folder that it was read from.

    `fingerprint` is a SHA-256 over the decoded content and the class names: the same pictures give the same
    fingerprint wherever they lie, and changed ones another.
    """

    name: str
    train: ImageSet
    test: ImageSet
    classes: tuple[str, ...]
    fingerprint: str = ""
    source: str = ""

    @property
    def channels(self) -> int:
        """1 (grayscale) or 3 (RGB)."""
        return self.train.images.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of every image, in pixels."""
        height, width = self.train.images.shape[2:]
        return height, width

    def mean(self) -> Tensor:
        """The per-pixel mean of the training images (Sec. 4.2), float32 (C, H, W) in units of 0 to 1.

        Pixels are whole numbers, so that the sums in float64 are exact and do not depend on their order. Raises
        `InputError` where there are none.
        """
        if not len(self.train):
            raise InputError(f"{self.name} has no training pictures, whose mean is to be taken; give data that has")
        total = torch.zeros(self.train.images.shape[1:], dtype=torch.float64)
        for part in self.train.images.split(2048):
            total += part.sum(0, dtype=torch.float64)
        return (total / (255 * len(self.train))).float()

    def with_channels(self, channels: int) -> "Data":
        """The same data for a network of `channels` input channels; one grayscale channel is repeated.

        Raises `InputError` for colour images and a network of one channel.
        """
        if channels == self.channels:
            return self
        if self.channels != 1:
            raise InputError(
                f"{self.name} has {self.channels} channels and the network takes {channels}; "
                f"use a network of {self.channels} input channels"
            )
        train, test = (
            dataclasses.replace(part, images=part.images.expand(-1, channels, -1, -1))
            for part in (self.train, self.test)
        )
        return dataclasses.replace(self, train=train, test=test)


def fingerprint_of(train: ImageSet, test: ImageSet, classes: tuple[str, ...]) -> str:
    """SHA-256 over shapes, pixels, labels and class names, as a hexadecimal string."""
    digest = hashlib.sha256(json.dumps(classes).encode())
    for part in (train, test):
        digest.update(repr(tuple(part.images.shape)).encode())
        for values in (part.images, part.labels):
            content: Any = values.contiguous().view(-1).numpy()  # hashed where it lies, without a copy
            digest.update(content)
    return digest.hexdigest()


def hold_out(data: Data, split: str) -> Data:
    """Divide the training set as `split` says ("45k/5k", Sec. 4.2): the second part becomes the test set.

    The division is fixed (it depends on the labels alone, not on a seed) and stratified: every class gives
    the held-out part its share, to within one image. Both parts keep the order of the training set. Raises
    `InputError` where `split` is not two numbers that add up to the size of the training set.
    """
    chosen = held_out(data.name, data.train.labels, split)
    left_out = torch.ones(len(data.train.skipped), dtype=torch.bool)  # these stay with the training part
    train, test = (
        ImageSet(data.train.images[mask], data.train.labels[mask], skipped, data.train.manifest.where(every))
        for mask, skipped, every in (
            (~chosen, data.train.skipped, torch.cat([~chosen, left_out])),
            (chosen, (), torch.cat([chosen, ~left_out])),
        )
    )
    kept, held = len(train), len(test)
    fingerprint = hashlib.sha256(f"{data.fingerprint} {kept}/{held}".encode()).hexdigest()
    return dataclasses.replace(data, train=train, test=test, fingerprint=fingerprint)


def held_out(name: str, labels: Tensor, split: str) -> Tensor:
    """Mask (N,) of the training images of data set `name` that `split` holds out, from their labels (N,) alone.

    Each class gives a number of images by the method of largest remainders. Raises `InputError` as `hold_out` does.
    """
    # Read the split.
    total = len(labels)
    match = re.fullmatch(r"(\d+)(k?)/(\d+)(k?)", split.strip().lower())
    if match is None:
        raise InputError(f"the split {split!r} is not two numbers such as 45k/5k; give --split 45k/5k")
    kept, held = (int(match[i]) * (1000 if match[i + 1] else 1) for i in (1, 3))
    if kept + held != total or not kept or not held:
        raise InputError(
            f"the split {split!r} does not divide the {total} training images of {name}; "
            "give two numbers above 0 that add up to that"
        )
    # How many images each class gives.
    places = [torch.nonzero(labels == label).flatten() for label in labels.unique()]
    quota = np.array([len(place) * held for place in places])
    shares = quota // len(labels)
    for index in np.argsort(-(quota % len(labels)), kind="stable")[: held - shares.sum()]:
        shares[index] += 1
    # Which ones: NumPy guarantees that this generator never changes, so the split is the same for ever.
    random = np.random.RandomState(0)
    mask = torch.zeros(len(labels), dtype=torch.bool)
    for place, share in zip(places, shares, strict=True):
        mask[place[torch.from_numpy(random.permutation(len(place))[:share])]] = True
    return mask


def per_class(labels: Tensor, classes: Sequence[str]) -> dict[str, int]:
    """The number of pictures of each class, from their labels (N,)."""
    return dict(zip(classes, labels.bincount(minlength=len(classes)).tolist(), strict=True))


def tell_lacking(name: str, kind: str, classes: Sequence[str], labels: Tensor, say: Say) -> None:
    """Warn of classes without a picture of this `kind` (training or test), unless there are no such pictures at all."""
    present = set(labels.unique().tolist())
    lacking = [own for label, own in enumerate(classes) if label not in present]
    if present and lacking:
        say(f"warning: {name} has no {kind} picture of {names_of(lacking)} of the {len(classes):,} classes")
