"""Tables, findings and test reports in a terminal."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.table import Table as Grid
from rich.text import Text

from deepres.findings import Cell, Findings, Status, Table
from deepres.report.tables import numeric_columns, text
from deepres.runtime.printing import Console, visible

MARKS: dict[Status, tuple[str, str]] = {
    "held": ("✓ held", "bold green"),
    "not held": ("✗ not held", "bold red"),
    "not tested": ("– not tested", "dim"),
}

TOPS = ("top1", "top5")
IMAGES = {"test": "test images", "train": "training images", "all": "images"}  # by part
MOST_CLASSES = 20  # rows and columns of classes: more do not fit into a terminal


def print_tables(console: Console, tables: Iterable[Table]) -> None:
    """Each table with its title above and its caption below."""
    for table in tables:
        grid = Grid(
            title=Text(visible(table.title), style="bold"), caption=Text(visible(table.caption)), title_justify="left"
        )
        for column, right in zip(table.columns, numeric_columns(table), strict=True):
            grid.add_column(Text(visible(column)), justify="right" if right else "left", overflow="fold")
        for row in table.rows:
            grid.add_row(*(Text(visible(text(cell))) for cell in row))
        console.print(grid)


def print_findings(console: Console, findings: Findings) -> None:
    """Print the tables, then the verdict on each claim."""
    console.print(Text(f"{findings.title}. {findings.summary}".strip()), soft_wrap=True)
    print_tables(console, findings.tables)
    for verdict in findings.verdicts:
        mark, style = MARKS[verdict.status]
        console.print(Text.assemble((mark, style), f"  {verdict.claim} ({verdict.place})"), soft_wrap=True)
        console.print(Text(f"    {verdict.detail}", style="dim"), soft_wrap=True)


def print_facts(console: Console, facts: Mapping[str, Any]) -> None:
    """Print names and values, one per line; lists and mappings in full."""
    grid = Grid(show_header=False, box=None, pad_edge=False)
    for name, value in facts.items():
        grid.add_row(Text(name, style="bold"), Text(visible(_plain(value))))
    console.print(grid)


def print_evaluation(console: Console, report: Mapping[str, Any]) -> None:
    """Print a test report: errors with their intervals, each member of an ensemble, then the worst classes.

    Up to 20 classes also get the confusion matrix, more the pairs that are confused most often.
    """
    # The errors of the network, or of the ensemble.
    protocol, count = f", {report['protocol']}" if "protocol" in report else "", len(report["classes"])
    console.print(
        f"{report['network']} on {report['images']:,} {IMAGES[report['part']]} of {report['data']}{protocol}: "
        f"top-1 error {_error(report, 'top1', count)} %"
        + (f", top-5 error {_error(report, 'top5', count)} %" if count > 5 else ""),
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    # Each member, then the classes.
    if len(report["members"]) > 1:
        print_tables(console, [_members(report)])
    shown = count <= MOST_CLASSES
    print_tables(console, [_classes(report, shown)])
    if not shown:
        left = f"{count - MOST_CLASSES:,} more err as much or less; --json has them all"
        console.print(left + (", and the confusion matrix." if report["confusion"] else "."), highlight=False)
    # Pairs of classes, where there are too many classes for a confusion matrix.
    confused = [(pair["true"], pair["predicted"], pair["images"]) for pair in report["confused"]]
    if confused and not shown:
        print_tables(
            console, [Table("Most often confused", "", ("true class", "predicted", "images"), tuple(confused))]
        )


def _classes(report: Mapping[str, Any], shown: bool) -> Table:
    """The classes with the largest errors, the worst first; where the matrix is `shown`, with its rows."""
    errors: list[float | None] = report["class_errors"]
    worst = sorted(range(len(errors)), key=lambda label: 1.0 if (error := errors[label]) is None else -error)
    matrix = report["confusion"] if shown else [()] * len(errors)
    rows: list[tuple[Cell, ...]] = [
        (f"{label} {report['classes'][label]}", _percent(errors[label]), *matrix[label])
        for label in worst[:MOST_CLASSES]
    ]
    columns = ("true class", "error %", *(str(label) for label in range(len(errors)) if shown))
    caption = "Columns: images by predicted class." if shown else ""
    return Table("Errors by class, the worst first", caption, columns, tuple(rows))


def _percent(error: float | None) -> str:
    return "-" if error is None else f"{error:.1f}"


def _members(report: Mapping[str, Any]) -> Table:
    """The errors of each member and of all together, and their difference from the first member's."""
    rows: list[tuple[Cell, ...]] = []
    for own in (*report["members"], {**report, "weights": "together", "network": "", "protocol": ""}):
        gap, low, high = own["top1_difference"]
        against = f"{gap:+.2f} ({low:+.2f} to {high:+.2f})" if rows else ""
        weight = f"{own['weight']:.3f}" if "weight" in own else ""
        errors = (_error(own, top, len(report["classes"])) for top in TOPS)
        rows.append((own["weights"], own["network"], own["protocol"], weight, *errors, against))
    columns = ("member", "network", "protocol", "weight", "top-1 error %", "top-5 error %", "top-1 against the first")
    return Table("Members", "In brackets: bootstrap 95 % interval.", columns, tuple(rows))


def _error(figures: Mapping[str, Any], top: str, classes: int) -> str:
    if top == "top5" and classes <= 5:
        return "-"  # the true class is always among them
    low, high = figures[f"{top}_interval"]
    return f"{figures[f'{top}_error']:.2f} ({low:.2f} to {high:.2f})"


def _plain(value: Any) -> str:
    """A value as text: lists and mappings with commas, floats with four decimals."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value)) or "none"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
