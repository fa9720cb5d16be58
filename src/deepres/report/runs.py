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
    """The findings of one plan folder, or of several run folders.

    Raises `InputError` for a folder that is neither, and for a plan that is given together with other folders.
    """
    plans = [place for place in places if (place / "plan.json").exists()]
    if not plans:
        return findings_of_runs([Run(place) for place in places])
    if len(places) > 1:
        raise InputError(f"{plans[0]} is a plan and makes a page of its own; give it alone, or run folders only")
    from deepres.paper.plan import read_plan  # loads torch, which runs alone do not need
    from deepres.paper.reproduce import findings_of_plan

    return findings_of_plan(read_plan(plans[0]))


def findings_of_runs(runs: Sequence[Run]) -> Findings:
    """Curves, final errors and settings of `runs`, without verdicts on the paper's claims.

    Runs that only differ in the seed make one curve, their mean. Raises `InputError` for a folder that is not a run.
    """
    if not runs:
        raise InputError("there is no run to report; give one run folder or more")
    # Curves by the kind of network, a panel each.
    summaries = [summary_of(run) for run in runs]
    curves = _curves(runs)
    groups = {title: tuple(curve for curve in curves if curve.kind == kind) for kind, title in PANELS.items()}
    panels = tuple(Panel(title, members) for title, members in groups.items() if members)
    # One figure, the final errors, and the settings of all runs.
    caption = "Error against the iteration, laid out as in Figure 6 of the paper."
    return Findings(
        title=f"Training of {curves[0].label}" if len(curves) == 1 else f"Training of {len(curves)} networks",
        summary=_summary(summaries),
        figures=(Figure("Training and test error", caption, panels),),
        tables=(_final_errors(summaries),),
        runs=tuple(summaries),
    )


def _curves(runs: Sequence[Run]) -> list[Curve]:
    """One curve for the runs of each configuration, over their seeds; curves of one label take the folder's name."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        same = {name: value for name, value in run.config.items() if name not in NOT_OF_A_CURVE}
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
