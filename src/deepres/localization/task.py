"""Localization as a task of the training loop: batches of crops with boxes, two losses, the localization error."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from deepres.classification.views import fitted
from deepres.data.boxes.index import BoxIndex, BoxParts
from deepres.data.crops import colour_shift, finish
from deepres.data.order import Order, evenly
from deepres.data.stream.loader import Reading, Stream
from deepres.data.stream.statistics import statistics
from deepres.detection.cached import Proposals
from deepres.detection.task import fingerprint_of
from deepres.localization.crops import Cropping, Crops, training_samples
from deepres.localization.error import error_of, is_right
from deepres.localization.loss import FIGURES, losses
from deepres.localization.proposed import proposals_by
from deepres.localization.protocol import PLAIN
from deepres.localization.reading import pictures
from deepres.localization.recipe import LocalizationConfig, LocalizationRecipe
from deepres.localization.targets import draw, rule_of
from deepres.localization.tester import Localizers, best, rescored
from deepres.models.localization.localizer import Localizer
from deepres.records import Json
from deepres.runtime.errors import InputError, Say
from deepres.runtime.progress import every_so_often
from deepres.runtime.ranks import Ranks
from deepres.training.stop import Stopping, stops


class Batch(NamedTuple):
    """N crops as the network sees them, float32 (N, 3, crop, crop); boxes (N, M, 4) and labels (N,); on the device."""

    images: Tensor
    boxes: Tensor
    labels: Tensor


@dataclass(frozen=True)
class LocalizationTask:
    """The training batches and the test of a run of localization, and facts about its pictures.

    `mean` (3, crop, crop), in 0..1, is the mean image that is subtracted.
    """

    classes: tuple[str, ...]
    fingerprint: str
    mean: Tensor
    recipe: LocalizationRecipe
    batches: Stream[tuple[Crops, Tensor]]
    test: "Test"
    ranks: Ranks
    device: torch.device
    count: int  # crops of a step of this rank
    facts: Json
    channels: int = 3
    figures: tuple[str, ...] = FIGURES
    watched: str | None = "loc_error"

    def batch_at(self, step: int) -> Batch:
        """The crops of a step with their objects, colours shifted and the mean image subtracted."""
        crops, shift = self.batches.batch(step)
        images, boxes, labels = (own.to(self.device, non_blocking=True) for own in crops)
        return Batch(finish(images, shift.to(self.device), self.mean.to(self.device)), boxes, labels)

    def split(self, batch: Batch, parts: int) -> Sequence[Batch]:
        """The batch in `parts` of equal numbers of crops."""
        return [Batch(*own) for own in zip(*(value.chunk(parts) for value in batch), strict=True)]

    def images(self, batch: Batch) -> Tensor:
        """The crops of a batch."""
        return batch.images

    def largest(self, parts: int) -> Tensor:
        """Images that are nothing but as large as those of a micro-batch: all have one size."""
        return torch.zeros(self.count // parts, *self.mean.shape, device=self.device)

    def rehearse(self, net: nn.Module, images: Tensor) -> Tensor:
        """All outputs for one class of each image, side by side."""
        found = net(images, torch.zeros(len(images), 1, dtype=torch.int64, device=images.device))
        return torch.cat([found.logits.flatten(), found.deltas.flatten()])

    def loss(self, net: nn.Module, part: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The sum of both losses, and each of them."""
        stage = "rpn" if self.test.proposals is None else "rcnn"
        found = net(part.images, part.labels[:, None])
        drawn = draw(found.anchors, part.boxes, rule_of(stage, self.recipe.anchors))
        each = dict(zip(FIGURES, losses(found, drawn, part.boxes, stage), strict=True))
        return each["class_loss"] + each["box_loss"], each

    def evaluate(self, net: nn.Module, last: bool) -> Mapping[str, float]:
        """`loc_error` in percent, where the true class is given, by the 1-crop test; of an `rcnn` after its proposals.

        Ranks share the pictures.
        """
        found = self.test.hits(cast(Localizer, net), last, self.ranks)
        if not found:
            raise InputError("none of the test images decodes; see which with deepres data check")
        return {"loc_error": error_of(found).error()}

    def close(self) -> None:
        """End the processes that decode pictures."""
        self.batches.close()


@dataclass(frozen=True)
class Test:
    """The test pictures of a run, of which each rank tests every `world`-th; of an `rcnn` with their proposals."""

    index: BoxIndex
    few: int  # pictures for the curve; 0: all
    reading: Reading
    proposals: Proposals | None

    def hits(self, net: Localizer, last: bool, ranks: Ranks) -> list[bool]:
        """Whether the box of each picture is right, in the order of the ranks.

        Raises `Stopping` on all ranks where one is told to stop before the end.
        """
        places = evenly(len(self.index), 0 if last else self.few)[ranks.rank :: ranks.world]
        seen = every_so_often(self.reading.say, "pictures tested")
        own: list[bool] | None = None
        try:
            with stops.at_once():
                every = pictures(self.index, places, self.reading, lambda done: seen(done, len(places)))
                own = [self._is_right(net, place, image) for place, image in every if image is not None]
        except Stopping:
            pass
        every = ranks.gather(own)
        if any(part is None for part in every):
            raise Stopping
        return [hit for part in every for hit in part or ()]

    def _is_right(self, net: Localizer, place: int, image: Tensor) -> bool:
        label = self.index.pictures.labels[place]
        if self.proposals is None:
            box = Localizers([net]).locate(image, label[None], PLAIN).boxes
        else:
            box = best(*rescored([net], image, self.proposals.of(place), int(label)), 0.0)[0][None]
        return bool(is_right(box, self.index.truth(place).boxes).any())


def localization_task(
    config: LocalizationConfig, source: BoxParts, ranks: Ranks, say: Say, start_mean: Tensor | None = None
) -> LocalizationTask:
    """The task of a configuration whose device and precision are resolved, for this rank.

    `start_mean` (3, H, W) or (3, 1, 1), of start weights, replaces the mean image of the training pictures.
    """
    recipe, device, crop = config.recipe, torch.device(config.device), config.crop
    reading = Reading(config.workers, config.skip_bad, say)
    # One rank of each machine computes the mean image, the axes of the colour augmentation, and the proposals for all.
    seen = every_so_often(say, "training pictures seen for the mean image")
    proposals: list[Proposals | None] = [None, None]
    with ranks.one_first():
        found = statistics(
            source.train.pictures,
            crop=crop,
            side=recipe.sides[0],
            reading=reading,
            progress=lambda done: seen(done, len(source.train)),
        )
        if config.rpn is not None:
            proposals = [proposals_by(config.rpn, part, recipe.regions, device, reading) for part in source]
    mean = found.mean if start_mean is None else fitted(start_mean, crop, crop).expand(3, crop, crop)
    # The training batches, and the test.
    shift = partial(colour_shift, values=found.values, vectors=found.vectors, sigma=recipe.colour)
    order = Order(config.seed, recipe.batch_size, ranks.part(recipe.batch_size))
    samples = training_samples(source.train, Cropping.of(config), proposals[0])
    reading = dataclasses.replace(reading, pinned=device.type == "cuda")
    batches = Stream[tuple[Crops, Tensor]](samples, lambda batch, draws: (batch, shift(draws)), order, reading)
    test = Test(source.test, config.test_images, Reading(config.workers, config.skip_bad, say), proposals[1])
    known = (tuple(source.train.classes), fingerprint_of(source), mean)
    count = order.part.stop - order.part.start
    return LocalizationTask(*known, recipe, batches, test, ranks, device, count, {"crop": crop})
