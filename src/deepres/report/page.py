"""The report as one self-contained HTML page: verdicts, figures, tables and settings."""

import base64
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from deepres.findings import Cell, Figure, Findings, Link, Panel, ResponsePanel, RunSummary, Status
from deepres.records import write_text
from deepres.report.colours import THEME
from deepres.report.lines import line_looks, over_the_top
from deepres.report.live import Live, duration
from deepres.report.plots import inline_panels
from deepres.report.tables import data_table, is_number, numeric_columns, text, with_unit
from deepres.runtime.errors import InputError
from deepres.runtime.files import read_bytes
from deepres.runtime.printing import visible

MOST_PICTURE = 2**26  # bytes of a picture on the page
STATUSES: tuple[Status, ...] = ("held", "not held", "not tested")


def render(findings: Findings, live: Live | None = None) -> str:
    """The whole page as HTML; the same values give the same text. With `live` it is that of runs that go on."""
    # The template and its filters.
    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.finalize = _shown
    filters: dict[str, Any] = pages.filters
    filters |= {"cell": _cell, "number": is_number, "numeric": numeric_columns, "setting": setting}
    filters |= {"duration": duration, "with_unit": with_unit}
    # The values that it shows.
    counts = {status: sum(one.status == status for one in findings.verdicts) for status in STATUSES}
    return pages.get_template("page.html.j2").render(
        findings=findings,
        live=live,
        counts=counts,
        figures=[_drawn(figure, f"f{index + 1}") for index, figure in enumerate(findings.figures)],
        pictures=[(sheet, _encoded(sheet.file)) for sheet in findings.pictures],
        unfinished=[run for run in findings.runs if run.done is None],
        runs=[(run, state(run), _settings(run)) for run in findings.runs],
        theme=THEME,
        version=version("deepres"),
    )


def write(findings: Findings, file: Path, live: Live | None = None) -> Path:
    """Write the page atomically and return `file`. Raises `InputError` where it cannot be written."""
    if file.is_dir():
        raise InputError(f"{file} is a folder; give the page a file name, such as {file / 'report.html'}")
    try:
        write_text(file, render(findings, live))
    except OSError as error:
        raise InputError(f"the page {file} cannot be written ({error.strerror}); give another place") from None
    return file


def state(run: RunSummary) -> str:
    """The progress of a run in words."""
    if run.done is not None:
        return "finished"
    total = run.recipe.get("iterations")
    return f"unfinished, at iteration {run.iteration:,}" + (f" of {total:,}" if isinstance(total, int) else "")


def setting(value: Any) -> str:
    """A recorded setting as text: lists with commas, nested fields on one line."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {setting(inner)}" for name, inner in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(setting(inner) for inner in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cell(value: Cell) -> str:
    """A cell of a table; a link leads to its page."""
    if isinstance(value, Link):
        return Markup('<a href="{}">{}</a>').format(quote(value.target), visible(value))
    return text(value)


def _shown(value: Any) -> Any:
    """A value for the template, with characters escaped that UTF-8 cannot encode: names of files may have them."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _settings(run: RunSummary) -> dict[str, Any]:
    """The settings of a run, the most important ones first."""
    return {"network": run.network, "seed": run.seed, "data": run.data} | run.settings


def _encoded(file: Path) -> str:
    """The content of a file in base 64. Raises `InputError` where it cannot be read."""
    try:
        return base64.b64encode(read_bytes(file, MOST_PICTURE)).decode()
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error}); remove it, or run deepres eval again") from None


def _drawn(figure: Figure, prefix: str) -> dict[str, Any]:
    """A figure with its drawings and the numbers beneath them."""
    drawings = map(Markup, inline_panels(figure, prefix))
    return {
        "title": figure.title,
        "caption": figure.caption,
        "looks": line_looks(figure),
        "responses": any(isinstance(panel, ResponsePanel) for panel in figure.panels),
        "cut": over_the_top(figure),
        "ranges": any(curve.seeds > 1 for panel in figure.panels if isinstance(panel, Panel) for curve in panel.curves),
        "panels": [
            {"title": panel.title, "drawing": drawing, "data": data_table(panel)}
            for panel, drawing in zip(figure.panels, drawings, strict=True)
        ],
    }
