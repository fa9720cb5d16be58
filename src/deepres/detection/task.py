"""Detection as a task of the training loop: batches of pictures with boxes, four losses, mean average precision."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from deepres.data.boxes.index import BoxIndex, BoxParts
from deepres.data.boxes.truth import Truth
from deepres.data.order import Order, evenly
from deepres.data.stream.loader import Reading, Stream
from deepres.detection.cached import proposals_by
from deepres.detection.form import fast_form
from deepres.detection.loss import FIGURES, anchor_losses, region_losses
from deepres.detection.mean_ap.coco import coco_map
from deepres.detection.mean_ap.recall import proposal_recall
from deepres.detection.mean_ap.voc import voc_map
from deepres.detection.protocol import Protocol
from deepres.detection.recipe import DetectionConfig, DetectionRecipe
from deepres.detection.scenes import Augmentation, Scene, largest, mean_colour, training_samples
from deepres.detection.targets import Objects, Sample, sample_anchors, sample_regions
from deepres.detection.tester import Progress, detections, proposals_of
from deepres.models.detection.anchors import base_anchors
from deepres.models.detection.detector import Detector
from deepres.models.detection.images import fitted_size, padded
from deepres.models.detection.outputs import Detections
from deepres.models.detection.proposals import Selection, select
from deepres.records import Json
from deepres.runtime.errors import Say
from deepres.runtime.progress import every_so_often
from deepres.runtime.ranks import Ranks
from deepres.training.stop import Stopping, stops


@dataclass(frozen=True)
class DetectionTask:
    """The training batches and the test of a run of detection, and facts about its pictures.

    `mean` (3, 1, 1), in 0..1, is the mean colour that is subtracted.
    """

    classes: tuple[str, ...]
    fingerprint: str
    mean: Tensor
    recipe: DetectionRecipe
    smallest: float  # pixels of a proposal's shorter side at least
    batches: Stream[list[Scene]]
    test: "Test"
    ranks: Ranks
    device: torch.device
    room: tuple[int, int, int] = (0, 0, 0)  # pictures of a step, height and width of the largest micro-batch
    channels: int = 3
    facts: Json = dataclasses.field(default_factory=dict[str, object])
    figures: tuple[str, ...] = FIGURES

    @property
    def watched(self) -> str | None:
        """The figure of the test that a plateau is seen by."""
        return "recall" if self.recipe.part == "rpn" else "map50"

    def batch_at(self, step: int) -> list[Scene]:
        """The pictures of a step with their objects, in the memory of the processor."""
        return self.batches.batch(step)

    def split(self, batch: list[Scene], parts: int) -> Sequence[list[Scene]]:
        """The batch in `parts` of equal numbers of pictures."""
        size = len(batch) // parts
        return [batch[start : start + size] for start in range(0, size * parts, size)]

    def images(self, batch: list[Scene]) -> Tensor:
        """The pictures of a batch, padded to one size, on the device."""
        return padded([scene.image.to(self.device, non_blocking=True) for scene in batch], self.mean.to(self.device))

    def largest(self, parts: int) -> Tensor:
        """Images that are nothing but as large as the largest of training."""
        count, height, width = self.room
        return torch.zeros(count // parts, self.channels, height, width, device=self.device)

    def rehearse(self, net: nn.Module, images: Tensor) -> Tensor:
        """All outputs, side by side, of as many regions as are sampled in an image at most."""
        height, width = images.shape[2:]

        def choose(logits: Tensor, deltas: Tensor, anchors: Tensor) -> list[Tensor]:
            whole = anchors.new_tensor([[0, 0, width, height]]).repeat(self.recipe.regions, 1)
            return [whole] * len(logits)

        found = net(images, None, choose if self.recipe.part != "rpn" else _no_regions)
        outputs = [found.objectness, found.anchor_deltas, *(found.found or ())]
        return torch.cat([output.flatten().float() for output in outputs])

    def loss(self, net: nn.Module, part: list[Scene]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The sum of the losses that are trained, and each of the four; those that are not trained are 0."""
        recipe, objects = self.recipe, [scene.objects.to(self.device) for scene in part]
        sizes = [(scene.image.shape[1], scene.image.shape[2]) for scene in part]
        samples = list[Sample]()
        # Forward; the regions that are scored are sampled from the proposals of the same pass.
        given = [scene.proposals for scene in part]
        choose = partial(self._choose, objects=objects, sizes=sizes, given=given, into=samples)
        found = net(self.images(part), sizes, choose if recipe.part != "rpn" else _no_regions)
        none = found.objectness.new_zeros(())
        losses: dict[str, Tensor] = dict.fromkeys(FIGURES, none)
        # The losses of sampled anchors and regions.
        if recipe.part != "regions":
            anchors = [
                sample_anchors(found.anchors, size, own, recipe.anchors)
                for size, own in zip(sizes, objects, strict=True)
            ]
            own = anchor_losses(found.objectness, found.anchor_deltas, anchors)
            losses |= dict(zip(FIGURES[:2], own, strict=True))
        if found.found is not None:
            losses |= dict(zip(FIGURES[2:], region_losses(found.found, samples), strict=True))
        return torch.stack([*losses.values()]).sum(), losses

    def _choose(
        self,
        logits: Tensor,
        deltas: Tensor,
        anchors: Tensor,
        *,
        objects: Sequence[Objects],
        sizes: Sequence[tuple[int, int]],
        given: Sequence[Tensor | None],
        into: list[Sample],
    ) -> list[Tensor]:
        """The regions of each image, by chance among its proposals and true boxes; `into` gets their targets.

        Proposals that are `given` take the place of those of the network.
        """
        recipe = self.recipe
        how = Selection(recipe.candidates, recipe.proposals, smallest=self.smallest)
        chosen: list[Tensor] = []
        every = zip(logits.detach(), deltas.detach(), objects, sizes, given, strict=True)
        for scores, moves, own, size, known in every:
            proposals = select(scores, moves, anchors, size, how)[0] if known is None else known.to(logits.device)
            regions = torch.cat([proposals, own.boxes])
            sample = sample_regions(regions, own, recipe.regions, recipe.positive_share, recipe.negatives_from)
            chosen.append(regions[sample.places])
            into.append(sample)
        return chosen

    def evaluate(self, net: nn.Module, last: bool) -> Mapping[str, float]:
        """`map50` (PASCAL VOC, by area) and `map` (COCO, over IoU 0.5 to 0.95), in percent; ranks share pictures.

        An RPN alone, for which no region is scored yet, has the recall of its proposals instead: `recall50` and, over
        the same IoUs, `recall`.
        """
        net = fast_form(cast(Detector, net))
        if self.recipe.part == "rpn":
            return recalls_of(self.test.proposals(net, last, self.ranks), net.plan.proposals)
        return scores_of(self.test.detections(net, last, self.ranks), self.classes)

    def close(self) -> None:
        """End the processes that decode pictures."""
        self.batches.close()


Found = Sequence[tuple[Truth, Detections]]
Proposed = Sequence[tuple[Truth, Tensor]]
T = TypeVar("T")


def recalls_of(proposed: Proposed, most: int) -> dict[str, float]:
    """`recall50` and `recall` of `most` proposals a picture, in percent; 0 where no object counts."""
    truths, boxes = [truth for truth, _ in proposed], [own for _, own in proposed]
    [found] = proposal_recall(truths, boxes, [most])
    return {"recall50": 100 * (found.recall or 0.0), "recall": 100 * (found.average or 0.0)}


def scores_of(found: Found, classes: Sequence[str]) -> dict[str, float]:
    """`map50` and `map` in percent; 0 for a part of the test pictures in which no object counts."""
    truths, detected = [truth for truth, _ in found], [own for _, own in found]
    ours, coco = voc_map(truths, detected, classes), coco_map(truths, detected, classes)
    return {"map50": 100 * (ours.map or 0.0), "map": 100 * (coco.map or 0.0)}


@dataclass(frozen=True)
class Test:
    """The test pictures of a run, of which each rank tests every `world`-th."""

    index: BoxIndex
    few: int  # pictures for the curve; 0: all
    mean: Tensor
    reading: Reading

    def detections(self, net: Detector, last: bool, ranks: Ranks) -> Found:
        """Truth and detections of the pictures, the same on all ranks.

        Raises `Stopping` on all ranks where one is told to stop before the end.
        """

        def detect(places: Tensor, progress: Progress) -> Iterable[tuple[int, Detections]]:
            return detections([net], Protocol(), self.index, places, self.reading, progress)

        return self._shared(detect, last, ranks)

    def proposals(self, net: Detector, last: bool, ranks: Ranks) -> Proposed:
        """Truth and the proposals (k, 4) of the pictures, by falling objectness; as `detections`."""

        def propose(places: Tensor, progress: Progress) -> Iterable[tuple[int, Tensor]]:
            count = net.plan.proposals
            every = proposals_of(net, self.index, places, self.reading, count, progress=progress)
            return ((place, boxes) for place, boxes, _ in every)

        return self._shared(propose, last, ranks)

    def _shared(
        self, find: Callable[[Tensor, Progress], Iterable[tuple[int, T]]], last: bool, ranks: Ranks
    ) -> Sequence[tuple[Truth, T]]:
        """Truth and what `find` yields for pictures at given places, of the parts of all ranks."""
        places = evenly(len(self.index), 0 if last else self.few)[ranks.rank :: ranks.world]
        seen = every_so_often(self.reading.say, "pictures tested")
        own: list[tuple[Truth, T]] | None = None
        try:
            with stops.at_once():
                made = find(places, lambda done: seen(done, len(places)))
                own = [(self.index.truth(place), found) for place, found in made]
        except Stopping:
            pass
        every = ranks.gather(own)
        if any(part is None for part in every):
            raise Stopping
        return [pair for part in every for pair in part or ()]


def detection_task(
    config: DetectionConfig, source: BoxParts, ranks: Ranks, say: Say, start_mean: Tensor | None = None
) -> DetectionTask:
    """The task of a configuration whose device and precision are resolved, for this rank.

    `start_mean` (3, H, W) or (3, 1, 1), of start weights, replaces the mean colour of the training pictures.
    """
    recipe, device = config.recipe, torch.device(config.device)
    reading = Reading(config.workers, config.skip_bad, say)
    mean = mean_colour(source.train, reading) if start_mean is None else start_mean.mean((1, 2), keepdim=True)
    mean = mean.to(device)
    # The training batches, and the test.
    order = Order(config.seed, recipe.batch_size, ranks.part(recipe.batch_size))
    proposals = None
    if config.rpn is not None:
        with ranks.one_first():
            proposals = proposals_by(config.rpn, source.train, recipe.proposals, device, reading)
    how = Augmentation.of(config)
    if recipe.part != "regions" and (without := _without_anchors(config, source.train, how)):
        say(
            f"warning: all anchors are larger than {without:,} of the {len(source.train):,} training pictures as the "
            "network sees them, in which the RPN learns nothing; give smaller anchor_scales, or a larger side"
        )
    samples = training_samples(source.train, how, proposals)
    batches = Stream(samples, lambda batch, draws: batch, order, reading)
    count = order.part.stop - order.part.start
    room = (count, *largest(source.train, how, count // recipe.accumulate))
    test = Test(source.test, config.test_images, mean, reading)
    known = (tuple(source.train.classes), fingerprint_of(source), mean.cpu())
    facts: Json = {"category_ids": list(source.train.category_ids)}
    return DetectionTask(*known, recipe, config.smallest, batches, test, ranks, device, room, facts=facts)


def _without_anchors(config: DetectionConfig, index: BoxIndex, how: Augmentation) -> int:
    """The pictures in which no anchor lies whole, though they are as large as training shows them."""
    base = base_anchors(config.anchor_scales, config.anchor_ratios)
    anchors = base[:, 2:] - base[:, :2]
    shapes, counts = index.sizes.unique(dim=0, return_counts=True)
    seen = [fitted_size((high, wide), max(how.sides), how.longest)[::-1] for wide, high in shapes.tolist()]
    fits = torch.tensor([bool((anchors <= torch.tensor(shape)).all(1).any()) for shape in seen])
    return int(counts[~fits].sum())


def fingerprint_of(source: BoxParts) -> str:
    """The SHA-256 of training and test part that a run records."""
    return hashlib.sha256("".join(part.fingerprint for part in source).encode()).hexdigest()


def _no_regions(logits: Tensor, deltas: Tensor, anchors: Tensor) -> None:
    """No regions: the RPN alone is trained."""
