"""The lines that the panels of a figure show: their points, colours and looks, and the text of each point."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deepres.findings import (
    AnyPanel,
    Curve,
    Figure,
    Panel,
    PrecisionRecall,
    PrecisionRecallPanel,
    ResponsePanel,
    Responses,
)
from deepres.report.colours import line_colours
from deepres.report.tables import in_order

# The looks of lines: width and dashes. Test figures are bold, training figures thin; several take their looks in turn.
LOOKS: dict[str, tuple[float, Any]] = {
    "bold": (2.2, "-"),
    "bold-dashed": (2.2, (0, (2.4, 1.2))),
    "dashed": (1.0, (0, (4, 2.5))),
    "dotted": (1.0, (0, (1.2, 1.8))),
    "chained": (1.0, (0, (6, 2, 1.2, 2))),
}
BOLD = ("bold", "bold-dashed")  # of test figures
SETTLED = 0.1  # the y axis fits the values after this share of the iterations


@dataclass(frozen=True)
class Line:
    """One line on the axes, in one of `LOOKS`; `says` is the text of each point."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str
    look: str
    says: tuple[str, ...]
    band: tuple[Sequence[float], Sequence[float]] = ((), ())
    labelled: bool = True


def lines_of(figure: Figure) -> list[list[Line]]:
    """The lines of each panel of a figure, in the order in which they are drawn."""
    colours, looks = line_colours(figure), line_looks(figure)
    return [_panel_lines(panel, colours, looks) for panel in figure.panels]


def line_looks(figure: Figure) -> dict[str, str]:
    """The look of each series of a figure, by the name of the series; test series come first."""
    curves = [curve for panel in figure.panels if isinstance(panel, Panel) for curve in panel.curves]
    training = {name: series.training for curve in curves for name, series in curve.series.items()}
    looks = {own: itertools.cycle([look for look in LOOKS if (look not in BOLD) == own]) for own in (False, True)}
    names = sorted(training, key=training.__getitem__)
    return {name: next(looks[training[name]]) for name in names}


def y_limits(figure: Figure) -> tuple[float, float]:
    """One y axis for all panels: from zero where that wastes little space, without the first iterations.

    That of precision goes from 0 to 100 percent.
    """
    if any(isinstance(panel, PrecisionRecallPanel) for panel in figure.panels):
        return 0.0, 101.0
    # The values that the axis must fit.
    shown: list[float] = []
    for panel, lines in zip(figure.panels, lines_of(figure), strict=True):
        for line in lines:
            start = SETTLED * max(line.x, default=0) if isinstance(panel, Panel) else 0
            shown += [y for x, y in zip(line.x, line.y, strict=True) if x >= start and math.isfinite(y)]
    if not shown:
        return 0.0, 1.0
    # Its ends: round at the bottom, with some room at the top.
    low, high = min(shown), max(shown) or 1.0
    step = 10.0 ** math.floor(math.log10(high))
    bottom = 0.0 if low < high / 2.5 else math.floor(low / step) * step
    top = bottom + (high - bottom) * 1.05 or 1.0
    percent = any(isinstance(panel, Panel) and panel.unit == "%" for panel in figure.panels)
    return bottom if bottom < top else 0.0, min(top, 101.0) if percent else top


def over_the_top(figure: Figure) -> bool:
    """Whether some points lie above the y axis, which fits the values after the first iterations."""
    top = y_limits(figure)[1]
    return any(value > top for lines in lines_of(figure) for line in lines for value in line.y)


def _panel_lines(panel: AnyPanel, colours: Mapping[str, str], looks: Mapping[str, str]) -> list[Line]:
    if isinstance(panel, Panel):
        lines = [
            line for curve in panel.curves for line in _curve_lines(curve, panel.unit, colours[curve.label], looks)
        ]
        return sorted(lines, key=lambda line: line.look in BOLD)
    if isinstance(panel, PrecisionRecallPanel):
        return [_precision_line(own, colours[own.label]) for own in panel.classes]
    return [_response_line(own, panel, colours[own.label]) for own in panel.responses]


def _curve_lines(curve: Curve, unit: str, colour: str, looks: Mapping[str, str]) -> Iterator[Line]:
    """A line per series. The label stands at the test series, or at the first series where there is none."""
    drawn = [name for name, series in curve.series.items() if series.x]
    labelled = [name for name in drawn if not curve.series[name].training] or drawn[:1]
    unit = f" {unit}" if unit else ""
    for name, series in curve.series.items():
        over = f", mean of {curve.seeds} seeds" if series.low else ""
        pairs = zip(series.x, series.y, strict=True)
        says = tuple(f"{curve.label}, {name}: {value:.2f}{unit} at iteration {at:,}{over}" for at, value in pairs)
        band = (series.low, series.high)
        yield Line(curve.label, series.x, series.y, colour, looks[name], says, band, name in labelled)


def _precision_line(own: PrecisionRecall, colour: str) -> Line:
    rows = zip(own.recalls, own.precisions, own.scores, strict=True)
    says = tuple(
        f"{own.label}: precision {precision:.1f} % at recall {recall:.0f} %, with scores of {score:.2f} and more"
        for recall, precision, score in rows
    )
    return Line(own.label, own.recalls, own.precisions, colour, "bold", says)


def _response_line(own: Responses, panel: ResponsePanel, colour: str) -> Line:
    values, place = in_order(own.values, panel), "rank" if panel.sorted else "layer"
    says = tuple(f"{own.label}: {value:.4f}, {place} {index}" for index, value in enumerate(values, 1))
    look = "dashed" if own.kind == "plain" else "bold"
    return Line(own.label, range(1, len(values) + 1), values, colour, look, says)
