"""The same tables in a terminal."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from deepres.experiments.findings import Cell, Findings, Status, Table
from deepres.report.tables import is_number, text

MARKS: dict[Status, tuple[str, str]] = {
    "held": ("✓ held", "bold green"),
    "not held": ("✗ not held", "bold red"),
    "not tested": ("– not tested", "dim"),
}


def print_tables(console: Console, tables: Iterable[Table]) -> None:
    """Each table with its title above and its caption below."""
    for table in tables:
        grid = Grid(title=Text(table.title, style="bold"), caption=Text(table.caption), title_justify="left")
        for index, column in enumerate(table.columns):
            right = all(is_number(row[index]) for row in table.rows)
            grid.add_column(Text(column), justify="right" if right else "left", overflow="fold")
        for row in table.rows:
            grid.add_row(*(Text(text(cell)) for cell in row))
        console.print(grid)


def print_findings(console: Console, findings: Findings) -> None:
    """Tables, then the verdict on each claim."""
    console.print(Text(f"{findings.title}. {findings.summary}".strip()), soft_wrap=True)
    print_tables(console, findings.tables)
    for verdict in findings.verdicts:
        mark, style = MARKS[verdict.status]
        console.print(Text.assemble((mark, style), f"  {verdict.claim} ({verdict.place})"), soft_wrap=True)
        console.print(Text(f"    {verdict.detail}", style="dim"), soft_wrap=True)


def print_facts(console: Console, facts: Mapping[str, Any]) -> None:
    """Names and values, a line each; lists and mappings in full."""
    grid = Grid(show_header=False, box=None, pad_edge=False)
    for name, value in facts.items():
        grid.add_row(Text(name, style="bold"), Text(_plain(value)))
    console.print(grid)


def print_evaluation(console: Console, report: Mapping[str, Any]) -> None:
    """Errors, then the confusion matrix with the error of each class at its side."""
    console.print(
        f"{report['network']} on {report['images']:,} test images of {report['data']}: "
        f"top-1 error {report['top1_error']:.2f} %, top-5 error {report['top5_error']:.2f} %",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    classes: list[str] = report["classes"]
    shown = len(classes) <= 20  # more columns fit no terminal
    rows: list[tuple[Cell, ...]] = [
        (f"{number} {name}", f"{error:.1f}", *(counts if shown else ()))
        for number, (name, error, counts) in enumerate(
            zip(classes, report["class_errors"], report["confusion"], strict=True)
        )
    ]
    columns = ("true class", "error %", *(str(number) for number in range(len(classes)) if shown))
    caption = "Columns: images by predicted class." if shown else "The confusion matrix is in --json."
    print_tables(console, [Table("Errors by class", caption, columns, tuple(rows))])


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value)) or "none"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
