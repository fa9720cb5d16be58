"""What the detectors of a plan find in the test pictures, as results for claims and as tables beside the paper's."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from deepres.detection.detection_table import read_detections
from deepres.detection.figures import Figures
from deepres.detection.mean_ap.tables import percent
from deepres.findings import Cell, Curve, Figure, Panel, Table, curve_of, describe, spread_text
from deepres.models.catalog import entry
from deepres.models.registry import DETECTOR, DETECTORS, backbone_of
from deepres.paper.claims import Results
from deepres.paper.detectors import FINETUNED, STANDING_IN, Detectors
from deepres.paper.plan import Plan, Scale
from deepres.runtime.figures import REPORTED

RESNET, VGG = "ResNet", DETECTOR + "vgg16"  # of claims: the improved network, and the one that it replaces
Numbers = Mapping[str, tuple[float | None, ...]]  # the paper's, by network or step
# Of each figure its column, and how it is found, as a share.
COLUMNS: dict[str, tuple[str, Callable[[Figures], float | None]]] = {
    "map07": ("mAP@.5, VOC 2007", lambda own: own.by_points.map),
    "map12": ("mAP@.5, VOC 2012", lambda own: own.by_area.map),
    "map50": ("mAP@.5", lambda own: own.coco.map50),
    "map": ("mAP@[.5,.95]", lambda own: own.coco.map),
    "mapdet": ("mAP@.5, ILSVRC", lambda own: own.by_ilsvrc.map),
    "mapr50": ("mAP^r@.5", lambda own: own.masks and own.masks.regions[0].map),
    "mapr70": ("mAP^r@.7", lambda own: own.masks and own.masks.regions[1].map),
    "mask_map": ("mask mAP@[.5,.95]", lambda own: own.masks and own.masks.coco.map),
}
BY_AREA = "map12"
# Figures that have an interval, and how it is found.
INTERVALS: dict[str, Callable[[Figures], tuple[float, float] | None]] = {
    BY_AREA: lambda own: own.interval,
    "mapr50": lambda own: own.masks and own.masks.interval,
}
COCO_RULES = "Both are COCO's figures."
RULES = "VOC 2007 counts precision at 11 points of recall, VOC 2012 the area under the curve."
DET_RULES = "ILSVRC's figure is lenient to small objects; that of VOC 2012 is not."
HOW: dict[Scale, str] = {
    "smoke": "Runs of a few steps: the figures only show that all of it works.",
    "quick": "Short runs on small pictures: compare the rows with each other, not with the paper's.",
    "paper": "The recipe of the paper, but for training end to end.",
}
STAND_INS = "plain-8 and ResNet-8 stand in for VGG-16 and ResNet-101."


@dataclass(frozen=True)
class Measured:
    """The tested rows of a plan, by key and seed; a key that is not tested yet has none."""

    sheet: Detectors
    plan: Plan
    rows: Mapping[str, Mapping[int, Figures]]

    def results(self) -> Results:
        """The figures of each row in percent, for claims; those of the improved network also as `RESNET`."""
        improved = self.sheet.improved(self.plan)
        found = {
            key: [
                {name: 100 * (of(own) or 0.0) for name, (_, of) in COLUMNS.items()}
                | {"place": seed, "classes": len(own.table.classes)}
                for seed, own in seeds.items()
            ]
            for key, seeds in self.rows.items()
        }
        return found | ({RESNET: found[improved]} if improved else {})

    @property
    def how(self) -> str:
        """How the rows are measured, in a few sentences."""
        one = next((own for seeds in self.rows.values() for own in seeds.values()), None)
        if one is None:
            return "No network is tested yet."
        improved = self.sheet.improved(self.plan) if self.sheet.steps else None
        best = f" {STAND_INS}" if tuple(map(backbone_of, self.plan.networks)) == STANDING_IN else ""
        if improved:
            best += f" The improvements are those of {label(improved)}, the best residual network on these pictures."
        return (
            f"{len(one.table.names):,} test pictures of {self.plan.data} with {len(one.table.classes)} classes. "
            f"{self._starts}{best} {HOW[self.plan.scale]}"
        )

    @property
    def _starts(self) -> str:
        """What the networks start from, and what is trained of them."""
        told = list[str]()
        if trained := [label(name) for name in dict.fromkeys(self.plan.networks) if name in self.plan.starts]:
            told.append(f"{' and '.join(trained)} from trained weights, with batch normalization fixed.")
        random = [name for name in dict.fromkeys(self.plan.networks) if name not in self.plan.starts]
        if normalized := [label(name) for name in random if entry(name).has_bn]:
            told.append(f"{' and '.join(normalized)} from random weights, with batch normalization trained.")
        if bare := [label(name) for name in random if not entry(name).has_bn]:
            told.append(f"{' and '.join(bare)} from random weights, without batch normalization, at a lower rate.")
        if FINETUNED in self.plan.starts:
            told.append(f"{FINETUNED} from a trained detector.")
        return " ".join(told)


def measured(sheet: Detectors, plan: Plan) -> Measured:
    """What is kept of the tests of a plan."""
    rows: dict[str, dict[int, Figures]] = {}
    for row in sheet.rows(plan):
        own = rows.setdefault(row.key, {})
        if row.finished and (file := row.file(plan)).exists():
            own[row.seed] = Figures(read_detections(file))
    return Measured(sheet, plan, rows)


@dataclass(frozen=True)
class Printed:
    """The `columns` of `numbers` that somebody prints, beside which ours stand; `told` says of them what readers need.

    `of` is whose they are, before the name of each column.
    """

    numbers: Numbers
    columns: tuple[str, ...]
    of: str = "paper"
    told: str = "The paper's figures are those of its full recipe."


def means_beside(found: Measured, title: str, figures: Sequence[str], rules: str, printed: Printed) -> Table:
    """The `figures` of each row by these `rules`, then what is `printed`: Tables 7 to 9 and 12, and that of masks."""
    rows: list[tuple[Cell, ...]] = []
    numbers = printed.numbers
    networks = [key for key in (*found.rows, *numbers) if key.startswith(DETECTORS)]
    for key in dict.fromkeys([*networks, *found.rows, *numbers]):
        seeds = found.rows.get(key, {}).values()
        ours = (_shown(figure, list(seeds)) for figure in figures)
        others = numbers.get(key, (None,) * len(printed.columns))
        rows.append((label(key), *ours, *(None if value is None else f"{value:.1f}" for value in others)))
    brackets = " In brackets: bootstrap 95 % interval over the test pictures." if INTERVALS.keys() & {*figures} else ""
    caption = f"{found.how} {rules}{brackets} Of several seeds: mean ± standard deviation. {printed.told}"
    names = (*(COLUMNS[figure][0] for figure in figures), *(f"{printed.of}: {own}" for own in printed.columns))
    return Table(f"{title} (%)", caption, ("detector", *names), tuple(rows))


def classes_beside_the_papers(
    found: Measured, title: str, rule: str, printed: Mapping[str, Mapping[str, float]], names: Mapping[str, str]
) -> Table:
    """Tables 10 and 11: average precision by class, of each row that the paper has and each of ours, side by side.

    `printed` has the paper's figures by row and class, `names` the paper's names of the classes of PASCAL VOC.
    """
    ours: dict[str, dict[str, list[float]]] = {key: {} for key in found.rows}
    for key, seeds in found.rows.items():
        for own in seeds.values():
            result = own.by_points if rule != BY_AREA else own.by_area
            for name, value in (("mAP", result.map), *((one.name, one.ap) for one in result.classes)):
                if value is not None:
                    ours[key].setdefault(names.get(name, name), []).append(value)
    classes = dict.fromkeys(["mAP", *(name for own in ours.values() for name in own), *next(iter(printed.values()))])
    rows: list[tuple[Cell, ...]] = [
        (
            name,
            *(percent(mean(own[name])) if name in own else None for own in ours.values()),
            *(f"{own[name]:.1f}" if name in own else None for own in printed.values()),
        )
        for name in classes
    ]
    columns = (*map(label, ours), *(f"paper: {label(key)}" for key in printed))
    caption = f"{found.how} {RULES} The names of the classes are the paper's; a dash: not measured, or not printed."
    return Table(f"{title} (%)", caption, ("class", *columns), tuple(rows))


def every_run(found: Measured) -> Table:
    """The final figures of every run, by its own test during training."""
    rows: list[tuple[Cell, ...]] = []
    main = REPORTED[found.sheet.trains.name].final
    for its_runs in found.sheet.runs(found.plan).values():
        for run in its_runs:
            done = run.done or {}
            rows.append((run.path.name, *(done.get(own.key) for own in main), done.get("seconds")))
    columns = ("run", *(f"{own.label} ({own.unit})" if own.unit else own.label for own in main), "seconds")
    return Table(
        "Every run",
        "At the last iteration, tested as the baseline is; mAP@.5 of boxes by the area under the curve.",
        columns,
        tuple(rows),
    )


def curves(found: Measured) -> Figure:
    """mAP against the iteration, of all runs that were started."""
    plot = REPORTED[found.sheet.trains.name].plots[0]
    groups: dict[str, list[Curve]] = {"Plain networks": [], "Residual networks": []}
    for name, its_runs in found.sheet.runs(found.plan).items():
        if own := [run for run in its_runs if run.exists]:
            curve = curve_of(own, label(name) if name in found.plan.networks else "+ context", plot)
            groups["Plain networks" if curve.kind == "plain" else "Residual networks"].append(curve)
    panels = (Panel(kind, tuple(own), value=plot.value, unit=plot.unit) for kind, own in groups.items() if own)
    return Figure(plot.title, plot.caption, tuple(panels))


def label(key: str) -> str:
    """The name of a row for readers: of a network, that of its backbone, since all are of one method."""
    network, _, more = key.partition(" ")
    return f"{describe(backbone_of(network))[0]} {more}".strip() if network.startswith(DETECTORS) else key


def _shown(figure: str, seeds: Sequence[Figures]) -> str | None:
    """A figure, with its interval where it has one, or the mean of several seeds."""
    values = [100 * value for own in seeds if (value := COLUMNS[figure][1](own)) is not None]
    if figure in INTERVALS and len(values) == 1 and (ends := INTERVALS[figure](seeds[0])) is not None:
        return f"{values[0]:.1f} ({100 * ends[0]:.1f} to {100 * ends[1]:.1f})"
    return f"{values[0]:.1f}" if len(values) == 1 else spread_text(values)
