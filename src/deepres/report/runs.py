"""Findings from folders: those of a plan have verdicts, those of runs alone have none."""

import json
from collections.abc import Sequence
from pathlib import Path

from deepres.findings import Cell, Figure, Findings, Panel, RunSummary, Table, curve_of, describe, summary_of
from deepres.models.registry import Kind
from deepres.records import Run
from deepres.report.tables import with_unit
from deepres.runtime.errors import InputError
from deepres.runtime.figures import DETECTION, LOCALIZATION, REPORTED, SEGMENTATION, Plot
from deepres.runtime.printing import visible

# Fields of a configuration in which the runs of one curve may differ.
NOT_OF_A_CURVE = ("seed", "data_path", "start_path", "division")
PANELS: dict[Kind, str] = {"plain": "Plain networks", "residual": "Residual networks", "highway": "Highway networks"}
Group = tuple[list[Run], str | None]  # runs of one curve, and its label where that of the network does not tell it


def findings_of(places: Sequence[Path]) -> Findings:
    """The findings of one plan folder, or of run folders and folders of them.

    Raises `InputError` for a folder that is none of these, and for a plan that is given together with other folders.
    """
    if (plan := plan_among(places)) is None:
        return findings_of_runs(runs_of(places))
    from deepres.paper.plan import read_plan  # loads torch, which runs alone do not need
    from deepres.paper.reproduce import findings_of_plan

    return findings_of_plan(read_plan(plan))


def plan_among(places: Sequence[Path]) -> Path | None:
    """The plan folder among `places`. Raises `InputError` where it is given together with other folders."""
    plans = [place for place in places if (place / "plan.json").exists()]
    if plans and len(places) > 1:
        raise InputError(f"{plans[0]} is a plan and makes a page of its own; give it alone, or run folders only")
    return plans[0] if plans else None


def runs_of(places: Sequence[Path]) -> list[Run]:
    """All runs of one plan folder; or the run folders among `places`, and those in the folders among them."""
    if plan := plan_among(places):
        from deepres.paper.plan import read_plan
        from deepres.paper.reproduce import runs_of_plan

        return runs_of_plan(read_plan(plan))
    return [run for place in places for run in _within(place) or [Run(place)]]


def holds_runs(place: Path) -> bool:
    """Whether `place` is no run itself, but a folder with runs in it."""
    return bool(_within(place))


def _within(place: Path) -> list[Run]:
    """The runs in the folder `place`, by name; none where it is a run itself."""
    if not place.is_dir() or (place / "config.json").exists():
        return []
    files = ("config.json", "environment.json")  # a config.json alone may be another program's
    return [Run(own) for own in sorted(place.iterdir()) if all((own / name).exists() for name in files)]


def findings_of_runs(runs: Sequence[Run], apart: bool = False) -> Findings:
    """Curves, final figures and settings of `runs`, without verdicts on the paper's claims.

    Each kind of task has figures and a table of its own. Runs that only differ in the seed make one curve, their mean,
    unless they are to be shown `apart`. Raises `InputError` for a folder that is not a run.
    """
    if not runs:
        raise InputError("there is no run to report; give one run folder or more")
    # The runs of each task, in groups of one curve.
    summaries, rows = [summary_of(run) for run in runs], dict[str, list[Run]]()
    for run, summary in zip(runs, summaries, strict=True):
        rows.setdefault(summary.row, []).append(run)
    groups = {row: _groups(members, apart) for row, members in rows.items()}
    # Their figures, their final figures, and the settings of all.
    tested = _tests([run for task in (DETECTION, SEGMENTATION) for run in rows.get(task, [])])
    labels = [label or describe(group[0].field("network"))[0] for own in groups.values() for group, label in own]
    what = "runs" if apart else "networks"
    return Findings(
        title=f"Training of {labels[0] if len(labels) == 1 else f'{len(labels)} {what}'}",
        summary=_summary(summaries),
        figures=(*(_figure(plot, groups[row]) for row in rows for plot in REPORTED[row].plots), *tested.figures),
        pictures=tested.pictures,
        tables=(
            *(_final_figures(row, [run for run in summaries if run.row == row]) for row in rows),
            *tested.tables,
            *_located(rows.get(LOCALIZATION, [])),
        ),
        runs=tuple(summaries),
    )


def _tests(runs: Sequence[Run]) -> Findings:
    """What `deepres eval` left in the folders of runs of detectors."""
    if not any(file for run in runs for file in run.path.glob("detections*.safetensors")):
        return Findings("", "")
    from deepres.report.detector import shown  # loads torch, which runs alone do not need

    return shown(runs)


def _located(runs: Sequence[Run]) -> list[Table]:
    """What `deepres eval` left in the folders of runs of localizers: a table for each test."""
    files = {run: sorted(run.path.glob("located-*.json")) for run in runs}
    if not any(files.values()):
        return []
    from deepres.localization.located_table import read_located  # loads torch, which runs alone do not need

    return [read_located(file).table(run.path.resolve().name) for run, own in files.items() for file in own]


def _groups(runs: Sequence[Run], apart: bool) -> list[Group]:
    """The runs of each configuration, which only differ in the seed, or each run where they stand `apart`.

    Groups whose networks have one label take the name of a folder.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        same = {name: value for name, value in run.config.items() if name not in NOT_OF_A_CURVE}
        same |= {"run": str(run.path)} if apart else {}
        groups.setdefault(json.dumps(same, sort_keys=True), []).append(run)
    labels = [describe(group[0].field("network"))[0] for group in groups.values()]
    return [
        (group, None if labels.count(label) == 1 else visible(group[0].path.resolve().name))
        for group, label in zip(groups.values(), labels, strict=True)
    ]


def _figure(plot: Plot, groups: Sequence[Group]) -> Figure:
    """The curves of a plot by the kind of network, a panel each."""
    curves = [curve_of(group, label, plot) for group, label in groups]
    kinds = {title: tuple(curve for curve in curves if curve.kind == kind) for kind, title in PANELS.items()}
    panels = (Panel(title, own, value=plot.value, unit=plot.unit) for title, own in kinds.items() if own)
    return Figure(plot.title, plot.caption, tuple(panels))


def _final_figures(row: str, summaries: Sequence[RunSummary]) -> Table:
    """The figures of finished runs that record the same ones, a `row` of all."""
    reported = REPORTED[row]
    rows: list[tuple[Cell, ...]] = []
    for run in summaries:
        done, classes = run.done or {}, run.settings.get("num_classes", 10)
        figures = (done.get(own.key) if classes > own.trivial else None for own in reported.final)
        rows.append((run.name, describe(run.network)[0], run.seed, run.iteration, *figures))
    # One unit of all stands in the title.
    units = {own.unit for own in reported.final}
    shared = units.pop() if len(units) == 1 else ""
    columns = (with_unit(own.label, "" if own.unit == shared else own.unit) for own in reported.final)
    return Table(
        with_unit(reported.title, shared),
        "At the last iteration, never the best one; training figures over the last window of iterations. "
        "A run that is not finished has none yet.",
        ("run", "network", "seed", "iterations", *columns),
        tuple(rows),
    )


def _summary(summaries: Sequence[RunSummary]) -> str:
    done = sum(run.done is not None for run in summaries)
    data = ", ".join(dict.fromkeys(run.data for run in summaries))
    return f"Data: {data}. {done} of {len(summaries)} run{'s' if len(summaries) > 1 else ''} finished."
