"""Appendix C on ImageNet's localization data, or on any folder with boxes: Tables 13 and 14.

The commands. A classifier is trained on the pictures first, unless its weights are given; RPN and R-CNN stage begin on
these weights, and the classifier tells the classes. Pictures with objects of several classes are left out. Both sheets
share their runs: two classifiers, two RPNs and two R-CNN stages, which together are the ensemble.

    deepres reproduce table13 --scale quick --data DIR            6 runs
    deepres reproduce table14 --scale quick --data DIR            the same

The paper's scale takes weights that were trained on ImageNet. It needs a GPU, and has not been run:

    deepres reproduce table13 --scale paper --data ILSVRC --networks resnet101.pth
"""

from collections.abc import Mapping
from dataclasses import dataclass

from deepres.findings import Cell, Curve, Figure, Panel, Table, curve_of, describe, spread_text
from deepres.localization.located_table import LocatedTable
from deepres.paper.claims import Claim, close, higher
from deepres.paper.localizers import DENSE, ENSEMBLE, ONE_CROP, RCNN, Localizers
from deepres.paper.plan import Plan, Scale
from deepres.paper.sheet import Shown
from deepres.runtime.figures import LOCALIZATION, REPORTED

NETWORKS: dict[Scale, tuple[str, ...]] = {"smoke": ("resnet8",), "quick": ("resnet18",), "paper": ("resnet101",)}
Printed = Mapping[str, tuple[float | None, ...]]
FIGURES = {"loc_given": "given", "loc_top5": "top5"}  # of claims: the hits of a table
COSTS: dict[Scale, str] = {"smoke": "seconds", "quick": "4 min each", "paper": "150,000 steps of 256 each"}
HOW: dict[Scale, str] = {
    "smoke": "Runs of a few steps: the figures only show that all of it works.",
    "quick": "Short runs on small crops: compare the rows with each other, not with the paper's.",
    "paper": "Rate, length, anchors and scales are ours: the paper does not give them.",
}
RIGHT = (
    "A box is right where it overlaps an object of its class by 0.5 (IoU). In brackets 95 % intervals over pictures."
)
MIDDLE = "box in the middle of the picture"


@dataclass(frozen=True, kw_only=True)
class Errors(Localizers):
    """A sheet of localization errors: the columns of ours that it shows, by label, beside those that are `printed`."""

    ours: Mapping[str, str]
    printed: Printed
    columns: tuple[str, ...]

    def show(self, plan: Plan) -> Shown:
        """Results, curves, the paper's table, and every run."""
        found = {step.label: self.tested(plan, step) for step in self.steps}
        results = {
            label: [_figures(table) | {"place": seed} for seed, table in seeds.items()]
            for label, seeds in found.items()
        }
        return Shown(results, (self._curves(plan),), (self._table(plan, found), self._every_run(plan)))

    def _table(self, plan: Plan, found: Mapping[str, Mapping[int, LocatedTable]]) -> Table:
        """Ours beside the paper's: its rows that are not ours first."""
        labels = [*(label for label in self.printed if label not in found), *found]
        every = [table for seeds in found.values() for table in seeds.values()]
        rows: list[tuple[Cell, ...]] = []
        if every and "given" in self.ours.values():
            rows.append(
                (
                    MIDDLE,
                    *(_shown(every[:1], "centre") if name == "given" else None for name in self.ours.values()),
                    *[None] * len(self.columns),
                )
            )
        for label in labels:
            tables = list(found.get(label, {}).values())
            own = (_shown(tables, name) for name in self.ours.values())
            paper = self.printed.get(label, (None,) * len(self.columns))
            rows.append((label, *own, *(None if number is None else f"{number:.1f}" for number in paper)))
        pictures = f"{every[0].pictures:,} test pictures. " if every else ""
        caption = f"{pictures}{HOW[plan.scale]} {RIGHT} A dash: not measured, or not printed."
        return Table(f"{self.title} (%)", caption, ("method", *self.ours, *self.columns), tuple(rows))

    def _every_run(self, plan: Plan) -> Table:
        """The final figures of every run, by its own test during training."""
        rows: list[tuple[Cell, ...]] = []
        for its_runs in self.runs(plan).values():
            for run in its_runs:
                done = run.done or {}
                rows.append((run.path.name, done.get("test_error"), done.get("loc_error"), done.get("seconds")))
        caption = "At the last iteration, by the centre crop; localizers with the class given."
        return Table("Every run", caption, ("run", "test error (%)", "localization error (%)", "seconds"), tuple(rows))

    def _curves(self, plan: Plan) -> Figure:
        """The localization error against the iteration, of all localizers that were started."""
        plot, curves = REPORTED[LOCALIZATION].plots[0], list[Curve]()
        for part, label in (("rpn", "RPN"), ("rcnn", "R-CNN stage")):
            if own := [run for run in self.runs(plan)[part] if run.exists]:
                curves.append(curve_of(own, label, plot))
        title = describe(plan.networks[0])[0]
        panels = (Panel(title, tuple(curves), value=plot.value, unit=plot.unit),) if curves else ()
        return Figure(plot.title, plot.caption, panels)


def _figures(table: LocatedTable) -> dict[str, float]:
    """The figures of a test for claims."""
    found = {name: table.scores(hits).error() for name, hits in FIGURES.items() if hits in table.hits}
    return found | {"classes": float(table.facts["classes"])}


def _shown(tables: list[LocatedTable], name: str) -> str | None:
    """An error, of one seed with its interval, or the mean of several."""
    each = [table.scores(name) for table in tables if name in table.hits]
    if len(each) == 1:
        low, high = each[0].interval()
        return f"{each[0].error():.1f} ({low:.1f} to {high:.1f})"
    return spread_text([own.error() for own in each])


def _lowers(text: str, figure: str, worse: str, better: str) -> Claim:
    """`better` has the smaller error."""
    return Claim(text, "Appendix C, Table 13", (worse, better), higher(figure, worse, better, margin=0.0))


def _numbers(place: str, paper: Mapping[str, Mapping[str, float]]) -> Claim:
    text = f"The figures are those of {place}."
    return Claim(text, place, tuple(paper), close(paper, within=1.0), scales=("paper",), classes=1000)


TABLE13 = Errors(
    name="table13",
    title="Table 13: localization error on ImageNet",
    costs=COSTS,
    networks=NETWORKS,
    steps=(ONE_CROP, DENSE, RCNN, ENSEMBLE),
    ours={"class given": "given", "top-5, predicted": "top5"},
    printed={
        "VGG's, 1-crop": (33.1, None),
        ONE_CROP.label: (13.3, None),
        DENSE.label: (11.7, 14.4),
        RCNN.label: (None, 10.6),
        ENSEMBLE.label: (None, 8.9),
    },
    columns=("paper: class given", "paper: top-5, predicted"),
    claims=(
        _lowers("Dense testing lowers the error.", "loc_given", ONE_CROP.label, DENSE.label),
        _lowers("The R-CNN stage lowers the error.", "loc_top5", DENSE.label, RCNN.label),
        _lowers("An ensemble lowers it further.", "loc_top5", RCNN.label, ENSEMBLE.label),
        _numbers(
            "Table 13",
            {
                ONE_CROP.label: {"loc_given": 13.3},
                DENSE.label: {"loc_given": 11.7, "loc_top5": 14.4},
                RCNN.label: {"loc_top5": 10.6},
                ENSEMBLE.label: {"loc_top5": 8.9},
            },
        ),
    ),
)
TABLE14 = Errors(
    name="table14",
    title="Table 14: top-5 localization error of the winners on ImageNet",
    costs=COSTS,
    networks=NETWORKS,
    steps=(ENSEMBLE,),
    ours={"ours": "top5"},
    printed={
        "OverFeat (ILSVRC'13)": (30.0, 29.9),
        "GoogLeNet (ILSVRC'14)": (None, 26.7),
        "VGG (ILSVRC'14)": (26.9, 25.3),
        ENSEMBLE.label: (8.9, 9.0),
    },
    columns=("paper: val", "paper: test"),
    claims=(_numbers("Table 14, val", {ENSEMBLE.label: {"loc_top5": 8.9}}),),
)
SHEETS = (TABLE13, TABLE14)
