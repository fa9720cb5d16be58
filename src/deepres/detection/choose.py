"""Image size, anchors, rate and length that suit a data set: the recipe `auto`, which is not in the paper."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from deepres.data.boxes.index import BoxIndex
from deepres.detection.recipe import FASTER_RCNN, PLAN
from deepres.models.detection.anchors import BASE
from deepres.training.recipe import EVALUATE_AT_MOST_EVERY

SMALL = 24  # pixels a side that small objects need, as the network sees them: 1.5 strides
SIDES = (256, PLAN.side)  # range of the shorter side
GRID = 32  # the shorter side is a multiple of this
SMALLEST_ANCHOR, LARGEST_ANCHOR = 16, 512  # pixels a side
EPOCHS = 30  # passes over the training pictures
LENGTHS = (2_000, FASTER_RCNN.iterations)  # range of the iterations
BATCH, REGIONS = 2, 64  # pictures of a step, and regions of a picture
REGION_SIZE = 8  # positions a side: conv5_x has a third of the work of 14, which would be most of a step's
TRAINED_RATE, RANDOM_RATE = 0.0025, 0.01
JITTER = (0.8, 1.0, 1.2)  # of the shorter side in training


@dataclass(frozen=True)
class Measures:
    """Sizes in a data set, in pixels of its pictures; that of an object is the root of its box's area."""

    short: float  # median of the shorter side of a picture
    small: float  # the smallest lower quartile of the objects of a class
    large: float  # the largest upper quartile


def measures(index: BoxIndex) -> Measures:
    """The sizes in the training part of a data set, which has boxes. Each class counts, however rare it is."""
    boxes, labels = index.objects.boxes, index.objects.labels
    sizes = (boxes[:, 2:] - boxes[:, :2]).prod(1).sqrt()
    quartiles = [_quartiles(sizes[labels == label]) for label in labels.unique()]
    small, large = min(low for low, _ in quartiles), max(high for _, high in quartiles)
    return Measures(index.sizes.min(1).values.double().median().item(), small, large)


def _quartiles(sizes: Tensor) -> tuple[float, float]:
    ordered = sizes.sort().values
    return ordered[len(ordered) // 4].item(), ordered[3 * len(ordered) // 4].item()


def side_for(found: Measures) -> int:
    """The shorter side: that of the pictures, or more where small objects then reach `SMALL` pixels, within `SIDES`."""
    wanted = found.short * max(1.0, SMALL / max(found.small, 1.0))
    return int(min(max(round(wanted / GRID) * GRID, SIDES[0]), SIDES[1]))


def anchor_scales_for(found: Measures, side: int) -> tuple[float, ...]:
    """Scales of anchors from the small to the large objects at this shorter side, each twice the one before."""
    small, large = (
        min(max(size * side / found.short, SMALLEST_ANCHOR), LARGEST_ANCHOR) for size in (found.small, found.large)
    )
    first, last = math.floor(math.log2(small)), math.ceil(math.log2(large))
    return tuple(2.0**power / BASE for power in range(first, max(last, first + 1) + 1) if 2**power <= LARGEST_ANCHOR)


def chosen(index: BoxIndex, trained: bool, fixed: bool, given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a configuration for a data set, without those that are `given`.

    With a `trained` backbone BN stays fixed (Appendix A); random weights train it, at a higher rate. A backbone takes
    regions of one size alone where that is `fixed`.
    """
    found = measures(index)
    side: int = given.get("side", side_for(found))
    batch: int = given.get("batch_size", BATCH)
    whole = round(len(index) * EPOCHS / batch / 100) * 100
    length: int = given.get("iterations", min(max(whole, LENGTHS[0]), LENGTHS[1]))
    fields: dict[str, Any] = {
        "side": side,
        "longest": round(side * PLAN.longest / PLAN.side),
        "anchor_scales": anchor_scales_for(found, side),
        "freeze": ("bn",) if trained else (),
        "iterations": length,
        "milestones": (round(0.8 * length),),
        "lr": TRAINED_RATE if trained else RANDOM_RATE,
        "warmup": "linear",
        "warmup_iterations": max(1, length // 20),
        "batch_size": batch,
        "accumulate": 1,
        "regions": REGIONS,
        "region_size": PLAN.region_size if fixed else REGION_SIZE,
        "sides": tuple(round(side * factor) for factor in JITTER),
        "colour": 0.5,
        "window": max(1, min(100, length // 10)),
        "evaluate_every": min(length, max(length // 10, EVALUATE_AT_MOST_EVERY)),
    }
    left_out = {*given, *(["milestones"] if "epochs" in given or "decay" in given else [])}
    return {name: value for name, value in fields.items() if name not in left_out}
