"""From the name of a figure or table to its runs and findings."""

import dataclasses
from difflib import get_close_matches
from pathlib import Path

from deepres.classification.recipe import ClassificationConfig
from deepres.classification.source import load_source
from deepres.data.resident import Data
from deepres.findings import Findings
from deepres.paper import architectures
from deepres.paper.evidence import EXPERIMENTS, findings_of, measure_responses
from deepres.paper.plan import Scale, Watch, carry_out, make_plan
from deepres.paper.tables import measure_scores
from deepres.records import Json
from deepres.runtime.errors import InputError
from deepres.runtime.say import Say


def reproduce(
    name: str,
    scale: Scale,
    base: ClassificationConfig,
    root: Path,
    networks: str | None,
    seeds: int | None,
    say: Say,
    watch: Watch,
) -> tuple[Path, Findings]:
    """Carry out an experiment under `root`; return its folder and findings.

    `base` has the data (empty: those of the experiment), device and precision of all runs. `watch` gives each run, and
    each test, somebody to tell. Where `seeds` is None, it is 1, and at the paper's scale what the sheet says. Raises
    `InputError` for an unknown experiment, and for one without data of its own.
    """
    if name == "table1":
        return root / "table1", Findings("Table 1: ImageNet architectures", "", tables=architectures.overview())
    if name not in EXPERIMENTS:
        near = get_close_matches(name, known := [*EXPERIMENTS, "table1"], n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
        raise InputError(f"unknown experiment {name!r}; {hint}")
    sheet = EXPERIMENTS[name]
    data = base.data or sheet.data
    if data is None:
        raise InputError(f"{name} takes photographs; give --data DIR, a folder with a folder of pictures a class")
    if seeds is None:
        seeds = sheet.seeds if scale == "paper" else 1
    plan = make_plan(sheet, scale, data, root, networks, seeds)
    base = dataclasses.replace(base, data=data, data_path=plan.data_path, recipe=sheet.recipe(scale, plan.networks[0]))
    source = load_source(base, say)
    carry_out(plan, sheet, base, source, watch)
    if isinstance(source, Data):
        if name == "fig7":
            measure_responses(plan, source, say)
    else:
        measure_scores(plan, base, len(source.test), say, watch)
    return plan.folder, findings_of(plan)


def as_json(findings: Findings) -> Json:
    """Verdicts and tables as plain values."""
    return {
        "title": findings.title,
        "verdicts": [dataclasses.asdict(verdict) for verdict in findings.verdicts],
        "tables": [architectures.as_json(table) for table in findings.tables],
    }
