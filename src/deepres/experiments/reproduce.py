"""From the name of a figure or table to its runs and findings."""

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from difflib import get_close_matches
from pathlib import Path

from deepres.data.sets import Data
from deepres.errors import InputError
from deepres.experiments import architectures
from deepres.experiments.cifar import EXPERIMENTS
from deepres.experiments.findings import Findings
from deepres.experiments.material import Say, load_source
from deepres.experiments.plan import Scale, carry_out, make_plan
from deepres.experiments.results import findings_of, measure_responses
from deepres.records import Json
from deepres.training.recipe import Config
from deepres.training.trainer import Monitor


def reproduce(
    name: str,
    scale: Scale,
    base: Config,
    root: Path,
    networks: str | None,
    seeds: int,
    say: Say,
    monitor: Callable[[Config], AbstractContextManager[Monitor]],
) -> tuple[Path, Findings]:
    """Carry out an experiment under `root`; return its folder and findings.

    `base` has the data, device and precision of all runs. Raises `InputError` for an unknown experiment.
    """
    if name == "table1":
        return root / "table1", Findings("Table 1: ImageNet architectures", "", tables=architectures.overview())
    if name not in EXPERIMENTS:
        near = get_close_matches(name, known := [*EXPERIMENTS, "table1"], n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
        raise InputError(f"unknown experiment {name!r}; {hint}")
    plan = make_plan(EXPERIMENTS[name], scale, base.data, root, networks, seeds)
    data = load_source(base, say)
    carry_out(plan, base, data, monitor)
    if name == "fig7":
        assert isinstance(data, Data)  # the recipes of Sec. 4.2
        measure_responses(plan, data, say)
    return plan.folder, findings_of(plan)


def as_json(findings: Findings) -> Json:
    """Verdicts and tables as plain values."""
    return {
        "title": findings.title,
        "verdicts": [dataclasses.asdict(verdict) for verdict in findings.verdicts],
        "tables": [architectures.as_json(table) for table in findings.tables],
    }
