"""Statistics of a training set for the augmentation: its mean image and the principal axes of its colours."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypedDict

import torch
from safetensors import SafetensorError
from torch import Tensor

from deepres.data.crops import center_crop
from deepres.data.layouts import has_training_part
from deepres.data.resident_cache import write_kept
from deepres.data.rgb import max_pixels
from deepres.data.stream.index import Index
from deepres.data.stream.labelled import labelled
from deepres.data.stream.loader import Reading, in_order
from deepres.data.walk import OWN
from deepres.runtime import archive, untrusted
from deepres.runtime.cache_folder import REMEDY, cache_folder
from deepres.runtime.errors import InputError, Say

BATCH = 32
FORMAT = 2  # raise it when the result changes


class _Facts(TypedDict):
    images: int
    skipped: list[str]
    side: int


@dataclass(frozen=True)
class Statistics:
    """Statistics of the centre crops of `images` training images with a shorter side of `side`, in units of 0 to 1.

    `mean` float32 (3, crop, crop) is the per-pixel mean of Sec. 3.4. `values` float64 (3,), largest first, and the
    columns of `vectors` (3, 3) are the eigenvalues and eigenvectors of the covariance of RGB over all pixels. `skipped`
    has the names of pictures that did not decode.
    """

    mean: Tensor
    values: Tensor
    vectors: Tensor
    images: int
    skipped: tuple[str, ...]
    side: int

    @property
    def channel_mean(self) -> Tensor:
        """The mean of each channel, float64 (3,)."""
        return self.mean.double().mean((1, 2))


def statistics(
    index: Index,
    *,
    crop: int = 224,
    side: int = 256,
    reading: Reading,
    progress: Callable[[int], None] = lambda done: None,
) -> Statistics:
    """The statistics of an index, computed once for its content and kept beside the data or in the cache folder.

    `progress` is told how many images are done. Raises `InputError` for a crop larger than the shorter side, and for a
    picture that does not decode, unless bad ones are skipped.
    """
    if not 0 < crop <= side:
        raise InputError(f"a crop of {crop} pixels does not fit a shorter side of {side}; give a crop from 1 to {side}")
    # The name of the file is a hash of all that the result depends on.
    key = json.dumps([FORMAT, index.fingerprint, crop, side, reading.skip_bad, max_pixels()])
    name = f"statistics-{crop}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.safetensors"
    places = (cache_folder() / "statistics" / name,)
    if not _has_classes_alone(index.root):
        places = (index.root / OWN / name, *places)
    kept = next((found for place in places if (found := _read_statistics(place)) is not None), None)
    if kept is not None:
        return kept
    made = _compute(index, crop, side, reading, progress)
    _write_statistics(places, made, reading.say)
    return made


def _has_classes_alone(root: Path) -> bool:
    """Whether the folder has only class folders. Other programs would take a folder of ours for one more class."""
    return not has_training_part(root) and not any(path.is_file() for path in root.iterdir())


def _compute(index: Index, crop: int, side: int, reading: Reading, progress: Callable[[int], None]) -> Statistics:
    """The statistics. Sums are of whole numbers, and so do not depend on the order of the pictures."""
    total = torch.zeros(3, crop, crop, dtype=torch.int64)
    products = torch.zeros(3, 3, dtype=torch.int64)
    images, skipped = 0, list[str]()
    samples = labelled(index, partial(center_crop, crop=crop, side=side))
    for answer in in_order(samples, BATCH, reading):
        skipped += [name for name, _ in answer.bad]
        if answer.batch is not None:
            pictures, _ = answer.batch
            total += pictures.sum(0, dtype=torch.int64)
            colours = pictures.transpose(0, 1).flatten(1).double()
            products += (colours @ colours.T).long()
            images += len(pictures)
        progress(images + len(skipped))
    if not images:
        raise InputError(f"{index.root} has no picture that decodes; give a folder of images")
    # The covariance of the colours, and its axes.
    pixels = images * crop * crop
    mean = total.sum((1, 2)).double() / pixels
    covariance = (products.double() / pixels - mean[:, None] * mean) / 255**2
    values, vectors = torch.linalg.eigh(covariance)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    heaviest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    vectors = vectors * heaviest.sign()  # libraries differ in the sign of eigenvectors
    return Statistics((total.double() / (255 * images)).float(), values, vectors, images, tuple(skipped), side)


def _read_statistics(file: Path) -> Statistics | None:
    """The statistics in a file; None where there is none or it is damaged."""
    try:
        with archive.opened(file) as stored:
            facts = untrusted.decode(stored.metadata()["facts"], _Facts, str(file), own=True)
            mean, values, vectors = (stored.get_tensor(name) for name in ("mean", "values", "vectors"))
            if mean.dim() != 3 or len(mean) != 3 or values.shape != (3,) or vectors.shape != (3, 3):
                return None
            return Statistics(mean, values, vectors, facts["images"], tuple(facts["skipped"]), facts["side"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, InputError):
        return None


def _write_statistics(places: tuple[Path, ...], made: Statistics, say: Say) -> None:
    """Write to the first of the places that allows it."""
    facts = {"images": made.images, "skipped": made.skipped, "side": made.side}
    tensors = {"mean": made.mean, "values": made.values.contiguous(), "vectors": made.vectors.contiguous()}
    for place in places:
        try:
            write_kept(place, tensors, facts)
        except (OSError, SafetensorError):
            continue
        say(f"the statistics are kept in {place}")
        return
    say(f"the statistics are not kept, since neither the data's folder nor the cache can be written to; {REMEDY}")
