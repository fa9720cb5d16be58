"""The figures of a detector as plain tables and curves for the page and the terminal, in percent as in the paper."""

from collections import Counter
from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor

from deepres.detection.mean_ap.coco import CocoResult
from deepres.detection.mean_ap.outcomes import Kind, Outcome
from deepres.detection.mean_ap.recall import ProposalRecall
from deepres.detection.mean_ap.voc import VocClass, VocResult, falling
from deepres.findings import Cell, Figure, PrecisionRecall, PrecisionRecallPanel, Table

DIGITS = 4  # of a percentage behind the point, in a record
MOST_CLASSES = 20  # of a confusion matrix that is shown whole
PANEL, MOST_CURVES = 8, 24  # classes of one panel of curves, and of a figure that shows all


def voc_table(result: VocResult, interval: tuple[float, float] | None = None) -> Table:
    """Average precision by class, and their mean last, with its bootstrap `interval` from 0 to 1 where there is one."""
    rows = [(one.name, one.objects, len(one.scores), percent(one.ap)) for one in result.classes]
    total = (sum(one.objects for one in result.classes), sum(len(one.scores) for one in result.classes))
    rule = "by 11 points, as in VOC 2007" if result.rule == "11-point" else "by area, as in VOC 2010 and later"
    caption = f"Average precision at IoU {result.iou:g}, {rule}; difficult objects and their detections do not count."
    if interval is not None:
        low, high = interval
        caption += f" Bootstrap 95 % interval of the mean over pictures: {percent(low)} to {percent(high)}."
    rows.append(("mean", *total, percent(result.map)))
    return Table("Average precision by class", caption, ("class", "objects", "detections", "AP (%)"), tuple(rows))


def region_table(at: Sequence[VocResult], interval: tuple[float, float] | None = None) -> Table:
    """mAP^r by class: average precision of masks at several IoU, the mean last; `interval` is that of the first."""
    first = at[0]
    rows: list[tuple[Cell, ...]] = [
        (one.name, one.objects, len(one.scores), *(percent(own.classes[label].ap) for own in at))
        for label, one in enumerate(first.classes)
    ]
    total = (sum(one.objects for one in first.classes), sum(len(one.scores) for one in first.classes))
    rows.append(("mean", *total, *(percent(own.map) for own in at)))
    caption = "By 11 points of recall, as Multi-task Network Cascades counts; objects without a mask do not count."
    if interval is not None:
        low, high = map(percent, interval)
        caption += f" Bootstrap 95 % interval of the mean at {first.iou:g} over pictures: {low} to {high}."
    columns = ("class", "objects", "detections", *(f"AP at mask IoU {own.iou:g} (%)" for own in at))
    return Table("Average precision of masks by class", caption, columns, tuple(rows))


def coco_tables(result: CocoResult, what: str = "") -> tuple[Table, Table]:
    """COCO's twelve figures, then those of each class; `what` is compared, where it is not boxes."""
    names = {
        "mAP@[.5,.95]": result.map,
        "mAP@.5": result.map50,
        "mAP@.75": result.map75,
        "mAP@[.5,.95], small": result.small,
        "mAP@[.5,.95], medium": result.medium,
        "mAP@[.5,.95], large": result.large,
        "recall, 1 detection": result.recall1,
        "recall, 10 detections": result.recall10,
        "recall, 100 detections": result.recall100,
        "recall, small": result.recall_small,
        "recall, medium": result.recall_medium,
        "recall, large": result.recall_large,
    }
    rows: list[tuple[Cell, ...]] = [(name, percent(value)) for name, value in names.items()]
    caption = "Recall is the mean over the IoU 0.5 to 0.95. Small is below 32 x 32 pixels, large above 96 x 96."
    each = [(one.name, *map(percent, (one.ap, one.ap50, one.ap75, one.recall))) for one in result.classes]
    columns = ("class", "AP@[.5,.95] (%)", "AP@.5 (%)", "AP@.75 (%)", "recall (%)")
    return (
        Table(f"COCO's figures{what}", caption, ("figure", "%"), tuple(rows)),
        Table(f"COCO's figures{what} by class", "Recall is that with 100 detections.", columns, tuple(each)),
    )


def recall_table(recalls: Sequence[ProposalRecall]) -> Table:
    """The recall of proposals, a row for each number of proposals a picture."""
    rows = tuple((one.most, percent(one.recall), percent(one.average)) for one in recalls)
    return Table("Recall of proposals", "", ("proposals a picture", "at IoU 0.5 (%)", "mean of 0.5 to 0.95 (%)"), rows)


def precision_recall_figure(result: VocResult) -> Figure:
    """The curves of the classes with a value, the best first: all up to 24 classes, else the best 8 and the worst 8."""
    ranked = sorted((one for one in result.classes if one.ap is not None), key=lambda one: -(one.ap or 0.0))
    caption = (
        f"Precision against recall at IoU {result.iou:g}, at each recall the largest at that recall or a higher one."
    )
    if len(ranked) > MOST_CURVES:
        ranked = ranked[:PANEL] + ranked[-PANEL:]
        caption += f" These are the {PANEL} classes with the largest and the {PANEL} with the least average precision."
    parts = [ranked[first : first + PANEL] for first in range(0, len(ranked), PANEL)]
    panels = [PrecisionRecallPanel(_span(part), tuple(map(curve_of_class, part))) for part in parts]
    return Figure("Precision and recall", caption, tuple(panels))


def curve_of_class(one: VocClass) -> PrecisionRecall:
    """The curve of a class at the recalls 0, 1, ..., 100 %, as far as they are reached."""
    levels = torch.arange(101, dtype=torch.float64) / 100
    precisions, places = falling(one.precisions)
    reached = torch.searchsorted(one.recalls, levels)
    reached = reached[reached < len(one.recalls)]
    scores = one.scores[places[reached]].tolist()
    return PrecisionRecall(one.name, list(range(len(reached))), (100 * precisions[reached]).tolist(), scores)


def confusion_table(counts: Tensor, classes: Sequence[str], least: float = 0.0) -> Table:
    """A confusion matrix (K + 1, K + 1) of `confusion_matrix`: whole up to 20 classes, else the most frequent mistakes.

    The cells are shaded by their share of the row. `least` is the least score of the detections that were counted.
    """
    title = "What objects are taken for"
    if len(classes) > MOST_CLASSES:
        names = (*classes, "no object")
        mistakes = counts.clone().fill_diagonal_(0)
        best = mistakes.flatten().sort(descending=True, stable=True)
        pairs = zip(best.values[:MOST_CLASSES].tolist(), best.indices[:MOST_CLASSES].tolist(), strict=True)
        rows = [(names[at // len(names)], names[at % len(names)], count) for count, at in pairs if count]
        caption = "The most frequent mistakes. No object as the true class: a false alarm; as the detected one: a miss."
        caption += _counted(least)
        return Table(title, caption, ("true class", "detected class", "times"), tuple(rows))
    rows = [(name, *row) for name, row in zip((*classes, "false alarm"), counts.tolist(), strict=True)]
    shades = (counts / counts.sum(1, keepdim=True).clamp(min=1)).tolist()
    caption = "Rows: the true class. Columns: the detected one. Shaded by share of the row." + _counted(least)
    return Table(title, caption, ("", *classes, "missed"), tuple(rows), tuple(map(tuple, shades)))


def outcome_table(ends: Sequence[Outcome], least: float = 0.0) -> Table:
    """How many detections, of a score of `least` or more, and objects have each outcome."""
    counts = Counter(one.kind for one in ends)
    rows = tuple((kind, counts[kind]) for kind in get_args(Kind))
    caption = "An object that is badly placed or of a wrong class in a detection is not missed." + _counted(least)
    return Table("Outcomes of the detections, and missed objects", caption, ("outcome", "times"), rows)


def _counted(least: float) -> str:
    return f" Of detections with a score of {least:g} or more." if least else ""


def _span(classes: Sequence[VocClass]) -> str:
    """The average precision of the first and the last of some classes."""
    best, worst = percent(classes[0].ap), percent(classes[-1].ap)
    return f"AP {best} %" if best == worst else f"AP {best} to {worst} %"


def percent(value: float | None) -> str | None:
    """A share from 0 to 1 in percent with one decimal."""
    return None if value is None else f"{100 * value:.1f}"


def in_percent(values: dict[str, float | None]) -> dict[str, float | None]:
    """Shares from 0 to 1 in percent, for a record."""
    return {name: None if value is None else round(100 * value, DIGITS) + 0.0 for name, value in values.items()}
