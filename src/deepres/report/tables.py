"""Numbers as text, and the table of numbers that stands beneath each plot."""

import math
from collections.abc import Sequence

from deepres.findings import AnyPanel, Cell, Panel, PrecisionRecallPanel, ResponsePanel, Series, Table

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


def data_table(panel: AnyPanel) -> Table:
    """The numbers that a panel draws: a row an iteration, a layer, or a recall."""
    if isinstance(panel, Panel):
        return _by_iteration(panel)
    return _precisions(panel) if isinstance(panel, PrecisionRecallPanel) else _responses(panel)


def in_order(values: Sequence[float], panel: ResponsePanel) -> Sequence[float]:
    """The values in the order in which the panel shows them."""
    return sorted(values, reverse=True) if panel.sorted else values


def with_unit(name: str, unit: str) -> str:
    """A name with its unit in brackets, where it has one."""
    return f"{name} ({unit})" if unit else name


def _by_iteration(panel: Panel) -> Table:
    drawn = [(curve.label, name, one) for curve in panel.curves for name, one in curve.series.items() if one.x]
    columns = (with_unit(f"{label}, {name}", panel.unit) for label, name, _ in drawn)
    cells = [_cells(one) for _, _, one in drawn]
    iterations = sorted({iteration for column in cells for iteration in column})
    rows = tuple((at, *(column.get(at) for column in cells)) for at in iterations)
    return Table(panel.title, "", ("iteration", *columns), rows)


def _cells(series: Series) -> dict[float, str]:
    """The values as text by iteration, with their range where there are several seeds."""
    if not series.low:
        return {at: text(value) for at, value in zip(series.x, series.y, strict=True)}
    rows = zip(series.x, series.y, series.low, series.high, strict=True)
    return {at: f"{text(value)} ({text(low)} to {text(high)})" for at, value, low, high in rows}


def _precisions(panel: PrecisionRecallPanel) -> Table:
    cells = [dict(zip(own.recalls, own.precisions, strict=True)) for own in panel.classes]
    recalls = sorted({recall for column in cells for recall in column})
    columns = ("recall (%)", *(f"{own.label}, precision (%)" for own in panel.classes))
    rows = tuple((f"{at:.0f}", *(column.get(at) for column in cells)) for at in recalls)
    return Table(panel.title, "", columns, rows)


def _responses(panel: ResponsePanel) -> Table:
    columns = ["rank" if panel.sorted else "layer", *(own.label for own in panel.responses)]
    values = [in_order(own.values, panel) for own in panel.responses]
    rows = [
        (index + 1, *(f"{column[index]:.4f}" if index < len(column) else None for column in values))
        for index in range(max(map(len, values), default=0))
    ]
    return Table(panel.title, "", tuple(columns), tuple(rows))
