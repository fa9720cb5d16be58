"""All sheets of the paper by name, and how one is reproduced."""

import dataclasses
from difflib import get_close_matches
from pathlib import Path

from deepres.findings import Findings
from deepres.paper import architectures, cifar, detection, imagenet, localization, masks, table1
from deepres.paper.plan import Plan
from deepres.paper.sheet import Experiment, Reproduction, Sheet
from deepres.records import Json, Run
from deepres.runtime.errors import InputError

EVERY: tuple[Sheet, ...] = (
    *cifar.SHEETS,
    *imagenet.SHEETS,
    *detection.SHEETS,
    *localization.SHEETS,
    table1.TABLE1,
    masks.MASKS,
)
SHEETS = {sheet.name: sheet for sheet in EVERY}


def reproduce(name: str, asked: Reproduction) -> tuple[Path, Findings]:
    """Reproduce the sheet `name`; return the folder for its page, and its findings.

    Raises `InputError` for an unknown name, and where data must be named.
    """
    if name not in SHEETS:
        near = get_close_matches(name, SHEETS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(SHEETS)}"
        raise InputError(f"unknown experiment {name!r}; {hint}")
    return SHEETS[name].reproduce(asked)


def findings_of_plan(plan: Plan) -> Findings:
    """The findings of the finished runs of a plan. Raises `InputError` for a plan of an unknown sheet."""
    return _sheet_of(plan).findings(plan)


def runs_of_plan(plan: Plan) -> list[Run]:
    """All runs of a plan, finished or not. Raises `InputError` for a plan of an unknown sheet."""
    sheet = _sheet_of(plan)
    return [run for its_runs in sheet.runs(plan).values() for run in its_runs] if isinstance(sheet, Experiment) else []


def _sheet_of(plan: Plan) -> Sheet:
    if plan.experiment not in SHEETS:
        raise InputError(f"{plan.folder} is a plan of {plan.experiment!r}, which is not known; make it again")
    return SHEETS[plan.experiment]


def as_json(findings: Findings) -> Json:
    """Title, verdicts and tables as plain values."""
    return {
        "title": findings.title,
        "verdicts": [dataclasses.asdict(verdict) for verdict in findings.verdicts],
        "tables": [architectures.as_json(table) for table in findings.tables],
    }
