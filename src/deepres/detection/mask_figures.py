"""The figures of masks in a test of detectors: COCO's, and the mAP^r that Multi-task Network Cascades prints."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

from deepres.data.boxes.truth import Truth
from deepres.detection.detection_table import DetectionTable
from deepres.detection.mean_ap.bootstrap import map_interval
from deepres.detection.mean_ap.coco import CocoResult, coco_map
from deepres.detection.mean_ap.tables import DIGITS, coco_tables, in_percent, region_table
from deepres.detection.mean_ap.voc import Rule, VocResult, voc_map
from deepres.findings import Table
from deepres.models.detection.outputs import Detections
from deepres.records import Json

RULE: Rule = "11-point"
IOUS = (0.5, 0.7)


@dataclass(frozen=True)
class MaskFigures:
    """The figures of the masks of one table; each is computed when it is first asked for."""

    table: DetectionTable

    @cached_property
    def regions(self) -> tuple[VocResult, ...]:
        """mAP^r at the IoU 0.5 and 0.7."""
        return region_maps(self.table.truths, self.table.found, self.table.classes)

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """The bootstrap 95 % interval of mAP^r at 0.5."""
        return map_interval(self.table.truths, self.table.found, self.table.classes, IOUS[0], RULE, by="masks")

    @cached_property
    def coco(self) -> CocoResult:
        """COCO's figures."""
        return coco_map(self.table.truths, self.table.found, self.table.classes, "masks")

    def tables(self) -> tuple[Table, ...]:
        """All figures for readers."""
        return (region_table(self.regions, self.interval), *coco_tables(self.coco, " of masks"))

    def record(self) -> Json:
        """All figures for other programs, in percent; None where there is no object to count."""
        coco = asdict(self.coco)
        each = zip(*(own.classes for own in self.regions), coco.pop("classes"), strict=True)
        classes: list[Json] = [
            {"name": at50.name, "objects": at50.objects, "detections": len(at50.scores)}
            | in_percent({"ap50_r": at50.ap, "ap70_r": at70.ap, "coco_ap": own["ap"], "coco_ap50": own["ap50"]})
            for at50, at70, own in each
        ]
        at50, at70 = self.regions
        ends = self.interval and [round(100 * end, DIGITS) for end in self.interval]
        means = in_percent({"map50_r": at50.map, "map70_r": at70.map})
        return means | {"map50_r_interval": ends, "coco": in_percent(coco), "classes": classes}


def region_maps(truths: Sequence[Truth], found: Sequence[Detections], classes: Sequence[str]) -> tuple[VocResult, ...]:
    """mAP^r at the IoU 0.5 and 0.7, by 11 points; arguments as of `voc_map`."""
    return tuple(voc_map(truths, found, classes, iou, RULE, "masks") for iou in IOUS)


def mask_figures(table: DetectionTable) -> MaskFigures | None:
    """The figures of masks; None where the truth or the detections have none."""
    masked = all(any(one.masks is not None for one in each) for each in (table.truths, table.found))
    return MaskFigures(table) if masked else None
