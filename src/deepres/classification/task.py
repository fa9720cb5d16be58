"""What a run is trained and tested on: images resident in memory (Sec. 4.2), or pictures read as they are needed."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from deepres.acceleration.folded import folded
from deepres.acceleration.on_kernels import runs_on_kernels
from deepres.classification.accuracy import Scores, percent_wrong, score
from deepres.classification.views import Protocol, fitted
from deepres.data.augment import CropFlip, channels_last, normalise
from deepres.data.crops import DRAWS, center_crop, finish, scale_crop_flip
from deepres.data.listing import counted
from deepres.data.order import Order
from deepres.data.resident import Data, ImageSet
from deepres.data.resident_batches import Batches, test_batches
from deepres.data.sources import load_data_set, still_there
from deepres.data.stream.index import Index, Parts, open_index
from deepres.data.stream.labelled import labelled, on_device
from deepres.data.stream.loader import Reading, Stream, in_order
from deepres.data.stream.statistics import statistics
from deepres.records import Json
from deepres.runtime.errors import InputError
from deepres.runtime.progress import every_so_often
from deepres.runtime.ranks import ALONE, Ranks
from deepres.runtime.say import Say
from deepres.training.recipe import Config
from deepres.training.stop import Stopping, stops
from deepres.training.trainer import BatchAt, Evaluate

TEST_BATCH = 500
TEST_PIXELS = 32 * 224 * 224  # of a batch of test crops
Source = Data | Parts


@dataclass(frozen=True)
class Material:
    """The batches and the test of a run, and what is known of its images.

    `mean` (C, H, W) is the per-pixel mean in units of 0 to 1, `facts` go into the header of the weights.
    """

    classes: tuple[str, ...]
    channels: int
    fingerprint: str
    mean: Tensor
    batch_at: BatchAt
    evaluate: Evaluate
    facts: Json = dataclasses.field(default_factory=dict[str, object])
    close: Callable[[], None] = lambda: None


def load_source(config: Config, say: Say, ranks: Ranks = ALONE) -> Source:
    """The data of a configuration; `say` is told what takes time, and what there is. One rank prepares it for all.

    Raises `InputError` for data that cannot be had, lack training or test pictures or have one class alone, for whole
    images that are not square, and for options that do not go with a recipe of crops.
    """
    size, bad, crop = config.image_size, config.skip_bad, config.recipe.crop
    gray = config.in_channels not in (None, 3)
    for option, given in (("--split", config.split), ("--image-size", size), ("--in-channels", gray)):
        if crop and given:
            raise InputError(f"the recipe {config.recipe.name} takes crops of pictures as they are; leave {option} out")
    place, rule = still_there(config.data_path or config.data, "the run"), config.division
    with ranks.one_first():
        if crop:
            source: Source = open_index(place, say, rule)
        else:
            source = load_data_set(
                place, split=config.split, image_size=size, skip_bad=bad, division=rule, progress=say
            )
    classes = source.classes if isinstance(source, Data) else source.train.classes
    say(f"{config.data}: {counted(len(source.train), len(source.test), classes)}")
    if not len(source.train):
        raise InputError(f"{config.data} has no training pictures; add some, in train/ where there is a test/ or val/")
    if not len(source.test):
        raise InputError(f"{config.data} has no test pictures; a class needs two to give one, or put some into test/")
    if len(classes) < 2:
        raise InputError(f"{config.data} has one class alone; give the folder that holds the class folders")
    if isinstance(source, Data) and source.size[0] != source.size[1]:
        height, width = source.size
        raise InputError(
            f"{config.data} has whole images of {width}x{height} pixels, and networks take square ones; give "
            f"--image-size {min(height, width)}"
        )
    return source


def material(config: Config, source: Source, ranks: Ranks, say: Say, start_mean: Tensor | None = None) -> Material:
    """The material of a configuration whose device and precision are resolved, for this rank.

    `start_mean` (C, H, W) or (C, 1, 1), of start weights, is subtracted in place of the mean of the training images.
    """
    if isinstance(source, Data):
        return _resident(config, source, ranks, start_mean)
    return _streamed(config, source, ranks, say, start_mean)


def _resident(config: Config, data: Data, ranks: Ranks, start_mean: Tensor | None) -> Material:
    recipe, place = config.recipe, torch.device(config.device)
    data = data.with_channels(config.in_channels or data.channels)
    mean = data.mean() if start_mean is None else fitted(start_mean, *data.size)
    own = ranks.part(recipe.batch_size)
    augmentation = CropFlip(recipe.pad, recipe.alternate_flips) if recipe.augment else None
    batches = Batches(data.train, mean, Order(config.seed, recipe.batch_size, own), place, augmentation)
    part = spread(data.test, config.test_images)

    def evaluate(net: nn.Module, last: bool) -> Mapping[str, float]:
        images = data.test if last else part
        own = slice(ranks.rank, None, ranks.world)
        mine = dataclasses.replace(images, images=images.images[own], labels=images.labels[own])

        def counts() -> list[int]:
            if not len(mine):  # of a rank without an image, where there are more ranks than images
                return [0, 0, 0]
            hits = _hits(score(_for_scores(net), test_batches(mine, mean, TEST_BATCH, place)))
            return [*hits, len(mine)]

        return _figures(_summed(ranks, counts))

    return Material(data.classes, data.channels, data.fingerprint, mean, batches.batch, evaluate)


def _streamed(config: Config, parts: Parts, ranks: Ranks, say: Say, start_mean: Tensor | None) -> Material:
    """Crops of pictures on disk, augmented as in Sec. 3.4, and tested by the protocol `center`."""
    recipe, place, crop = config.recipe, torch.device(config.device), config.recipe.crop
    low, high = recipe.sides
    seen = every_so_often(say, "training pictures seen for the mean image")
    reading = Reading(config.workers, config.skip_bad, say)

    with ranks.one_first():
        found = statistics(
            parts.train, crop=crop, side=low, reading=reading, progress=lambda done: seen(done, len(parts.train))
        )
    mean = found.mean if start_mean is None else fitted(start_mean, crop, crop)
    axes = {"values": found.values, "vectors": found.vectors}
    augment = partial(scale_crop_flip, crop=crop, sides=(low, high))
    ready = partial(finish, mean=channels_last(mean.to(place)), sigma=recipe.colour, **axes)
    order = Order(config.seed, recipe.batch_size, ranks.part(recipe.batch_size))
    stream = Stream(labelled(parts.train, augment, DRAWS), on_device(ready, place), order, reading)

    told: set[str] = set()

    def tell(name: str, reason: str) -> None:
        if name not in told:
            say(f"left out of the test: {name}, which does not decode ({reason})")
            told.add(name)

    def evaluate(net: nn.Module, last: bool) -> Mapping[str, float]:
        own = evenly(len(parts.test), 0 if last else config.test_images)[ranks.rank :: ranks.world]

        def counts() -> list[int]:
            return _test_counts(_for_scores(net), parts.test, mean.to(place), own, config, tell, say)

        return _figures(_summed(ranks, counts))

    facts: Json = {"crop": crop}
    return Material(parts.train.classes, 3, fingerprint_of(parts), mean, stream.batch, evaluate, facts, stream.close)


def fingerprint_of(source: Source) -> str:
    """A SHA-256 over the content of both parts, as a run records it: the test error may change the rate."""
    if isinstance(source, Data):
        return source.fingerprint
    return hashlib.sha256("".join(part.fingerprint for part in source).encode()).hexdigest()


def _for_scores(net: nn.Module) -> nn.Module:
    """The net as it is tested fast, in fp32 whatever it is trained in, as by `deepres eval`."""
    return net if runs_on_kernels(net) else folded(net)


def _summed(ranks: Ranks, counts: Callable[[], list[int]]) -> list[int]:
    """The counts of all ranks added up; raises `Stopping` on all of them where one is told to stop before the end."""
    own, stopped = [0, 0, 0], True
    try:
        with stops.at_once():
            own, stopped = counts(), False
    except Stopping:
        pass
    *total, stops_asked = ranks.sum([*own, stopped])
    if stops_asked:
        raise Stopping
    return total


def _test_counts(
    net: nn.Module, index: Index, mean: Tensor, own: Tensor, config: Config, tell: Callable[[str, str], None], say: Say
) -> list[int]:
    """Of this rank's test pictures: how many are right, right among the best five, and all; `tell` hears the rest."""
    crop = config.recipe.crop
    view = partial(center_crop, crop=crop, side=Protocol("center").sizes(crop)[0])
    counts = [0, 0, 0]
    seen, total = every_so_often(say, "pictures tested"), len(own)
    size = max(1, TEST_PIXELS // crop**2)
    for answer in in_order(labelled(index, view), size, Reading(config.workers, config.skip_bad, say), own):
        for name, reason in answer.bad:
            tell(name, reason)
        if answer.batch is not None:
            pictures, labels = answer.batch
            hits = _hits(score(net, [(normalise(pictures.to(mean.device), mean), labels)]))
            counts = [sum(pair) for pair in zip(counts, [*hits, len(labels)], strict=True)]
            seen(counts[2], total)
    return counts


def _hits(scores: Scores) -> list[int]:
    return [scores.correct(), scores.correct(top=5)]


def _figures(counts: list[int]) -> dict[str, float]:
    """Top-1 and top-5 test error in percent: each rank scored its images, and each image counts once."""
    top1, top5, images = counts
    if not images:
        raise InputError("none of the test images decodes; see which with deepres data check")
    return {"test_error": percent_wrong(top1, images), "test_top5_error": percent_wrong(top5, images)}


def evenly(total: int, count: int) -> Tensor:
    """`count` places of `total` at even distances (all where `count` is 0 or more than there are), int64."""
    return torch.arange(count) * total // count if 0 < count < total else torch.arange(total)


def spread(images: ImageSet, count: int) -> ImageSet:
    """The images at the places of `evenly`."""
    chosen = evenly(len(images.labels), count)
    if len(chosen) == len(images.labels):
        return images
    return dataclasses.replace(images, images=images.images[chosen], labels=images.labels[chosen])
