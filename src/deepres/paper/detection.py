"""Appendices A and B on PASCAL VOC, COCO and ImageNet, or on any folder of pictures with boxes: Tables 7 to 12.

The commands are `deepres reproduce table7|table8|table9|table10|table11|table12 --scale quick --data DIR`; what they
cost stands in each sheet. At the quick scale the networks start from random weights; give weights of backbones to start
from these. All sheets share their runs: table7 trains the three baselines, table9 the best of them with context twice
besides, and the others nothing more.

On two busy cores a run of ResNet-18 on 292 pictures of 640x480, with three tests on 72, took 9 minutes; one of VGG-16
takes about half an hour, by its single steps.

The paper's scale takes weights that were trained on ImageNet, VOC 2007 and 2012 in one folder, or COCO 2014. It needs a
GPU, and has not been run:

    deepres reproduce table7 --scale paper --data VOCdevkit --networks vgg16.pth,resnet101.pth
    deepres reproduce table9 --scale paper --data coco --networks vgg16.pth,resnet101.pth
    deepres reproduce table10 --scale paper --data VOCdevkit --networks vgg16.pth,resnet101.pth,RUN of table9
    deepres reproduce table12 --scale paper --data ILSVRC --networks resnet101.pth

Tables 10 and 11 take the run of table9 with context: `baseline+++` is that detector, trained further on VOC. The boxes
of VOC 2012's test set are not public: table11 is for who has them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from deepres.models.registry import DETECTOR
from deepres.paper.claims import NAMES, Claim, close, higher
from deepres.paper.detector_tables import (
    COCO_RULES,
    DET_RULES,
    RESNET,
    RULES,
    VGG,
    Measured,
    Numbers,
    Printed,
    classes_beside_the_papers,
    curves,
    every_run,
    means_beside,
    measured,
)
from deepres.paper.detectors import FINETUNED, STANDING_IN, Detectors, Step
from deepres.paper.plan import Plan, Scale
from deepres.paper.sheet import Shown

RESNET101 = DETECTOR + "resnet101"
NETWORKS: dict[Scale, tuple[str, ...]] = {
    "smoke": STANDING_IN,
    "quick": ("vgg16", "resnet18", "resnet50"),
    "paper": ("vgg16", "resnet101"),
}
# The paper's recipe for COCO takes 8 GPUs. Here one picture is a micro-batch.
VOC: dict[str, Any] = {"test_images": 500}
COCO: dict[str, Any] = {
    "train_set": "train2014",
    "test_set": "val2014",
    "iterations": 320_000,
    "milestones": (240_000,),
    "batch_size": 8,
    "accumulate": 8,
    "window": 100,
    "evaluate_every": 20_000,
    "test_images": 500,
}
OF_VOC: dict[Scale, str] = {"smoke": "seconds", "quick": "9 to 30 min each", "paper": "70,000 steps each"}
OF_COCO: dict[Scale, str] = {**OF_VOC, "paper": "320,000 steps of 8 each"}
QUICK_MARGIN = 1.0  # points of mAP on some hundred test pictures
REFINED = Step("+ box refinement", refine=True)
CONTEXT = Step("+ context", refine=True, context=True)
SCALES = Step("+ multi-scale testing", refine=True, context=True, scales=True)
ENSEMBLE = Step("ensemble", refine=True, context=True, scales=True, ensemble=True)
ALL = Step(FINETUNED, refine=True, context=True, scales=True)


@dataclass(frozen=True, kw_only=True)
class Means(Detectors):
    """A sheet of means: the `figures` of ours, by these `rules`, beside those that are `printed`."""

    figures: tuple[str, ...]
    rules: str = RULES
    printed: Printed

    def show(self, plan: Plan) -> Shown:
        """Results, curves, the paper's table, and every run."""
        found = measured(self, plan)
        table = means_beside(found, self.title, self.figures, self.rules, self.printed)
        return Shown(found.results(), (curves(found),), (table, every_run(found)))


@dataclass(frozen=True, kw_only=True)
class ByClass(Detectors):
    """A sheet of average precisions by class, by the `rule` of VOC 2007 or 2012."""

    rule: str
    printed: Mapping[str, Mapping[str, float]]

    def show(self, plan: Plan) -> Shown:
        """Results, curves, the paper's table, and every run."""
        found: Measured = measured(self, plan)
        table = classes_beside_the_papers(found, self.title, self.rule, self.printed, VOC_NAMES)
        return Shown(found.results(), (curves(found),), (table, every_run(found)))


def _raises(text: str, place: str, figure: str, worse: str, better: str, quick: float = 0.0) -> Claim:
    """`better` has the larger figure; at the quick scale by more than `quick` points."""
    apart = higher(figure, better, worse, margin=quick)
    return Claim(text, place, (better, worse), higher(figure, better, worse, margin=0.0), quick=apart)


def _resnet(place: str, figure: str) -> Claim:
    text = f"ResNet in place of VGG-16 raises {NAMES[figure].removesuffix(' (%)')}."
    return _raises(text, place, figure, VGG, RESNET, quick=QUICK_MARGIN)


def _numbers(place: str, classes: int, paper: Mapping[str, Mapping[str, float]]) -> Claim:
    text = f"The figures are those of {place}."
    return Claim(text, place, tuple(paper), close(paper, within=1.0), scales=("paper",), classes=classes)


TABLE7_PRINTED: Numbers = {VGG: (73.2, 70.4), RESNET101: (76.4, 73.8)}
TABLE7 = Means(
    name="table7",
    title="Table 7: detection on PASCAL VOC, baseline Faster R-CNN",
    costs=OF_VOC,
    networks=NETWORKS,
    fields=VOC | {"train_set": "07+12"},
    figures=("map07", "map12"),
    printed=Printed(TABLE7_PRINTED, ("VOC 2007", "VOC 2012")),
    claims=(
        _resnet("Sec. 4.3, Table 7", "map07"),
        _numbers("Table 7, VOC 2007", 20, {name: {"map07": both[0] or 0.0} for name, both in TABLE7_PRINTED.items()}),
    ),
)
TABLE8_PRINTED: Numbers = {VGG: (41.5, 21.2), RESNET101: (48.4, 27.2)}
TABLE8_CLAIM = _numbers("Table 8", 80, {VGG: {"map50": 41.5, "map": 21.2}, RESNET101: {"map50": 48.4, "map": 27.2}})
TABLE8 = Means(
    name="table8",
    title="Table 8: detection on COCO, baseline Faster R-CNN",
    costs=OF_COCO,
    networks=NETWORKS,
    fields=COCO,
    figures=("map50", "map"),
    rules=COCO_RULES,
    printed=Printed(TABLE8_PRINTED, ("val @.5", "val @[.5,.95]")),
    claims=(_resnet("Sec. 4.3, Table 8", "map50"), _resnet("Sec. 4.3, Table 8", "map"), TABLE8_CLAIM),
)
TABLE9_PRINTED: Numbers = {
    VGG: (41.5, 21.2, None, None),
    RESNET101: (48.4, 27.2, None, None),
    REFINED.label: (49.9, 29.9, None, None),
    CONTEXT.label: (51.1, 30.0, 53.3, 32.2),
    SCALES.label: (53.8, 32.5, 55.7, 34.9),
    ENSEMBLE.label: (None, None, 59.0, 37.4),
}
TABLE9 = Means(
    name="table9",
    title="Table 9: improvements of detection on COCO",
    costs=OF_COCO,
    networks=NETWORKS,
    fields=COCO,
    steps=(REFINED, CONTEXT, SCALES, ENSEMBLE),
    figures=("map50", "map"),
    rules=COCO_RULES,
    printed=Printed(TABLE9_PRINTED, ("val @.5", "val @[.5,.95]", "test-dev @.5", "test-dev @[.5,.95]")),
    claims=(
        *TABLE8.claims[:2],
        _raises("Box refinement raises mAP (by about 2 points).", "Appendix B, Table 9", "map", RESNET, REFINED.label),
        _raises(
            "Global context raises mAP@.5 (by about 1 point).",
            "Appendix B, Table 9",
            "map50",
            *(REFINED.label, CONTEXT.label),
        ),
        _raises(
            "Multi-scale testing raises mAP (by over 2 points).",
            "Appendix B, Table 9",
            "map",
            *(CONTEXT.label, SCALES.label),
        ),
        _raises("An ensemble raises mAP further.", "Appendix B, Table 9", "map", SCALES.label, ENSEMBLE.label),
        _numbers(
            "Table 9, val",
            80,
            {
                REFINED.label: {"map50": 49.9, "map": 29.9},
                CONTEXT.label: {"map50": 51.1, "map": 30.0},
                SCALES.label: {"map50": 53.8, "map": 32.5},
            },
        ),
    ),
)

# The names of the classes that the paper abbreviates, which has the others as they are.
VOC_NAMES = {
    "aeroplane": "aero",
    "bicycle": "bike",
    "diningtable": "table",
    "motorbike": "mbike",
    "pottedplant": "plant",
    "tvmonitor": "tv",
}
_PRINTED = "mAP aero bike bird boat bottle bus car cat chair cow table dog horse mbike person plant sheep sofa train tv"
CLASSES = tuple(_PRINTED.split())  # behind their mean


def _by_class(values: str) -> dict[str, float]:
    """The mean and the figures of the classes, as the paper prints them."""
    return dict(zip(CLASSES, map(float, values.split()), strict=True))


TABLE10_PRINTED = {
    VGG: _by_class(
        "73.2 76.5 79.0 70.9 65.5 52.1 83.1 84.7 86.4 52.0 81.9 65.7 84.8 84.6 77.5 76.7 38.8 73.6 73.9 83.0 72.6"
    ),
    RESNET101: _by_class(
        "76.4 79.8 80.7 76.2 68.3 55.9 85.1 85.3 89.8 56.7 87.8 69.4 88.3 88.9 80.9 78.4 41.7 78.6 79.8 85.3 72.0"
    ),
    FINETUNED: _by_class(
        "85.6 90.0 89.6 87.8 80.8 76.1 89.9 89.9 89.6 75.5 90.0 80.7 89.6 90.3 89.1 88.7 65.4 88.1 85.6 89.0 86.8"
    ),
}
TABLE11_PRINTED = {
    VGG: _by_class(
        "70.4 84.9 79.8 74.3 53.9 49.8 77.5 75.9 88.5 45.6 77.1 55.3 86.9 81.7 80.9 79.6 40.1 72.6 60.9 81.2 61.5"
    ),
    RESNET101: _by_class(
        "73.8 86.5 81.6 77.2 58.0 51.0 78.6 76.6 93.2 48.6 80.4 59.0 92.1 85.3 84.8 80.7 48.1 77.3 66.5 84.7 65.6"
    ),
    FINETUNED: _by_class(
        "83.8 92.1 88.4 84.8 75.9 71.4 86.3 87.8 94.2 66.8 89.4 69.2 93.9 91.9 90.9 89.6 67.9 88.2 76.8 90.3 80.0"
    ),
}


def _by_class_sheet(name: str, title: str, rule: str, sets: str, printed: Mapping[str, Mapping[str, float]]) -> ByClass:
    """Table 10 or 11, of which `sets` are the image sets that are trained on."""
    place = f"Table {name.removeprefix('table')}"
    return ByClass(
        name=name,
        title=title,
        costs=OF_VOC,
        networks=NETWORKS,
        fields=VOC | {"train_set": sets},
        sets=sets if rule == "map12" else "",
        steps=(ALL,),
        rule=rule,
        printed=printed,
        claims=(
            _resnet(f"Appendix A, {place}", rule),
            _raises("All improvements together raise mAP.", f"Appendix B, {place}", rule, RESNET, FINETUNED),
            _numbers(place, 20, {key: {rule: own["mAP"]} for key, own in printed.items()}),
        ),
    )


TABLE10 = _by_class_sheet(
    "table10", "Table 10: detection on the PASCAL VOC 2007 test set", "map07", "07+12", TABLE10_PRINTED
)
TABLE11 = _by_class_sheet(
    "table11", "Table 11: detection on the PASCAL VOC 2012 test set", "map12", "07++12", TABLE11_PRINTED
)
SINGLE = replace(SCALES, label="single model")
TABLE12_PRINTED: Numbers = {
    "GoogLeNet (ILSVRC'14)": (None, 43.9),
    SINGLE.label: (60.5, 58.8),
    ENSEMBLE.label: (63.6, 62.1),
}
TABLE12 = Means(
    name="table12",
    title="Table 12: ImageNet detection",
    costs=OF_COCO,
    networks={"smoke": STANDING_IN[1:], "quick": ("resnet18",), "paper": ("resnet101",)},
    fields=COCO | {"train_set": "train,val1", "test_set": "val2"},
    steps=(SINGLE, ENSEMBLE),
    figures=("mapdet", "map12"),
    rules=DET_RULES,
    printed=Printed(TABLE12_PRINTED, ("val2", "test")),
    claims=(
        _raises("An ensemble raises mAP (by about 3 points).", "Table 12", "mapdet", SINGLE.label, ENSEMBLE.label),
        _numbers("Table 12", 200, {SINGLE.label: {"mapdet": 60.5}, ENSEMBLE.label: {"mapdet": 63.6}}),
    ),
)
SHEETS = (TABLE7, TABLE8, TABLE9, TABLE10, TABLE11, TABLE12)
