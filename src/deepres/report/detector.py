"""The test of a detector for readers: in the terminal, on the page of its run, and as pictures."""

from collections.abc import Sequence
from pathlib import Path

from deepres.data.order import evenly
from deepres.detection.detection_table import read_detections
from deepres.detection.figures import SURE, Figures, summary
from deepres.detection.mean_ap.tables import percent, precision_recall_figure
from deepres.findings import Figure, Findings, Pictures, Table
from deepres.records import Run
from deepres.report.boxes import write
from deepres.report.console import print_tables
from deepres.report.sheets import sheet, sure
from deepres.runtime.errors import InputError
from deepres.runtime.printing import Console, visible
from deepres.workflows.evaluate_detector import KEPT, PLAIN, Tested

SHEET = "sheet.jpg"  # in a run folder: test pictures with truth and detections
SHOWN = 10  # pictures on it
PARTS = {"test": "test pictures", "train": "training pictures"}


def print_figures(console: Console, figures: Figures) -> None:
    """Print the means in a line, then all tables."""
    table = figures.table
    facts, ends = table.facts, figures.interval
    within = "" if ends is None else f" ({percent(ends[0])} to {percent(ends[1])})"
    console.print(
        f"{', '.join(facts['network'])} on {len(table.names):,} {PARTS[facts['part']]} of {visible(table.data)}, "
        f"{facts['title']}: mAP@.5 {_text(figures.by_area.map)} %{within} by area, "
        f"{_text(figures.by_points.map)} % by 11 points; COCO's mAP@[.5,.95] {_text(figures.coco.map)} %",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    if figures.masks is not None:
        at50, at70 = figures.masks.regions
        console.print(
            f"masks: mAP^r {_text(at50.map)} % at the IoU 0.5, {_text(at70.map)} % at 0.7; COCO's mask mAP@[.5,.95] "
            f"{_text(figures.masks.coco.map)} %",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    print_tables(console, figures.tables())


def write_sheet(tested: Tested) -> None:
    """Keep a sheet of ten test pictures, spread evenly, in the run folder that keeps the detections, if one does.

    A picture that cannot be read any more raises `InputError`.
    """
    if tested.kept_in is None or (not tested.new and (tested.kept_in / SHEET).exists()):
        return
    table = tested.table
    rows: list[int] = evenly(len(table.names), SHOWN).tolist()
    try:
        pictures = [tested.picture(row) for row in rows]
    except Exception as error:  # Pillow raises almost any exception for a damaged file
        raise InputError(f"a test picture cannot be drawn ({error}); see deepres data check") from None
    found = sure([table.found[row] for row in rows])
    names = [Path(table.names[row]).name for row in rows]
    image = sheet(pictures, [table.truths[row] for row in rows], found, table.classes, names)
    write(image, tested.kept_in / SHEET)


def shown(runs: Sequence[Run]) -> Findings:
    """What `deepres eval` left in the folders of detection runs: curves, tables, and sheets of pictures.

    Of each run the tables are those of the test by its own settings; all tests are rows of one table.
    """
    figures, tables, sheets = list[Figure](), list[Table](), list[Pictures]()
    for run in runs:
        name = "" if len(runs) == 1 else f" of {visible(run.path.resolve().name)}"
        files = sorted(run.path.glob(f"{KEPT}*.safetensors"), key=lambda file: (file.name != PLAIN, file.name))
        every = [Figures(read_detections(file)) for file in files]
        if not every:
            continue
        tables += [_named(table, name) for table in (summary(every), *every[0].tables())]
        curves = precision_recall_figure(every[0].by_area)
        figures.append(Figure(f"{curves.title}{name}", curves.caption, curves.panels))
        if (run.path / SHEET).is_file():
            caption = (
                f"{SHOWN} test pictures, spread evenly over the test set: at the left with the annotated objects, "
                f"at the right with the detections of a score of {SURE} or more."
            )
            sheets.append(Pictures(f"Test pictures{name}", caption, run.path / SHEET))
    return Findings("", "", figures=tuple(figures), pictures=tuple(sheets), tables=tuple(tables))


def _named(table: Table, name: str) -> Table:
    return Table(f"{table.title}{name}", table.caption, table.columns, table.rows, table.shades)


def _text(value: float | None) -> str:
    return percent(value) or "-"
