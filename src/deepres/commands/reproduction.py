"""The verb `deepres reproduce`."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from deepres.commands.console import err, print_json, print_lines, say
from deepres.commands.options import AsJson, Device, ImageSize, Log, Split, given, grouped
from deepres.runtime.errors import InputError
from deepres.runtime.printing import Console

if TYPE_CHECKING:
    from deepres.findings import Findings
    from deepres.paper.sheet import Reproduction


@dataclass(frozen=True)
class RunOptions:
    """What every run of a figure or table has in common: fields of its configuration."""

    split: Split = None
    image_size: ImageSize = None
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out images that do not decode, and count them.")
    ] = False
    device: Device = "auto"
    precision: Annotated[
        str, typer.Option(help="auto (trains in bf16 where that is fast, tests in fp32), fp32 or bf16.")
    ] = "auto"


@grouped
def reproduce(
    runs: RunOptions,
    name: Annotated[
        str | None, typer.Argument(help="A figure or table: fig1, table12, ... (--list shows them), or all.")
    ] = None,
    scale: Annotated[
        Literal["smoke", "quick", "paper"], typer.Option(help="Seconds, minutes, or the full recipe.")
    ] = "quick",
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="Default: cifar10 for small images; --list says what each takes. Of all: photographs=DIR,boxes=DIR.",
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Runs of each network. Default: 1; of table6 --scale paper 5.")
    ] = None,
    networks: Annotated[
        str | None,
        typer.Option(
            help="Instead of the paper's, with commas; a name given twice is trained with two seeds. Of detectors: the "
            "backbones, also as trained weights."
        ),
    ] = None,
    root: Annotated[Path, typer.Option("--out", help="Where runs and plans are kept.")] = Path("runs"),
    listed: Annotated[
        bool,
        typer.Option("--list", help="All figures and tables: what they take, cost and have run, and their pages."),
    ] = False,
    log: Log = None,
    json: AsJson = False,
) -> None:
    """Run one of the paper's figures or tables and make its page, or all of them; goes on where it stopped.

    Example: deepres reproduce fig6 --scale quick --data cifar10 --seeds 3

    All of them in small, on drawn pictures: deepres reproduce all --scale smoke
    """
    from deepres.paper import everything
    from deepres.paper import reproduce as experiment
    from deepres.paper.sheet import Reproduction
    from deepres.report import page
    from deepres.runtime.progress import ConsoleMonitor
    from deepres.training.trackers import require_trackers

    if listed:
        _list(root, json)
        return
    if name is None:
        raise InputError("reproduce takes a figure or table, as fig1, or all; --list shows them")
    require_trackers(log or ())
    watch = partial(ConsoleMonitor, err)
    asked = Reproduction(scale, data, given(runs), root, networks, seeds, say, watch, log or ())
    if name == everything.ALL:
        _all(asked, json)
        return
    folder, findings = experiment.reproduce(name, asked)
    _print(findings, page.write(findings, folder / everything.PAGE), json)


def _all(asked: "Reproduction", json: bool) -> None:
    """Reproduce every sheet, make its page, and make a page that links them all."""
    from deepres.paper import everything
    from deepres.report import page

    outcomes = list["everything.Outcome"]()
    for outcome in everything.every(asked):
        if outcome.folder is not None and outcome.findings is not None:
            page.write(outcome.findings, outcome.folder / everything.PAGE)
        outcomes.append(outcome)
    findings = everything.index(outcomes, asked.scale, asked.root)
    _print(findings, page.write(findings, asked.root / "index.html"), json)
    everything.require_all(outcomes)


def _list(root: Path, json: bool) -> None:
    """Show every sheet, and the plans under `root`."""
    from deepres.paper import architectures, everything
    from deepres.report import console

    tables = everything.listing(root, say)
    if json:
        print_json([architectures.as_json(table) for table in tables])
    else:
        console.print_tables(Console(), tables)


def _print(findings: "Findings", file: Path, json: bool) -> None:
    """Print what was found, and where its page is."""
    from deepres.paper import reproduce as experiment
    from deepres.report import console

    if json:
        print_json(experiment.as_json(findings) | {"page": str(file)})
    else:
        console.print_findings(Console(), findings)
        print_lines(f"Page: {file.resolve()}")
