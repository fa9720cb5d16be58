"""The views of an image that a test protocol scores, and the average over them (Secs. 3.4 and 4.2)."""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from deepres.data import resizing
from deepres.runtime.errors import InputError

ProtocolName = Literal["single", "center", "10-crop", "dense"]
Views = Callable[[Tensor], list[Tensor]]
SCALES = (224, 256, 384, 480, 640)  # Sec. 3.4
MOST_PIXELS = 2**23  # of a view: its maps take a hundred times the memory
STEP = 32  # input pixels between positions of the last map, in the networks of Table 1
CROP, SHORTER = 224, 256  # of networks for ImageNet; other networks have them in proportion


@dataclass(frozen=True)
class Protocol:
    """How an image is tested; the scores of all its views are averaged after softmax.

    `single` takes the whole image as it is (Sec. 4.2).
    `center` resizes the shorter side to 256 pixels and takes the crop in the middle.
    `10-crop` resizes likewise and takes the crops in the corners and the middle, and their flips (Sec. 3.4).
    `dense` resizes the shorter side to each of several `scales` and takes the whole image, and its flip if `flip`; the
    network is made fully convolutional (Sec. 3.4).

    These sizes are for networks with a crop of 224, and in proportion for others. Those of `dense` are the crop and
    multiples of 32. `scales` override the default sizes; `center` and `10-crop` take one.
    """

    name: ProtocolName
    scales: tuple[int, ...] = ()
    flip: bool = True

    def sizes(self, crop: int) -> tuple[int, ...]:
        """The shorter sides that an image is resized to, in pixels, for a network of `crop`; none for `single`."""
        if self.name == "single":
            return ()
        if self.name == "dense":
            # Multiples of the last map's step, as in the paper: else its last positions see more padding than picture.
            larger = (max(crop, STEP * round(scale * crop / CROP / STEP)) for scale in SCALES[1:])
            return self.scales or tuple(dict.fromkeys((crop, *larger)))
        return self.scales[:1] or (round(SHORTER * crop / CROP),)

    def facts(self, crop: int) -> dict[str, object]:
        """The protocol, crop and scales, for a record."""
        flip = {"flip": self.flip} if self.name == "dense" else {}
        return {"protocol": self.name, "crop": crop, "scales": list(self.sizes(crop)), **flip}

    def views(self, crop: int) -> Views:
        """The function from an image, uint8 (C, H, W), to its views, uint8 (C, h, w); always the same number.

        Raises `InputError` for a crop that is larger than the given scale.
        """
        sizes = self.sizes(crop)
        if self.name in ("center", "10-crop") and sizes[0] < crop:
            raise InputError(
                f"a crop of {crop} has no room in a shorter side of {sizes[0]}; give --scales {crop} or more"
            )
        if self.name == "single":
            return lambda image: [image]
        if self.name == "center":
            return lambda image: [center(resized(image, sizes[0]), crop)]
        if self.name == "10-crop":
            return lambda image: ten_crops(resized(image, sizes[0]), crop)
        return lambda image: dense(image, sizes, self.flip)


def resized(image: Tensor, shorter: int) -> Tensor:
    """An image, uint8 (C, H, W), with its shorter side at `shorter` pixels and its aspect ratio kept.

    The pixels are exactly those of torchvision's `Resize` on a Pillow picture. Raises `InputError` for an image so
    long that the result would fill memory.
    """
    height, width = image.shape[-2:]
    size = resizing.scaled((width, height), shorter)
    if math.prod(size) > MOST_PIXELS:
        raise InputError(
            f"a picture of {width}x{height} with its shorter side at {shorter} has more than "
            f"{MOST_PIXELS:,} pixels; leave it out, or give smaller scales"
        )
    if size == (width, height):
        return image
    planes = [np.asarray(resizing.resized(Image.fromarray(plane), shorter)) for plane in image.numpy()]
    return torch.from_numpy(np.stack(planes))


def center(image: Tensor, crop: int) -> Tensor:
    """The middle `crop` x `crop` pixels of an image (C, H, W), with black around one that is smaller."""
    height, width = image.shape[-2:]
    top, left = resizing.margin(height, crop), resizing.margin(width, crop)
    return F.pad(image, (-left, left + crop - width, -top, top + crop - height))  # negative padding crops


def ten_crops(image: Tensor, crop: int) -> list[Tensor]:
    """The four corners and the middle of an image (C, H, W), then their left-right flips."""
    ends = (slice(crop), slice(-crop, None))
    corners = [image[:, rows, columns] for rows in ends for columns in ends]
    crops = [*corners, center(image, crop)]
    return crops + [view.flip(-1) for view in crops]


def dense(image: Tensor, scales: Sequence[int], flip: bool) -> list[Tensor]:
    """The whole image (C, H, W) with its shorter side at each of `scales`, each followed by its left-right flip."""
    views = [resized(image, scale) for scale in scales]
    return [seen for view in views for seen in ((view, view.flip(-1)) if flip else (view,))]


def fitted(mean: Tensor, height: int, width: int) -> Tensor:
    """The mean image (C, H, W) resized to a view's `height` and `width`; unchanged where it has that size."""
    if mean.shape[-2:] == (height, width):
        return mean
    return F.interpolate(mean[None], (height, width), mode="bilinear", antialias=True)[0]


@torch.no_grad()
def score_views(
    net: Callable[[Tensor], Tensor],
    images: Sequence[Tensor],
    views: Views,
    prepare: Callable[[Tensor], Tensor],
    pixels: int,
) -> Tensor:
    """Softmax scores (N, K) of N images, float64 on the processor, averaged over the views of each.

    `net`, in evaluation mode, gives logits (n, K) or maps of logits (n, K, h, w). Of a map, softmax is taken at each
    position and averaged over the positions first, so that each position counts as the crop that it sees. `prepare`
    turns views, uint8 (n, C, h, w), into the input of `net`. Views of one size share batches of at most `pixels`
    pixels, or of one view; the grouping changes scores only by rounding in the network.
    """
    # Group the views by size.
    cut = [views(image) for image in images]
    every = [view for own in cut for view in own]
    groups: defaultdict[torch.Size, list[int]] = defaultdict(list)
    for place, view in enumerate(every):
        groups[view.shape].append(place)
    # Score them, a batch of one size at a time.
    rows: dict[int, Tensor] = {}
    for shape, places in groups.items():
        size = max(1, pixels // shape[1:].numel())
        for start in range(0, len(places), size):
            batch = places[start : start + size]
            scores = net(prepare(torch.stack([every[place] for place in batch]))).cpu().double()
            shares = scores.reshape(*scores.shape[:2], -1).softmax(1).mean(2)
            rows |= zip(batch, shares, strict=True)
    # Average over the views of each image.
    table = torch.stack([rows[place] for place in range(len(every))])
    return table.view(len(images), len(cut[0]), -1).mean(1)
