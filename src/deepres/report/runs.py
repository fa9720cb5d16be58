"""Findings from folders: those of a plan have verdicts, those of runs alone have none."""

import json
from collections.abc import Sequence
from pathlib import Path

from deepres.findings import Cell, Curve, Figure, Findings, Panel, RunSummary, Table, curve_of, describe, summary_of
from deepres.models.registry import Kind
from deepres.records import Run
from deepres.runtime.errors import InputError
from deepres.runtime.printing import visible

# Fields of a configuration in which the runs of one curve may differ.
NOT_OF_A_CURVE = ("seed", "data_path", "start_path", "division")
PANELS: dict[Kind, str] = {"plain": "Plain networks", "residual": "Residual networks", "highway": "Highway networks"}


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

        return [run for its_runs in read_plan(plan).runs().values() for run in its_runs]
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
    """Curves, final errors and settings of `runs`, without verdicts on the paper's claims.

    Runs that only differ in the seed make one curve, their mean, unless they are to be shown `apart`. Raises
    `InputError` for a folder that is not a run.
    """
    if not runs:
        raise InputError("there is no run to report; give one run folder or more")
    # Curves by the kind of network, a panel each.
    summaries = [summary_of(run) for run in runs]
    curves = _curves(runs, apart)
    groups = {title: tuple(curve for curve in curves if curve.kind == kind) for kind, title in PANELS.items()}
    panels = tuple(Panel(title, members) for title, members in groups.items() if members)
    # One figure, the final errors, and the settings of all runs.
    caption = "Error against the iteration, laid out as in Figure 6 of the paper."
    what = "runs" if apart else "networks"
    return Findings(
        title=f"Training of {curves[0].label if len(curves) == 1 else f'{len(curves)} {what}'}",
        summary=_summary(summaries),
        figures=(Figure("Training and test error", caption, panels),),
        tables=(_final_errors(summaries),),
        runs=tuple(summaries),
    )


def _curves(runs: Sequence[Run], apart: bool) -> list[Curve]:
    """One curve for the runs of each configuration, over their seeds, or one for each run where they stand `apart`.

    Curves of one label take the folder's name.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        same = {name: value for name, value in run.config.items() if name not in NOT_OF_A_CURVE}
        same |= {"run": str(run.path)} if apart else {}
        groups.setdefault(json.dumps(same, sort_keys=True), []).append(run)
    curves = [curve_of(group) for group in groups.values()]
    labels = [curve.label for curve in curves]
    return [
        curve if labels.count(curve.label) == 1 else curve_of(group, visible(group[0].path.resolve().name))
        for curve, group in zip(curves, groups.values(), strict=True)
    ]


def _final_errors(summaries: Sequence[RunSummary]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for run in summaries:
        done = run.done or {}
        top5 = done.get("test_top5_error") if run.settings.get("num_classes", 10) > 5 else None  # else always 0
        figures = (done.get("train_error"), done.get("test_error"), top5)
        rows.append((run.name, describe(run.network)[0], run.seed, run.iteration, *figures))
    return Table(
        "Final errors (%)",
        "At the last iteration, never the best one; training error over the last window of iterations. "
        "A run that is not finished has none yet.",
        ("run", "network", "seed", "iterations", "training error", "test error", "top-5 test error"),
        tuple(rows),
    )


def _summary(summaries: Sequence[RunSummary]) -> str:
    done = sum(run.done is not None for run in summaries)
    data = ", ".join(dict.fromkeys(run.data for run in summaries))
    return f"Data: {data}. {done} of {len(summaries)} run{'s' if len(summaries) > 1 else ''} finished."
