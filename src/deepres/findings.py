"""What an experiment found, as plain values: the one thing that the report is made from."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, stdev
from typing import Any, Literal

from deepres.models.registry import NETWORKS, SERIES, Kind
from deepres.records import Json, Run

Status = Literal["held", "not held", "not tested"]
Cell = str | float | int | None
Points = tuple[Sequence[float], Sequence[float]]
Range = tuple[Sequence[float], Sequence[float]]


@dataclass(frozen=True)
class Verdict:
    """A claim of the paper, its place there ("Sec. 4.2, Fig. 6 left"), and our figures in one sentence."""

    claim: str
    place: str
    status: Status
    detail: str


@dataclass(frozen=True)
class Curve:
    """One network's training and test error in %, as (iterations, values); `depth` counts weighted layers.

    Over several seeds the values are means, and the ranges hold the seeds' (least, largest) values at the
    same iterations; for a single seed they are empty.
    """

    label: str
    depth: int
    kind: Kind
    train_error: Points
    test_error: Points
    train_range: Range = ((), ())
    test_range: Range = ((), ())
    seeds: int = 1


@dataclass(frozen=True)
class Series:
    """One network's layer responses (Fig. 7): `values[i]` is the standard deviation of layer i + 1."""

    label: str
    depth: int
    kind: Kind
    values: Sequence[float]


@dataclass(frozen=True)
class Panel:
    """Error against iteration, as in Figs. 1 and 6: training error thin and dashed, test error bold.

    `against` names what stands in place of the iterations, if something else does.
    """

    title: str
    curves: tuple[Curve, ...]
    against: str = "iteration"


@dataclass(frozen=True)
class ResponsePanel:
    """Responses against the layer, in the network's order or sorted by magnitude, largest first (Fig. 7)."""

    title: str
    series: tuple[Series, ...]
    sorted: bool = False


@dataclass(frozen=True)
class Figure:
    """Panels that stand side by side and share their y axis."""

    title: str
    caption: str
    panels: tuple[Panel | ResponsePanel, ...]


@dataclass(frozen=True)
class Table:
    """Our figures beside the paper's; every row has as many cells as there are columns."""

    title: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class RunSummary:
    """What one run was and how far it came: `done` is None until it is finished, `seconds` are of work so far.

    `settings` holds the configuration but for the recipe; `iteration` is the last one with a recorded figure.
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


@dataclass(frozen=True)
class Findings:
    """All that a report shows, in its order: verdicts, figures, tables, runs."""

    title: str
    summary: str
    verdicts: tuple[Verdict, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    runs: tuple[RunSummary, ...] = ()


def describe(network: str) -> tuple[str, int, Kind]:
    """A network's label as the paper writes it, its depth and kind: (`ResNet-56`, 56, `residual`).

    The table of networks tells. An unknown name of such a form (`vgg11`) is taken apart, too; any other is its own
    label, with depth 0.
    """
    if network in NETWORKS:
        row = NETWORKS[network]
        return row.label, row.depth, row.kind
    match = re.fullmatch(rf"({'|'.join(SERIES)})(\d{{1,5}})(?:-(.+))?", network)
    if match is None:
        return network, 0, "residual"
    word, depth, option = match.groups(default="")
    return SERIES[word].label_of(depth, option), int(depth), SERIES[word].kind


def mean_points(seeds: Sequence[Points]) -> tuple[Points, Range]:
    """The mean of several seeds' points, and their range, at the iterations that every started seed has.

    A single seed has an empty range.
    """
    started = [dict(zip(*points, strict=True)) for points in seeds if points[0]]
    if not started:
        return ((), ()), ((), ())
    common = sorted(set(started[0]).intersection(*started))
    columns = [[seed[iteration] for seed in started] for iteration in common]
    points = (tuple(common), tuple(sum(column) / len(column) for column in columns))
    if len(started) == 1:
        return points, ((), ())
    return points, (tuple(map(min, columns)), tuple(map(max, columns)))


def curve_of(runs: Sequence[Run], label: str | None = None) -> Curve:
    """The curve of one network from its runs, one run a seed; raises `InputError` where one is not a run."""
    name, depth, kind = describe(runs[0].field("network"))
    train, train_range = mean_points([run.curve("train_error") for run in runs])
    test, test_range = mean_points([run.curve("test_error") for run in runs])
    return Curve(label or name, depth, kind, train, test, train_range, test_range, len(runs))


def curves_of(runs: Mapping[str, Sequence[Run]]) -> dict[str, Curve]:
    """One curve a network, over the seeds that were started."""
    started = {network: [run for run in its_runs if run.exists] for network, its_runs in runs.items()}
    return {network: curve_of(its_runs) for network, its_runs in started.items() if its_runs}


def spread_text(values: Sequence[float]) -> str | None:
    """Mean, with the standard deviation where there is more than one value."""
    if not values:
        return None
    return f"{mean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"


def summary_of(run: Run) -> RunSummary:
    """What a run folder says of itself; raises `InputError` where it is not a run."""
    settings = {name: value for name, value in run.config.items() if name != "recipe"}
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
        settings=settings,
    )
