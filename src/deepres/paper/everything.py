"""All tables and figures of the paper: what each takes and costs, which were run, and all of them in one go."""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deepres.findings import Cell, Findings, Link, Table
from deepres.paper.plan import SCALES, Plan, Scale, read_plan
from deepres.paper.reproduce import EVERY, SHEETS, runs_of_plan
from deepres.paper.samples import TAKEN, drawn
from deepres.paper.sheet import Reproduction, Sheet
from deepres.runtime.errors import InputError, Say, few

ALL = "all"  # in place of the name of a sheet
PAGE = "report.html"  # in the folder of a plan
SAMPLES = "samples"  # in the folder of the plans: data of drawn shapes
NUMBER = re.compile(r"\d+")
ORDER = ("fig", "table", "masks")


@dataclass(frozen=True)
class Outcome:
    """A sheet that was reproduced in so many seconds, with its folder and its findings; or why it was `refused`."""

    sheet: Sheet
    seconds: float
    folder: Path | None = None
    findings: Findings | None = None
    refused: str = ""


def in_order() -> list[Sheet]:
    """All sheets: the figures, then the tables, by number; last what the paper does not print."""

    def place(sheet: Sheet) -> tuple[int, int]:
        word, number = NUMBER.sub("", sheet.name), "".join(NUMBER.findall(sheet.name))
        return ORDER.index(word), int(number or 0)

    return sorted(EVERY, key=place)


def listing(root: Path, say: Say) -> list[Table]:
    """What every sheet takes, costs and has run; and the plans under `root` with their pages.

    `say` is told of plans that cannot be read.
    """
    plans = list(_plans(root, say))
    by_sheet = {sheet.name: [plan for plan in plans if plan.experiment == sheet.name] for sheet in EVERY}
    rows = [
        (
            sheet.name,
            sheet.title.partition(": ")[2],
            TAKEN[sheet.kind] if sheet.kind else "nothing",
            *(sheet.cost(scale) for scale in SCALES),
            "; ".join(f"{plan.scale} {_finished(plan)}" for plan in by_sheet[sheet.name]) or _single(sheet, root),
        )
        for sheet in in_order()
    ]
    caption = (
        "Costs are those on two slow cores, in the paper's order of runs; sheets of one scale and data share runs."
    )
    tables = [
        Table("Tables and figures of the paper", caption, ("name", "shows", "takes", *SCALES, "run"), tuple(rows))
    ]
    if plans:
        kept = [(str(_page(plan.folder) or "none yet"), plan.scale, plan.data, _finished(plan)) for plan in plans]
        tables.append(Table(f"Pages in {root}", "", ("page", "scale", "data", "runs finished"), tuple(kept)))
    return tables


def every(asked: Reproduction) -> Iterator[Outcome]:
    """Reproduce all sheets, one after another. A sheet that is refused does not hold up the others.

    `asked.data` names data as `photographs=DIR,boxes=DIR,table8=DIR`: by kind, or for one sheet. At the smoke scale,
    data of drawn shapes take the place of those that are not named. Raises `InputError` for what cannot hold for all.
    """
    if asked.networks is not None:
        raise InputError("--networks is for one table or figure; give its name in place of all")
    given = _given(asked.data)
    for number, sheet in enumerate(in_order(), start=1):
        asked.say(f"{number} of {len(EVERY)}: {sheet.title}")
        begun = time.monotonic()
        try:
            folder, findings = sheet.reproduce(replace(asked, data=_data(sheet, given, asked)))
        except InputError as error:
            asked.say(f"{sheet.name} is left out: {error}")
            yield Outcome(sheet, time.monotonic() - begun, refused=str(error))
        else:
            yield Outcome(sheet, time.monotonic() - begun, folder, findings)


def index(outcomes: Sequence[Outcome], scale: Scale, root: Path) -> Findings:
    """The findings for a page in `root` that links the pages of all sheets of a scale; of verdicts, those on tests."""
    found = [(own.sheet, own.folder, own.findings, own.seconds) for own in outcomes if own.findings and own.folder]
    rows: list[tuple[Cell, ...]] = []
    for sheet, folder, findings, seconds in found:
        statuses = [verdict.status for verdict in findings.verdicts]
        counts = (statuses.count(status) or None for status in ("held", "not held", "not tested"))
        finished = sum(run.done is not None for run in findings.runs)
        data = ", ".join(dict.fromkeys(Path(run.data).name for run in findings.runs)) or None
        link = Link(sheet.title, folder.joinpath(PAGE).relative_to(root).as_posix())
        runs = f"{finished} of {len(findings.runs)}" if findings.runs else None
        rows.append((link, data, *counts, runs, round(seconds)))
    columns = ("page", "data", "held", "not held", "not tested", "runs", "seconds")
    caption = (
        "Held, not held, not tested: claims of the paper. Runs: those that are finished. Seconds are those of this "
        "command; a run that several share was trained for the first of them."
    )
    tables = [Table("Tables and figures", caption, columns, tuple(rows))]
    if refused := tuple((own.sheet.name, own.refused) for own in outcomes if own.refused):
        tables.append(Table("Not reproduced", "", ("name", "why"), refused))
    tested = [verdict for *_, findings, _ in found for verdict in findings.verdicts if verdict.status != "not tested"]
    held = sum(verdict.status == "held" for verdict in tested)
    outcome = f" {held} of the {len(tested)} claims tested held." if tested else " No claim was tested."
    return Findings(
        "All tables and figures",
        f"{len(found)} of {len(outcomes)} reproduced at the scale {scale}.{outcome}",
        verdicts=tuple(dict.fromkeys(tested)),
        tables=tuple(tables),
    )


def require_all(outcomes: Sequence[Outcome]) -> None:
    """Raise `InputError` where a sheet was refused."""
    if refused := [own for own in outcomes if own.refused]:
        names = few(own.sheet.name for own in refused)
        raise InputError(f"{len(refused)} of {len(outcomes)} were not reproduced ({names}): {refused[0].refused}")


def _given(text: str | None) -> Mapping[str, str]:
    """The data by kind or by sheet. Raises `InputError` for another name."""
    found: dict[str, str] = {}
    for part in filter(None, (text or "").split(",")):
        name, equals, data = part.partition("=")
        if not equals or not data or name not in {**TAKEN, **SHEETS}:
            raise InputError(
                f"--data of all is {part!r}; give data by their kind ({', '.join(TAKEN)}), as in "
                "photographs=DIR,boxes=DIR, or for one table or figure, as in table8=DIR"
            )
        found[name] = data
    return found


def _data(sheet: Sheet, given: Mapping[str, str], asked: Reproduction) -> str | None:
    """The data of a sheet; None for its own."""
    if sheet.kind is None:
        return None
    named = given.get(sheet.name) or given.get(sheet.kind)
    if named is None and asked.scale == "smoke":
        return str(drawn(sheet.kind, asked.root / SAMPLES))
    return named


def _plans(root: Path, say: Say) -> Iterator[Plan]:
    """The plans of known sheets in a folder."""
    for folder in sorted(file.parent for file in root.glob("*/plan.json")):
        try:
            plan = read_plan(folder)
            runs_of_plan(plan)
        except InputError as error:
            say(f"not listed: {error}")
        else:
            yield plan


def _finished(plan: Plan) -> str:
    runs = runs_of_plan(plan)
    return f"{sum(run.done is not None for run in runs)} of {len(runs)}"


def _page(folder: Path) -> Path | None:
    return folder / PAGE if (folder / PAGE).exists() else None


def _single(sheet: Sheet, root: Path) -> str:
    """Whether a sheet without runs has its page."""
    return "" if _page(root / sheet.name) is None else f"page: {root / sheet.name / PAGE}"
