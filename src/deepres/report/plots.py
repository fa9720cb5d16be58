"""The paper's figures with matplotlib: single panels as inline SVG for the page, or a whole figure as a file."""

import io
import math
import re
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from deepres.findings import AnyPanel, Figure, Panel, PrecisionRecallPanel
from deepres.report.colours import LIGHT
from deepres.report.lines import LOOKS, Line, line_looks, lines_of, y_limits
from deepres.report.svg import Mark, inline
from deepres.report.tables import with_unit
from deepres.runtime.errors import InputError
from deepres.runtime.files import replacing

WIDTH, HEIGHT = 400.0, 300.0  # of a panel in points, the unit of its SVG
LABEL_WIDTH = 82.0  # at the right, for the labels at the ends of the lines
LABEL_LENGTH, LEGEND_LENGTH = 12, 28  # characters of a label that fit there, and that fit into a legend
STYLE: dict[str, Any] = {
    "font.size": 11.5,
    "text.parse_math": False,
    "axes.edgecolor": LIGHT["muted"],
    "axes.labelcolor": LIGHT["ink"],
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": LIGHT["rule"],
    "grid.linewidth": 0.7,
    "xtick.color": LIGHT["muted"],
    "ytick.color": LIGHT["muted"],
    "xtick.labelcolor": LIGHT["ink"],
    "ytick.labelcolor": LIGHT["ink"],
    "text.color": LIGHT["ink"],
}


def inline_panels(figure: Figure, prefix: str) -> list[str]:
    """Each panel of a figure as an `<svg>` element, on one y axis, in the page's colours.

    `prefix` goes before every id, so that several drawings live on one page. Points carry their numbers.
    """
    limits, drawings = y_limits(figure), list[str]()
    for index, (panel, lines) in enumerate(zip(figure.panels, lines_of(figure), strict=True)):
        name = f"{prefix}-p{index + 1}"
        with _style({"svg.fonttype": "none", "svg.hashsalt": name}):
            canvas = Canvas(figsize=(WIDTH / 72, HEIGHT / 72), dpi=72, facecolor="none")
            axes = canvas.add_axes(_box(panel, 1, 0, HEIGHT), facecolor="none")
            _draw(axes, panel, lines, limits)
            marks = [mark for line in lines for mark in _marks(axes, line)]
            drawings.append(inline(_bytes(canvas, "svg").decode(), name, f"{figure.title}: {panel.title}", marks))
    return drawings


def save(figure: Figure, file: Path) -> Path:
    """Write a figure as `.svg` or `.png` and return `file`. Raises `InputError` for another ending."""
    kind = file.suffix.lower().removeprefix(".")
    if kind not in ("svg", "png"):
        raise InputError(f"a figure cannot be saved as {file.name}; end the name in .svg or .png")
    data = drawn(figure, kind)
    with replacing(file) as partial:
        partial.write_bytes(data)
    return file


def drawn(figure: Figure, kind: str) -> bytes:
    """A figure, its panels side by side in the light theme, as the bytes of an `svg` or `png` file."""
    limits, count = y_limits(figure), max(1, len(figure.panels))
    with _style({"svg.fonttype": "path", "svg.hashsalt": "deepres"}):
        canvas = Canvas(figsize=(count * WIDTH / 72, (HEIGHT + 50) / 72), dpi=72, facecolor=LIGHT["page"])
        for index, (panel, lines) in enumerate(zip(figure.panels, lines_of(figure), strict=True)):
            axes = canvas.add_axes(_box(panel, count, index, HEIGHT + 50), facecolor=LIGHT["page"])
            axes.set_title(panel.title, loc="left", fontsize=12, fontweight="bold")
            _draw(axes, panel, lines, limits)
        # One legend for all panels, of the series that have points.
        curves = [curve for panel in figure.panels if isinstance(panel, Panel) for curve in panel.curves]
        shown = {name for curve in curves for name, series in curve.series.items() if series.x}
        legend = {
            name: Line2D([], [], color=LIGHT["ink"], lw=LOOKS[look][0], ls=LOOKS[look][1])
            for name, look in line_looks(figure).items()
            if name in shown
        }
        if legend:
            canvas.legend(legend.values(), legend.keys(), loc="lower center", ncols=len(legend), frameon=False)
        return _bytes(canvas, kind)


@contextmanager
def _style(more: Mapping[str, Any]) -> Generator[None]:
    settings: dict[Any, Any] = {**STYLE, **more}
    with rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # the reader's own fonts have it
        yield


def _box(panel: AnyPanel, count: int, index: int, height: float) -> tuple[float, float, float, float]:
    """The place of the axes of a panel: left, bottom, width and height as shares of the whole drawing."""
    left, above, below = 46.0, (34.0 if height > HEIGHT else 10.0), 42.0 + (height - HEIGHT) / 2
    right = LABEL_WIDTH if isinstance(panel, Panel) else 14.0
    return (
        (index + left / WIDTH) / count,
        below / height,
        (WIDTH - left - right) / WIDTH / count,
        (height - below - above) / height,
    )


def _draw(axes: Axes, panel: AnyPanel, lines: Sequence[Line], limits: tuple[float, float]) -> None:
    """Draw the axes, lines and labels of a panel."""
    _draw_axes(axes, panel, limits, max((max(line.x) for line in lines if line.x), default=1))
    for line in lines:
        (width, dashes), colour = LOOKS[line.look], LIGHT[line.colour]
        alone = "o" if len(line.x) == 1 else ""  # a line through one point is nothing to see
        label = _short(line.label, LEGEND_LENGTH)
        axes.plot(line.x, line.y, ls=dashes, color=colour, lw=width, marker=alone, ms=5, clip_on=not alone, label=label)
        if line.band[0]:
            axes.fill_between(line.x, *line.band, color=colour, alpha=0.13, lw=0)
    if isinstance(panel, Panel):
        _label_ends(axes, [line for line in lines if line.labelled and line.x])
    elif lines:  # these lines differ in length: labels at the side would be far from their ends
        axes.legend(loc="best", fontsize=11, frameon=False, handlelength=2.6, labelspacing=0.35)


def _draw_axes(axes: Axes, panel: AnyPanel, limits: tuple[float, float], last: float) -> None:
    """Limits, ticks and names of both axes; `last` is the largest x."""
    axes.set_ylim(*limits)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.tick_params(length=3)
    if isinstance(panel, Panel):
        axes.set_ylabel(with_unit(panel.value, panel.unit))
        axes.set_xlim(0, last)
        axes.set_xlabel("iter. (1e4)" if last >= 10_000 else panel.against)
        if last >= 10_000:
            axes.xaxis.set_major_formatter(FuncFormatter(_ten_thousands))
    elif isinstance(panel, PrecisionRecallPanel):
        axes.set_ylabel("precision (%)")
        axes.set_xlim(0, 101)
        axes.set_xlabel("recall (%)")
    else:
        axes.set_ylabel("std")
        axes.set_xlim(0, last + 1)
        axes.set_xlabel("layer index" + (" (sorted by magnitude)" if panel.sorted else " (original)"))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))


def _label_ends(axes: Axes, lines: Sequence[Line]) -> None:
    """Write each label beside its line's end, moved up or down at the edge where labels would overlap."""
    # Where the lines end, as shares of the axes.
    low, high = axes.get_ylim()
    right = axes.get_xlim()[1]
    height = axes.bbox.height  # in points, at 72 to the inch
    ends = [(line.x[-1] / right, min(max((_end(line) - low) / (high - low), 0.0), 1.0)) for line in lines]
    # Labels at the right edge are moved apart.
    edge = sorted((y, index) for index, (x, y) in enumerate(ends) if x > 0.9)
    moved = spaced([y for y, _ in edge], 14.0 / height)
    places = {index: (1.035, place) for (_, index), place in zip(edge, moved, strict=True)}
    # Each label is tied to the end of its line.
    for index, (line, end) in enumerate(zip(lines, ends, strict=True)):
        colour = LIGHT[line.colour]
        axes.annotate(
            _short(line.label),
            xy=end,
            xycoords="axes fraction",
            xytext=places.get(index, (end[0] + 0.02, end[1])),  # the line of an unfinished run ends inside the axes
            textcoords="axes fraction",
            color=colour,
            fontsize=11,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.6, "shrinkA": 1, "shrinkB": 2},
        )


def spaced(places: Sequence[float], least: float) -> list[float]:
    """Rising places between 0 and 1, moved as little as a greedy pass can so that they are `least` apart."""
    groups: list[tuple[float, int]] = []  # (centre, members) of labels that touch
    for place in places:
        centre, count = place, 1
        while groups and groups[-1][0] + (groups[-1][1] + count) * least / 2 > centre:
            before, members = groups.pop()
            centre = (before * members + centre * count) / (members + count)
            count += members
            centre = min(max(centre, (count - 1) * least / 2), max(1 - (count - 1) * least / 2, 0.5))
        groups.append((centre, count))
    return [centre + (i - (count - 1) / 2) * least for centre, count in groups for i in range(count)]


def _ten_thousands(value: float, _: int) -> str:
    return f"{value / 10_000:g}"


def _end(line: Line) -> float:
    """The last finite value of a line."""
    return next((y for y in reversed(line.y) if math.isfinite(y)), 0.0)


def _short(label: str, length: int = LABEL_LENGTH) -> str:
    """A label cut to fit beside the plot, without characters that XML cannot hold; tables show it in full."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in label)
    return shown if len(shown) <= length else shown[: length - 1] + "…"


def _marks(axes: Axes, line: Line) -> Iterator[Mark]:
    """The marks of a line, at most about a hundred: points inside the axes, in the coordinates of the SVG."""
    low, high = axes.get_ylim()
    every = math.ceil(len(line.x) / 100)
    for index, (x, y) in enumerate(zip(line.x, line.y, strict=True)):
        last = index == len(line.x) - 1
        if low <= y <= high and (index % every == every - 1 or last):
            left, up = axes.transData.transform((x, y))
            yield Mark(round(float(left), 2), round(HEIGHT - float(up), 2), line.colour, line.says[index])


def _bytes(canvas: Canvas, kind: str) -> bytes:
    """The drawing as an SVG or PNG file without date and creator, so that the same records give the same bytes."""
    stream = io.BytesIO()
    dates: dict[str, Any] = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    canvas.savefig(stream, format=kind, dpi=72 if kind == "svg" else 144, metadata=dates)
    data = stream.getvalue()
    return re.sub(rb"[ \t]+\n", b"\n", data) if kind == "svg" else data
