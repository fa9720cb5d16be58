"""Detectors on the pictures of a test set, or on given ones, under a protocol."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from deepres.data.boxes.index import BoxIndex
from deepres.data.crops import whole
from deepres.data.stream.loader import Reading, Samples, in_order
from deepres.detection.ensemble import Member, averaged, members_of, union
from deepres.detection.protocol import Protocol
from deepres.detection.refinement import refined, voted
from deepres.detection.scales import Limits, Pyramid, limits_of, stretch
from deepres.models.detection.detections import candidates, suppressed
from deepres.models.detection.detector import Detector, Size, located
from deepres.models.detection.images import fitted
from deepres.models.detection.outputs import Detections
from deepres.models.detection.proposals import TEST
from deepres.models.segmentation.cascade import Cascade
from deepres.runtime.errors import Say, silent

NONE = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
Progress = Callable[[int], None]  # is told how many pictures are done
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Views:
    """A picture of `size` (height, width), uint8 (C, h, w) at each size that a test needs, by its limits."""

    images: Mapping[Limits, Tensor]
    size: Size


def views(needed: Sequence[Limits], image: Tensor) -> Views:
    """The views of an image uint8 (C, H, W)."""
    return Views({limits: fitted(image, *limits) for limits in needed}, (image.shape[1], image.shape[2]))


def detections(
    nets: Sequence[Detector],
    protocol: Protocol,
    index: BoxIndex,
    places: Tensor,
    reading: Reading,
    progress: Progress = lambda done: None,
) -> Generator[tuple[int, Detections]]:
    """The place of each picture and its detections, in pixels of the upright picture, on the processor.

    The networks are in evaluation mode and on one device. Labels are places among the classes of the first. Raises
    `InputError` for networks that do not go together, and for a picture that does not decode; with `reading.skip_bad`
    that has no detections and is told.
    """
    members = members_of(nets, protocol, reading.say)
    decode = partial(_decoded, tuple(_needed(members, protocol)))
    for place, seen in _read(index, places, decode, reading, progress):
        yield place, NONE if seen is None else _on_processor(_found(members, protocol, seen))


def detected(
    nets: Sequence[Detector], protocol: Protocol, images: Sequence[Tensor], say: Say = silent
) -> list[Detections]:
    """The detections in images uint8 (C, H, W), in their pixels, on the processor; networks and errors as above."""
    members = members_of(nets, protocol, say)
    needed = _needed(members, protocol)
    return [_on_processor(_found(members, protocol, views(needed, image))) for image in images]


def detections_by(
    detect: Callable[[Tensor], Detections],
    index: BoxIndex,
    places: Tensor,
    reading: Reading,
    progress: Progress = lambda done: None,
) -> Generator[tuple[int, Detections]]:
    """The place of each picture, and what `detect` finds in it, uint8 (C, H, W); errors as of `detections`."""
    for place, image in _read(index, places, _whole, reading, progress):
        yield place, NONE if image is None else detect(image)


@torch.no_grad()
def proposals_of(
    net: Detector,
    index: BoxIndex,
    places: Tensor,
    reading: Reading,
    count: int,
    before: int = TEST.before,
    progress: Progress = lambda done: None,
) -> Generator[tuple[int, Tensor, Tensor]]:
    """The place of each picture, its `count` best proposals (k, 4) and their objectness (k,), which falls.

    They are chosen among the `before` best anchors. The boxes are in pixels of the upright picture; the objectness is a
    logit. Both are on the processor. The network is in evaluation mode. Errors as of `detections`.
    """
    member, how = members_of([net], Protocol())[0], replace(net.selection, before=before, after=count)
    decode = partial(_decoded, tuple(_needed([member], Protocol())))
    for place, seen in _read(index, places, decode, reading, progress):
        if seen is None:
            yield place, NONE.boxes, NONE.scores
            continue
        [pyramid], frame = _pyramids([member], Protocol(), seen)
        boxes, scores = pyramid.proposals(how)
        yield place, (boxes * stretch(frame, seen.size, boxes)).cpu(), scores.cpu()


@torch.no_grad()
def _found(members: Sequence[Member], protocol: Protocol, seen: Views) -> Detections:
    """The detections in one picture, in its pixels; with masks where they are of one cascade without improvements."""
    first = members[0]
    if isinstance(first.net, Cascade) and protocol.gives_masks(len(members)):
        image = seen.images[first.plan.side, first.plan.longest].to(first.mean.device)
        return first.net.detect_fitted(image, seen.size, first.mean, first.plan)
    pyramids, frame = _pyramids(members, protocol, seen)
    plan = members[0].plan
    regions = union([own.proposals(replace(own.net.selection, after=plan.proposals))[0] for own in pyramids])

    # Scores and boxes of regions, of the proposals and of the boxes that these become.
    def predict(regions: Tensor) -> tuple[Tensor, Tensor]:
        outputs = [pyramid.net.siblings(pyramid.features(regions)) for pyramid in pyramids]
        scores, deltas = averaged(members, outputs)
        return scores, located(deltas, regions, frame)

    scores, boxes = refined(predict, regions, protocol.refine)
    # The best of them.
    every = candidates(scores, boxes * stretch(frame, seen.size, boxes), plan.threshold)
    found = suppressed(*every, plan.nms, plan.most)
    return voted(found, *every, protocol.voting) if protocol.voting else found


def _pyramids(members: Sequence[Member], protocol: Protocol, seen: Views) -> tuple[list[Pyramid], Size]:
    """A picture as each member sees it, and the size of the image in whose pixels all regions are: the first's own."""
    first = members[0]
    images = {limits: image.to(first.mean.device) for limits, image in seen.images.items()}
    height, width = images[first.plan.side, first.plan.longest].shape[1:]
    made = [Pyramid(own.net, own.plan, protocol.scales, images, own.mean, (height, width)) for own in members]
    return made, (height, width)


def _needed(members: Sequence[Member], protocol: Protocol) -> list[Limits]:
    """The sizes of an image that a test needs."""
    every = [limits for own in members for limits in limits_of(own.plan, protocol.scales)]
    return list(dict.fromkeys([*((own.plan.side, own.plan.longest) for own in members), *every]))


def _read(
    index: BoxIndex,
    places: Tensor,
    decode: Callable[[bytes, Sequence[float], Any], T],
    reading: Reading,
    progress: Progress,
) -> Generator[tuple[int, T | None]]:
    """The place of each picture and what `decode` makes of it in worker processes; None where it does not decode."""
    samples = Samples[T, list[T]](index.pictures, decode, list, _no_target)
    answers = in_order(samples, 1, reading, places)
    for number, (place, answer) in enumerate(zip(places.tolist(), answers, strict=True), 1):
        for name, reason in answer.bad:
            reading.say(f"{name} has no detections, since it does not decode ({reason})")
        yield place, answer.batch[0] if answer.batch else None
        progress(number)


def _no_target(place: int) -> None:
    """No target: the truth is compared with elsewhere."""


def _decoded(needed: Sequence[Limits], encoded: bytes, draws: Sequence[float], truth: Any) -> Views:
    return views(needed, whole(encoded))


def _whole(encoded: bytes, draws: Sequence[float], truth: Any) -> Tensor:
    return whole(encoded)


def _on_processor(found: Detections) -> Detections:
    return Detections(found.boxes.cpu(), found.scores.cpu(), found.labels.cpu(), found.masks)
