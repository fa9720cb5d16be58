"""Keep reproduced sheets with the docs: python tools/collect_sheets.py NAME PLAN...

Each PLAN is a folder of `deepres reproduce`, whose runs are finished. Writes docs/results/NAME.json: of each sheet the
table without the columns of papers, its claims, and its runs. `python tools/check_docs.py --write` then renews the
tables that show it.
"""

import sys
from pathlib import Path

from deepres.findings import Findings, RunSummary, Table
from deepres.paper.plan import read_plan
from deepres.paper.reproduce import findings_of_plan
from deepres.records import Json, write_json

RESULTS = Path(__file__).parents[1] / "docs" / "results"
PAPERS = ("paper: ", "MNC: ")
OF_MACHINE = ("cpu", "threads", "commit", "started")


def ours(table: Table) -> Json:
    """The columns and rows of what was measured: without columns of papers, and rows that are empty then."""
    kept = [place for place, column in enumerate(table.columns) if not column.startswith(PAPERS)]
    rows = [[row[place] for place in kept] for row in table.rows]
    measured = [row for row in rows if any(cell is not None for cell in row[1:])]
    return {"columns": [table.columns[place] for place in kept], "rows": measured}


def machine(run: RunSummary) -> Json:
    """The network and seed of a run, how long it took, and where."""
    if run.done is None:
        raise SystemExit(f"{run.name} is not finished")
    environment = run.environment[0]  # later ones are of sheets that found the run finished
    told = {key: environment[key] for key in OF_MACHINE} | {"torch": environment["versions"]["torch"]}
    length = {key: run.recipe[key] for key in ("name", "iterations", "batch_size")}
    precision = run.settings["precision"]
    return {"name": run.name, "seconds": run.done["seconds"], "precision": precision, "recipe": length} | told


def sheet(folder: Path) -> Json:
    """What the docs show of a plan."""
    plan = read_plan(folder)
    findings: Findings = findings_of_plan(plan)
    claims = [{"claim": own.claim, "status": own.status, "detail": own.detail} for own in findings.verdicts]
    about = {"title": findings.title, "data": Path(plan.data).name, "scale": plan.scale}
    runs = [machine(run) for run in findings.runs]
    return about | {"table": ours(findings.tables[0]), "claims": claims, "runs": runs}


def main(name: str, plans: list[str]) -> None:
    write_json(RESULTS / f"{name}.json", [sheet(Path(plan)) for plan in plans])


main(sys.argv[1], sys.argv[2:])
