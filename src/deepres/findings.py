"""The findings of an experiment as plain values, which the report shows."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal

from deepres.models.registry import METHODS, NETWORKS, SERIES, Kind, method_of
from deepres.records import Json, Run
from deepres.runtime.figures import CLASSIFICATION, REPORTED, Plot, Reported, row_of

Status = Literal["held", "not held", "not tested"]


class Link(str):
    """A text that leads to another page, whose path from the page that shows it is `target`."""

    target: str

    def __new__(cls, text: str, target: str) -> "Link":
        """The text with its target."""
        made = super().__new__(cls, text)
        made.target = target
        return made


Cell = str | float | int | None
ERRORS = REPORTED[CLASSIFICATION].plots[0]
Points = tuple[Sequence[float], Sequence[float]]  # iterations and values of one run


@dataclass(frozen=True)
class Verdict:
    """A claim of the paper, its place there ("Sec. 4.2, Fig. 6 left"), and our figures in one sentence."""

    claim: str
    place: str
    status: Status
    detail: str


@dataclass(frozen=True)
class Series:
    """One figure of a network over the iterations: the value `y[i]` at iteration `x[i]`.

    `training` is true for training figures and false for test figures. Over several seeds `y` is the mean, `low` and
    `high` are the least and the largest value; for a single seed they are empty.
    """

    x: Sequence[float] = ()
    y: Sequence[float] = ()
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    training: bool = False


@dataclass(frozen=True)
class Curve:
    """One network's series by name, such as "training error" and "test error"; `depth` counts weighted layers."""

    label: str
    depth: int
    kind: Kind
    series: Mapping[str, Series]
    seeds: int = 1


@dataclass(frozen=True)
class Responses:
    """One network's layer responses (Fig. 7): `values[i]` is the standard deviation of layer i + 1."""

    label: str
    depth: int
    kind: Kind
    values: Sequence[float]


@dataclass(frozen=True)
class Panel:
    """Curves as in Figs. 1 and 6: lines of training figures are thin and broken, those of test figures bold.

    `against` names the x axis, and `value` with its `unit` the y axis.
    """

    title: str
    curves: tuple[Curve, ...]
    against: str = "iteration"
    value: str = "error"
    unit: str = "%"


@dataclass(frozen=True)
class ResponsePanel:
    """Responses against the layer, in the network's order or sorted by magnitude, largest first (Fig. 7)."""

    title: str
    responses: tuple[Responses, ...]
    sorted: bool = False


@dataclass(frozen=True)
class PrecisionRecall:
    """A detector's precision against its recall for one class, both in percent.

    `precisions[i]` is the largest precision at a recall of at least `recalls[i]`; the detections with a score of at
    least `scores[i]` have it. The curve ends at the largest recall.
    """

    label: str
    recalls: Sequence[float]
    precisions: Sequence[float]
    scores: Sequence[float]


@dataclass(frozen=True)
class PrecisionRecallPanel:
    """Precision against recall of several classes."""

    title: str
    classes: tuple[PrecisionRecall, ...]


AnyPanel = Panel | ResponsePanel | PrecisionRecallPanel


@dataclass(frozen=True)
class Figure:
    """Panels that stand side by side and share their y axis."""

    title: str
    caption: str
    panels: tuple[AnyPanel, ...]


@dataclass(frozen=True)
class Table:
    """Our figures beside the paper's; every row has as many cells as there are columns.

    `shades` colours the cells of a matrix: for each row a share from 0 to 1 for each cell behind the first.
    """

    title: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    shades: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True)
class Pictures:
    """A picture in a JPEG `file`, which the page shows whole."""

    title: str
    caption: str
    file: Path


@dataclass(frozen=True)
class RunSummary:
    """One run of a `task` and its progress: `done` is None until it is finished, `seconds` is the time of work so far.

    `settings` is the configuration without the recipe; `iteration` is the last one with a recorded figure.
    """

    name: str
    network: str
    seed: int
    data: str
    recipe: Json
    environment: list[Json]
    done: Json | None
    seconds: float | None
    iteration: int = 0
    settings: Json = field(default_factory=dict[str, Any])
    task: str = CLASSIFICATION

    @property
    def row(self) -> str:
        """The key of its figures in `REPORTED`."""
        return row_of(self.task, self.recipe.get("part"))

    @property
    def reported(self) -> Reported:
        """The figures that it records."""
        return REPORTED[self.row]


@dataclass(frozen=True)
class Findings:
    """All that a report shows, in its order: verdicts, figures, pictures, tables, runs."""

    title: str
    summary: str
    verdicts: tuple[Verdict, ...] = ()
    figures: tuple[Figure, ...] = ()
    pictures: tuple[Pictures, ...] = ()
    tables: tuple[Table, ...] = ()
    runs: tuple[RunSummary, ...] = ()


def describe(network: str) -> tuple[str, int, Kind]:
    """A network's label as the paper writes it, its depth and kind: (`ResNet-56`, 56, `residual`).

    They come from the table of networks. For other names of such a form (`vgg11`) they follow from the name, for a
    detector from its backbone; any other name is its own label, with depth 0.
    """
    if method := method_of(network):
        label, depth, kind = describe(network.removeprefix(method))
        return f"{label}, {METHODS[method].label}", depth, kind  # what tells two apart first: plots cut labels
    if network in NETWORKS:
        row = NETWORKS[network]
        return row.label, row.depth, row.kind
    match = re.fullmatch(rf"({'|'.join(SERIES)})(\d{{1,5}})(?:-(.+))?", network)
    if match is None:
        return network, 0, "residual"
    word, depth, option = match.groups(default="")
    return SERIES[word].label_of(depth, option), int(depth), SERIES[word].kind


def series_of(seeds: Sequence[Points], *, training: bool = False) -> Series:
    """The mean of several seeds' points, with their range, at the iterations that every started seed has."""
    started = [dict(zip(*points, strict=True)) for points in seeds if points[0]]
    if not started:
        return Series(training=training)
    common = sorted(set(started[0]).intersection(*started))
    columns = [[seed[iteration] for seed in started] for iteration in common]
    means = tuple(sum(column) / len(column) for column in columns)
    ends = (tuple(map(min, columns)), tuple(map(max, columns))) if len(started) > 1 else ((), ())
    return Series(tuple(common), means, *ends, training)


def curve_of(runs: Sequence[Run], label: str | None = None, plot: Plot = ERRORS) -> Curve:
    """The figures of `plot` for one network, from one run per seed. Raises `InputError` where one is not a run."""
    name, depth, kind = describe(runs[0].field("network"))
    series = {
        figure.label: series_of([run.curve(figure.key) for run in runs], training=figure.training)
        for figure in plot.figures
    }
    return Curve(label or name, depth, kind, series, len(runs))


def curves_of(runs: Mapping[str, Sequence[Run]]) -> dict[str, Curve]:
    """One curve per network, over the seeds that were started."""
    started = {network: [run for run in its_runs if run.exists] for network, its_runs in runs.items()}
    return {network: curve_of(its_runs) for network, its_runs in started.items() if its_runs}


def spread_text(values: Sequence[float]) -> str | None:
    """Mean, with the standard deviation where there is more than one value."""
    if not values:
        return None
    return f"{mean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"


def summary_of(run: Run) -> RunSummary:
    """The summary of a run folder. Raises `InputError` where it is not a run."""
    done, timing, metrics = run.done, run.timing(), run.metrics()
    return RunSummary(
        name=run.path.resolve().name,
        network=run.field("network"),
        seed=run.field("seed"),
        data=run.field("data"),
        recipe=run.field("recipe"),
        environment=run.environment,
        done=done,
        seconds=done["seconds"] if done else max((row["seconds"] for row in timing), default=None),
        iteration=max((row["iteration"] for row in metrics), default=0),
        settings={name: value for name, value in run.config.items() if name != "recipe"},
        task=run.task,
    )
