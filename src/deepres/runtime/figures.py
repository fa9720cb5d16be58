"""The figures that the runs of each kind of task record: their names for readers, and where they are shown."""

from dataclasses import dataclass

CLASSIFICATION = "classification"  # the task of the records that name none
DETECTION = "detection"
SEGMENTATION = "segmentation"
LOCALIZATION = "localization"
PROPOSALS = "proposals"  # the row of a run of detection that trains the RPN alone


@dataclass(frozen=True)
class Figure:
    """One figure: its `key` in `metrics.jsonl` and `done.json`, and its `label` and `unit` for readers.

    Of at most `trivial` classes it says nothing, as the top-5 error of five.
    """

    key: str
    label: str
    unit: str = ""
    training: bool = False
    trivial: int = 0

    def text(self, value: float, digits: int) -> str:
        """The label and `value`: "test error 8.75 %". Losses, which have no unit, get one digit more."""
        return f"{self.label} {value:.{digits}f} {self.unit}" if self.unit else f"{self.label} {value:.{digits + 1}f}"


@dataclass(frozen=True)
class Plot:
    """Figures that share a y axis, which `value` and `unit` name."""

    title: str
    value: str
    unit: str
    figures: tuple[Figure, ...]
    caption: str = ""


@dataclass(frozen=True)
class Reported:
    """The figures of one kind of task.

    `main` are in every finished run: progress and the line at the end show them. `plots` and the table of `final`
    figures stand on a page.
    """

    main: tuple[Figure, ...]
    plots: tuple[Plot, ...]
    final: tuple[Figure, ...]
    title: str  # of the table


LOSS = Figure("train_loss", "training loss", training=True)  # of every task

_TRAIN, _TEST = Figure("train_error", "training error", "%", training=True), Figure("test_error", "test error", "%")
_BY_AREA, _COCO = Figure("map50", "mAP@.5", "%"), Figure("map", "mAP@[.5,.95]", "%")
_MASKS_50, _MASKS_70 = (Figure(f"mask_map{iou}", f"mAP^r@.{iou // 10}", "%") for iou in (50, 70))
_MASKS = Figure("mask_map", "mask mAP@[.5,.95]", "%")
_RECALL = Figure("recall50", "recall of proposals@.5", "%")
_MEAN_RECALL = Figure("recall", "recall of proposals@[.5,.95]", "%")
_MISPLACED = Figure("loc_error", "localization error, class given", "%")


def _part(key: str, label: str) -> Figure:
    """A part of the loss of a detector."""
    return Figure(key, label, training=True)


_RPN_LOSSES = Plot(
    "Losses of the region proposals",
    "loss",
    "",
    (_part("rpn_class_loss", "object or background"), _part("rpn_box_loss", "box of the proposal")),
    "Means over windows of iterations.",
)

# To add a task, add a row.
REPORTED: dict[str, Reported] = {
    CLASSIFICATION: Reported(
        main=(_TRAIN, _TEST),
        plots=(
            Plot(
                "Training and test error",
                "error",
                "%",
                (_TRAIN, _TEST),
                "Error against the iteration, laid out as in Figure 6 of the paper.",
            ),
        ),
        final=(_TRAIN, _TEST, Figure("test_top5_error", "top-5 test error", "%", trivial=5)),
        title="Final errors",
    ),
    DETECTION: Reported(
        main=(LOSS, _BY_AREA, _COCO),
        plots=(
            Plot(
                "Mean average precision",
                "mAP",
                "%",
                (_BY_AREA, _COCO),
                "On the test pictures against the iteration: at an overlap (IoU) of 0.5, the area under the curve as "
                "PASCAL VOC counts it, and the mean over overlaps of 0.5 to 0.95 as COCO does. Larger is better.",
            ),
            _RPN_LOSSES,
            Plot(
                "Losses of the regions, and of all together",
                "loss",
                "",
                (_part("class_loss", "class"), _part("box_loss", "box"), LOSS),
                "Means over windows of iterations.",
            ),
        ),
        final=(LOSS, _BY_AREA, _COCO),
        title="Final figures",
    ),
    PROPOSALS: Reported(
        main=(LOSS, _RECALL, _MEAN_RECALL),
        plots=(
            Plot(
                "Recall of the region proposals",
                "recall",
                "%",
                (_RECALL, _MEAN_RECALL),
                "The share of the test objects that the proposals of a test cover, against the iteration: at an "
                "overlap (IoU) of 0.5, and the mean over overlaps of 0.5 to 0.95. Larger is better.",
            ),
            _RPN_LOSSES,
        ),
        final=(LOSS, _RECALL, _MEAN_RECALL),
        title="Final figures of region proposals",
    ),
    SEGMENTATION: Reported(
        main=(LOSS, _MASKS_50, _MASKS),
        plots=(
            Plot(
                "Mean average precision of masks (mAP^r)",
                "mAP^r",
                "%",
                (_MASKS_50, _MASKS_70),
                "On the test pictures against the iteration, at an overlap (IoU) of masks of 0.5 and 0.7, by 11 points "
                "of recall.",
            ),
            Plot(
                "Mean average precision of masks and boxes (COCO)",
                "mAP",
                "%",
                (_MASKS, _COCO),
                "The mean over overlaps of 0.5 to 0.95, as COCO counts it: of masks, and of the boxes around them.",
            ),
            _RPN_LOSSES,
            Plot(
                "Losses of the regions, and of all together",
                "loss",
                "",
                (
                    _part("mask_loss", "mask"),
                    _part("class_loss", "class of the box"),
                    _part("mask_class_loss", "class of the mask"),
                    _part("box_loss", "box"),
                    LOSS,
                ),
                "Sums of the passes, means over windows of iterations.",
            ),
        ),
        final=(LOSS, _MASKS_50, _MASKS_70, _MASKS, _BY_AREA),
        title="Final figures",
    ),
    LOCALIZATION: Reported(
        main=(LOSS, _MISPLACED),
        plots=(
            Plot(
                "Localization error",
                "error",
                "%",
                (_MISPLACED,),
                "The share of the test pictures whose box overlaps (IoU) no object of its class by 0.5, where the true "
                "class is given, against the iteration.",
            ),
            Plot(
                "Losses",
                "loss",
                "",
                (_part("class_loss", "object or not"), _part("box_loss", "box"), LOSS),
                "Means over windows of iterations.",
            ),
        ),
        final=(LOSS, _MISPLACED),
        title="Final figures",
    ),
}


def row_of(task: str, part: object = None) -> str:
    """The row of `REPORTED` for a run of `task`; the recipe of a detector may train a `part` alone."""
    return PROPOSALS if (task, part) == (DETECTION, "rpn") else task


# Test figures of which a larger value is a better one.
LARGER_IS_BETTER = frozenset(
    figure.key for figure in (_BY_AREA, _COCO, _MASKS_50, _MASKS_70, _MASKS, _RECALL, _MEAN_RECALL)
)
