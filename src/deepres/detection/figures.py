"""All figures of a test of detectors, and the tables that show them."""

from collections import Counter
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from deepres.detection.detection_table import DetectionTable
from deepres.detection.mask_figures import MaskFigures, mask_figures
from deepres.detection.mean_ap.bootstrap import map_interval
from deepres.detection.mean_ap.coco import CocoResult, coco_map
from deepres.detection.mean_ap.confusion import confusion_matrix
from deepres.detection.mean_ap.ilsvrc import ilsvrc_map
from deepres.detection.mean_ap.outcomes import Outcome, outcomes
from deepres.detection.mean_ap.tables import (
    DIGITS,
    coco_tables,
    confusion_table,
    in_percent,
    outcome_table,
    percent,
    recall_table,
    voc_table,
)
from deepres.detection.mean_ap.voc import Rule, VocResult, voc_map
from deepres.findings import Cell, Table
from deepres.records import Json

SURE = 0.5  # least score of the detections that mistakes are told of, and that pictures show
MOST_CONFUSED = 100  # classes; a larger confusion matrix is left out of a record


@dataclass(frozen=True)
class Figures:
    """The figures of one table; each is computed when it is first asked for."""

    table: DetectionTable

    def voc(self, rule: Rule) -> VocResult:
        """Average precision by a rule of PASCAL VOC."""
        return voc_map(self.table.truths, self.table.found, self.table.classes, rule=rule)

    @cached_property
    def by_area(self) -> VocResult:
        """Average precision by the rule of VOC 2010 and later."""
        return self.voc("area")

    @cached_property
    def by_points(self) -> VocResult:
        """Average precision by the rule of VOC 2007."""
        return self.voc("11-point")

    @cached_property
    def by_ilsvrc(self) -> VocResult:
        """Average precision by the rules of ImageNet detection."""
        return ilsvrc_map(self.table.truths, self.table.found, self.table.classes)

    @cached_property
    def coco(self) -> CocoResult:
        """COCO's figures."""
        return coco_map(self.table.truths, self.table.found, self.table.classes)

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """The bootstrap 95 % interval of the mean average precision by area."""
        return map_interval(self.table.truths, self.table.found, self.table.classes)

    @cached_property
    def masks(self) -> MaskFigures | None:
        """The figures of masks, where the detections have some."""
        return mask_figures(self.table)

    @cached_property
    def confusion(self) -> Tensor:
        """What objects are taken for, by detections of a score of `SURE` or more."""
        return confusion_matrix(self.table.truths, self.table.found, len(self.table.classes), SURE)

    @cached_property
    def outcomes(self) -> list[Outcome]:
        """What became of each such detection, and of the objects that none found."""
        return outcomes(self.table.truths, self.table.found, SURE)

    @property
    def mistakes(self) -> int:
        """How many of the outcomes are none of a hit."""
        return sum(one.kind != "hit" for one in self.outcomes)

    def row(self) -> tuple[Cell, ...]:
        """The means, as `summary` has them."""
        voc = (self.by_points.map, self.by_area.map)
        return (str(self.table.facts["title"]), *map(percent, (*voc, self.coco.map50, self.coco.map)))

    def tables(self) -> tuple[Table, ...]:
        """All figures for readers."""
        return (
            voc_table(self.by_area, self.interval),
            *coco_tables(self.coco),
            *(self.masks.tables() if self.masks is not None else ()),
            *([recall_table(self.table.recalls)] if self.table.recalls else []),
            confusion_table(self.confusion, self.table.classes, SURE),
            outcome_table(self.outcomes, SURE),
        )

    def record(self) -> Json:
        """All figures for other programs, in percent; None where there is no object to count."""
        area, points, coco = self.by_area, self.by_points, asdict(self.coco)
        each = zip(area.classes, points.classes, coco.pop("classes"), strict=True)
        classes: list[Json] = [
            {"name": own.name, "objects": own.objects, "detections": len(own.scores)}
            | in_percent({"ap": own.ap, "ap_11_point": old.ap, "coco_ap": more["ap"], "coco_ap50": more["ap50"]})
            for own, old, more in each
        ]
        small = len(classes) <= MOST_CONFUSED
        means = {
            "map50": area.map,
            "map50_11_point": points.map,
            "map50_ilsvrc": self.by_ilsvrc.map,
            "map": coco["map"],
        }
        return (
            self.table.facts
            | {"data": self.table.data, "images": len(self.table.names)}
            | in_percent(means)
            | {"map50_interval": self.interval and [round(100 * end, DIGITS) for end in self.interval]}
            | {"coco": in_percent(coco), "classes": classes}
            | {"proposal_recall": [{"most": one.most} | in_percent(_shares(asdict(one))) for one in self.table.recalls]}
            | {"outcomes": dict(Counter(one.kind for one in self.outcomes))}
            | {"confusion": self.confusion.tolist() if small else None}
            | ({} if self.masks is None else {"masks": self.masks.record()})
        )


def summary(each: list[Figures]) -> Table:
    """The means of several tests, a row each."""
    columns = ("test", "mAP@.5, VOC 2007 (%)", "mAP@.5, VOC 2010 (%)", "mAP@.5, COCO (%)", "mAP@[.5,.95] (%)")
    caption = "VOC 2007 counts at 11 points of recall, VOC 2010 the area under the curve, COCO at 101 points."
    return Table("Mean average precision", caption, columns, tuple(own.row() for own in each))


def _shares(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "most"}
