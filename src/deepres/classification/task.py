"""Classification as a task of the training loop: batches of images and labels, a loss, test errors."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from deepres.acceleration.evaluation import EvaluationForm
from deepres.acceleration.step_kernels import fused_cut
from deepres.classification.accuracy import Scores, percent_wrong, score
from deepres.classification.loss import loss_and_error
from deepres.classification.recipe import ClassificationConfig
from deepres.classification.source import Source, source_fingerprint
from deepres.classification.views import Protocol as TestProtocol
from deepres.classification.views import fitted
from deepres.data.augment import CropFlip, normalise
from deepres.data.crops import center_crop
from deepres.data.order import Order, evenly
from deepres.data.resident import Data, ImageSet
from deepres.data.resident_batches import Batches, test_batches
from deepres.data.stream.index import Index, Parts
from deepres.data.stream.labelled import labelled
from deepres.data.stream.loader import Reading, in_order
from deepres.data.stream.photographs import CropColour, Photographs
from deepres.data.stream.statistics import statistics
from deepres.data.stream.uncut import require_nvjpeg
from deepres.records import Json
from deepres.runtime.errors import InputError, Say
from deepres.runtime.progress import every_so_often
from deepres.runtime.ranks import Ranks
from deepres.training.recipe import require
from deepres.training.stop import Stopping, stops

TEST_BATCH = 500
TEST_PIXELS = 32 * 224 * 224  # in a batch of test crops
Labelled = tuple[Tensor, Tensor]  # images (N, C, H, W) and labels (N,)


class TrainingBatches(Protocol):
    """The source of training batches: `Batches` of resident images, or `Photographs` on disk."""

    def raw(self, step: int) -> tuple[Tensor, ...]:
        """What the batch of a step follows from, on the device: a pure function of (seed, step)."""
        ...

    def ready(self, raw: tuple[Tensor, ...]) -> Labelled:
        """The batch that follows from `raw`, by operations of the device alone."""
        ...

    def close(self) -> None:
        """End the processes that prepare the next batches."""


class TestPart(Protocol):
    """The test images of this rank."""

    def hits(self, net: nn.Module, last: bool) -> list[int]:
        """Counts (top-1 right, top-5 right, images): of all images where `last`, else of those for the curve."""
        ...


@dataclass(frozen=True)
class ClassificationTask:
    """The training batches and the test of a run, and facts about its images.

    `mean` (C, H, W) is the mean image in units of 0 to 1; `facts` go into the header of the weights.
    """

    classes: tuple[str, ...]
    channels: int
    fingerprint: str
    mean: Tensor
    batches: TrainingBatches
    test: TestPart
    ranks: Ranks
    label_smoothing: float = 0.0
    facts: Json = dataclasses.field(default_factory=dict[str, object])
    figures: tuple[str, ...] = ("train_error",)
    watched: str | None = "test_error"
    form: EvaluationForm = dataclasses.field(default_factory=EvaluationForm)

    def batch_at(self, step: int) -> Labelled:
        """Images float32 (n, C, H, W), with the mean image subtracted, and labels int64 (n,), on the device."""
        return self.ready(self.raw_at(step))

    def raw_at(self, step: int) -> tuple[Tensor, ...]:
        """What the batch of a step follows from: see `StaticTask`."""
        return self.batches.raw(step)

    def ready(self, raw: tuple[Tensor, ...]) -> Labelled:
        """The batch that follows from `raw`."""
        return self.batches.ready(raw)

    def split(self, batch: Labelled, parts: int) -> Sequence[Labelled]:
        """The batch as `parts` micro-batches of one size."""
        images, labels = batch
        return list(zip(images.chunk(parts), labels.chunk(parts), strict=True))

    def images(self, batch: Labelled) -> Tensor:
        """The images of a batch."""
        return batch[0]

    def largest(self, parts: int) -> Tensor:
        """The images of the first micro-batch: all have one size."""
        return self.images(self.split(self.batch_at(0), parts)[0])

    def rehearse(self, net: nn.Module, images: Tensor) -> Tensor:
        """The scores (N, classes), of auxiliary classifiers as well."""
        outputs = net(images)
        return outputs if isinstance(outputs, Tensor) else torch.cat(outputs)

    def loss(self, net: nn.Module, part: Labelled) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The cross-entropy of a micro-batch, and its training error in percent."""
        images, labels = part
        loss, error = loss_and_error(net(images), labels, self.label_smoothing)
        return loss, {"train_error": error}

    def evaluate(self, net: nn.Module, last: bool) -> Mapping[str, float]:
        """Top-1 and top-5 test error in percent; the ranks share the images, and each image counts once."""
        # In fp32 whatever the precision of training.
        fast = self.form.of(net)
        top1, top5, images = _summed(self.ranks, lambda: self.test.hits(fast, last))
        if not images:
            raise InputError("none of the test images decodes; see which with deepres data check")
        return {"test_error": percent_wrong(top1, images), "test_top5_error": percent_wrong(top5, images)}

    def close(self) -> None:
        """End the processes that decode pictures."""
        self.batches.close()


def classification_task(
    config: ClassificationConfig, source: Source, ranks: Ranks, say: Say, start_mean: Tensor | None = None
) -> ClassificationTask:
    """The task of a configuration whose device and precision are resolved, for this rank.

    `start_mean` (C, H, W) or (C, 1, 1), the mean image of start weights, replaces that of the training images.
    """
    if isinstance(source, Data):
        return _resident(config, source, ranks, start_mean)
    return _streamed(config, source, ranks, say, start_mean)


@dataclass(frozen=True)
class _ResidentTest:
    """The test on whole images in memory; this rank tests every `world`-th of them."""

    every: ImageSet
    few: ImageSet  # for the curve
    mean: Tensor
    device: torch.device
    ranks: Ranks

    def hits(self, net: nn.Module, last: bool) -> list[int]:
        images, own = self.every if last else self.few, slice(self.ranks.rank, None, self.ranks.world)
        mine = dataclasses.replace(images, images=images.images[own], labels=images.labels[own])
        if not len(mine):  # where there are more ranks than images
            return [0, 0, 0]
        return _counts(score(net, test_batches(mine, self.mean, TEST_BATCH, self.device)))


def _resident(config: ClassificationConfig, data: Data, ranks: Ranks, start_mean: Tensor | None) -> ClassificationTask:
    recipe, place = config.recipe, torch.device(config.device)
    require(config.decode == "cpu", "decode", config.decode, "cpu where no crops are taken (crop=0)")
    data = data.with_channels(config.in_channels or data.channels)
    mean = data.mean() if start_mean is None else fitted(start_mean, *data.size)
    order = Order(config.seed, recipe.batch_size, ranks.part(recipe.batch_size))
    augmentation = CropFlip(recipe.pad, recipe.alternate_flips) if recipe.augment else None
    batches = Batches(data.train, mean, order, place, augmentation, fused_cut(config.device))
    # The test images lie on the device, too.
    tested = dataclasses.replace(data.test, images=data.test.images.to(place), labels=data.test.labels.to(place))
    test = _ResidentTest(tested, spread(tested, config.test_images), mean, place, ranks)
    known = (data.classes, data.channels, data.fingerprint, mean)
    return ClassificationTask(*known, batches, test, ranks, recipe.label_smoothing)


class _StreamedTest:
    """The test on pictures on disk by the protocol `center`; this rank tests every `world`-th of them."""

    def __init__(self, index: Index, config: ClassificationConfig, mean: Tensor, ranks: Ranks, say: Say):
        self.index, self.config, self.mean, self.ranks, self.say = index, config, mean, ranks, say
        self.told: set[str] = set()

    def hits(self, net: nn.Module, last: bool) -> list[int]:
        # This rank's pictures, and how they are read.
        config, crop = self.config, self.config.recipe.crop
        own = evenly(len(self.index), 0 if last else config.test_images)[self.ranks.rank :: self.ranks.world]
        view = partial(center_crop, crop=crop, side=TestProtocol("center").sizes(crop)[0])
        counts, seen = [0, 0, 0], every_so_often(self.say, "pictures tested")
        size = max(1, TEST_PIXELS // crop**2)
        reading = Reading(config.workers, config.skip_bad, self.say)
        # Count the right answers, a batch at a time.
        for answer in in_order(labelled(self.index, view), size, reading, own):
            self._tell(answer.bad)
            if answer.batch is not None:
                pictures, labels = answer.batch
                images = normalise(pictures.to(self.mean.device), self.mean)
                counts = [*map(sum, zip(counts, _counts(score(net, [(images, labels)])), strict=True))]
                seen(counts[2], len(own))
        return counts

    def _tell(self, bad: Sequence[tuple[str, str]]) -> None:
        """Tell once of each picture that does not decode."""
        for name, reason in bad:
            if name not in self.told:
                self.say(f"left out of the test: {name}, which does not decode ({reason})")
                self.told.add(name)


def _streamed(
    config: ClassificationConfig, parts: Parts, ranks: Ranks, say: Say, start_mean: Tensor | None
) -> ClassificationTask:
    """Crops of pictures on disk, augmented as in Sec. 3.4."""
    recipe, place, crop = config.recipe, torch.device(config.device), config.recipe.crop
    if config.decode == "gpu":
        require_nvjpeg(place)
    low, high = recipe.sides
    reading = Reading(config.workers, config.skip_bad, say)
    # One rank of each machine computes the mean image and the axes of the colour augmentation for all.
    seen = every_so_often(say, "training pictures seen for the mean image")
    with ranks.one_first():
        found = statistics(
            parts.train, crop=crop, side=low, reading=reading, progress=lambda done: seen(done, len(parts.train))
        )
    mean = (found.mean if start_mean is None else fitted(start_mean, crop, crop)).to(place)
    augmentation = CropColour(crop, (low, high), mean, found.values, found.vectors, recipe.colour)
    order = Order(config.seed, recipe.batch_size, ranks.part(recipe.batch_size))
    batches = Photographs(parts.train, augmentation, order, reading, place, config.decode)
    test = _StreamedTest(parts.test, config, mean, ranks, say)
    known = (parts.train.classes, 3, source_fingerprint(parts), mean.cpu())
    return ClassificationTask(*known, batches, test, ranks, recipe.label_smoothing, {"crop": crop})


def _summed(ranks: Ranks, counts: Callable[[], list[int]]) -> list[int]:
    """The sums of the counts of all ranks. Raises `Stopping` on all ranks where one is told to stop before the end."""
    own, stopped = [0, 0, 0], True  # counted as stopped until the count is complete
    try:
        with stops.at_once():
            own, stopped = counts(), False
    except Stopping:
        pass
    *total, stops_asked = ranks.sum([*own, stopped])
    if stops_asked:
        raise Stopping
    return total


def _counts(scores: Scores) -> list[int]:
    """Counts (top-1 right, top-5 right, images)."""
    return [scores.correct(), scores.correct(top=5), len(scores.labels)]


def spread(images: ImageSet, count: int) -> ImageSet:
    """The images at the places of `evenly`."""
    chosen = evenly(len(images.labels), count)
    if len(chosen) == len(images.labels):
        return images
    return dataclasses.replace(images, images=images.images[chosen], labels=images.labels[chosen])
