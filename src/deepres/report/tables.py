"""Numbers as text, and the table of numbers that stands beneath each plot."""

import math
from collections.abc import Iterator, Sequence

from deepres.findings import Cell, Curve, Panel, Points, Range, ResponsePanel, Table

NOTHING = "–"


def text(value: Cell) -> str:
    """A cell as text: numbers with two decimals (three figures where they are small), a dash for nothing."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return NOTHING
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) >= 0.1 or not value else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else value


def is_number(value: Cell) -> bool:
    """Whether a cell stands at the right of its column: numbers, texts that begin with one, and nothing."""
    return not isinstance(value, str) or value[:1].isdigit()


def numeric_columns(table: Table) -> list[bool]:
    """For each column, whether all its cells are numbers or nothing."""
    return [all(is_number(row[index]) for row in table.rows) for index in range(len(table.columns))]


def data_table(panel: Panel | ResponsePanel) -> Table:
    """The numbers that a panel draws: a row an iteration, or a layer."""
    return _errors(panel) if isinstance(panel, Panel) else _responses(panel)


def in_order(values: Sequence[float], panel: ResponsePanel) -> Sequence[float]:
    """The values in the order in which the panel shows them."""
    return sorted(values, reverse=True) if panel.sorted else values


def _errors(panel: Panel) -> Table:
    columns = ["iteration"]
    traces: list[dict[float, str]] = []
    for curve in panel.curves:
        for name, points, spread in kinds_of_error(curve):
            if points[0]:
                columns.append(f"{curve.label}, {name} error (%)")
                traces.append(_by_iteration(points, spread))
    iterations = sorted({iteration for trace in traces for iteration in trace})
    rows = tuple((at, *(trace.get(at) for trace in traces)) for at in iterations)
    return Table(panel.title, "", tuple(columns), rows)


def kinds_of_error(curve: Curve) -> Iterator[tuple[str, Points, Range]]:
    """Training error, then test error: name, points, range over seeds."""
    yield "training", curve.train_error, curve.train_range
    yield "test", curve.test_error, curve.test_range


def _by_iteration(points: Points, spread: Range) -> dict[float, str]:
    if not spread[0]:
        return {at: text(value) for at, value in zip(*points, strict=True)}
    rows = zip(*points, *spread, strict=True)
    return {at: f"{text(value)} ({text(low)} to {text(high)})" for at, value, low, high in rows}


def _responses(panel: ResponsePanel) -> Table:
    columns = ["rank" if panel.sorted else "layer", *(series.label for series in panel.series)]
    values = [in_order(series.values, panel) for series in panel.series]
    rows = [
        (index + 1, *(f"{column[index]:.4f}" if index < len(column) else None for column in values))
        for index in range(max(map(len, values), default=0))
    ]
    return Table(panel.title, "", tuple(columns), tuple(rows))
