"""The command line: one function for each verb, which parses, calls the library and prints."""

import errno
import os
import sys
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.text import Text

from deepres.commands.arguments import refuse_empty
from deepres.commands.bench import bench
from deepres.commands.console import err, print_json, print_lines, say
from deepres.commands.convert import convert
from deepres.commands.data import app as data_app
from deepres.commands.demo import demo
from deepres.commands.detect import detect
from deepres.commands.evaluation import evaluate
from deepres.commands.export import export
from deepres.commands.finetune import finetune
from deepres.commands.options import AsJson, Device, ImageSize, Log, Split, given, grouped
from deepres.commands.prediction import predict
from deepres.commands.train import train
from deepres.runtime import ending
from deepres.runtime.cache_folder import REMEDY, in_cache
from deepres.runtime.errors import InputError
from deepres.runtime.printing import CommandGroup, Console, brief, standard_streams
from deepres.runtime.versions import version

app = typer.Typer(
    name="deepres",
    cls=CommandGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
NO_MEMORY = ("out of memory", "DefaultCPUAllocator")  # in the errors of PyTorch on a GPU and on a processor


def _print_version(wanted: bool) -> None:
    if wanted:
        print_lines(f"deepres {version('deepres')}, torch {version('torch')}")
        raise typer.Exit


@app.callback()
def general(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
):
    """Deep Residual Learning for Image Recognition, whole: train, test and reproduce."""


@app.command()
def info(
    network: Annotated[
        str | None,
        typer.Argument(help="A network, or trained weights: a run, a file or hf:owner/name; without it: all networks."),
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="All networks side by side, rivals as well.")] = False,
    json: AsJson = False,
):
    """Stages, parameters, multiply-adds and activations of a network, or the paper's tables, or all networks.

    Of trained weights also what they tell of themselves: classes, mean, what they were trained on.

    Example: deepres info resnet50
    """
    from deepres.paper import architectures
    from deepres.report import console

    tables = architectures.of(network, say) if network else ()
    if compare:
        tables += architectures.comparison()
    elif not network:
        tables = architectures.overview()
    if json:
        print_json([architectures.as_json(table) for table in tables])
    else:
        console.print_tables(Console(), tables)


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


app.command()(train)


@app.command()
@grouped
def reproduce(
    name: Annotated[
        str,
        typer.Argument(
            help="fig1, fig4, fig6, fig7, table1, table2, table3, table4, table5, table6, table7, table8, table9, "
            "table10, table11, table13, table14."
        ),
    ],
    runs: RunOptions,
    scale: Annotated[
        Literal["smoke", "quick", "paper"], typer.Option(help="Seconds, minutes, or the full recipe.")
    ] = "quick",
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="Default: cifar10; fig4 and table2 to table5 take photographs, table7 to table14 pictures with boxes.",
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
    log: Log = None,
    json: AsJson = False,
):
    """Run one of the paper's figures or tables and make its page; goes on where it stopped.

    Example: deepres reproduce fig6 --scale quick --data cifar10 --seeds 3
    """
    from deepres.paper import reproduce as experiment
    from deepres.paper.sheet import Reproduction
    from deepres.report import console, page
    from deepres.runtime.progress import ConsoleMonitor
    from deepres.training.trackers import require_trackers

    require_trackers(log or ())
    watch = partial(ConsoleMonitor, err)
    asked = Reproduction(scale, data, given(runs), root, networks, seeds, say, watch, log or ())
    folder, findings = experiment.reproduce(name, asked)
    file = page.write(findings, folder / "report.html")
    if json:
        print_json(experiment.as_json(findings) | {"page": str(file)})
    else:
        console.print_findings(Console(), findings)
        print_lines(f"Page: {file.resolve()}")


@app.command()
def report(
    places: Annotated[
        list[Path], typer.Argument(help="One plan folder of `reproduce`, or run folders, or folders of them.")
    ],
    file: Annotated[
        Path | None, typer.Option("--out", help="The page; default: report.html in the first folder.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Keep the page up to date until all runs are finished.")
    ] = False,
):
    """Make one self-contained HTML page of a plan or of runs.

    With --watch it shows how far each run is, and reloads itself; runs that have not begun are waited for.

    Example: deepres report runs/fig6-quick-cifar10
    """
    from deepres.report import page, runs
    from deepres.report import watch as watching

    if watch:
        place = file or watching.page_of(places)
        print_lines(f"Page: {place.resolve()}")
        watching.watch(places, place, say)
        return
    written = page.write(runs.findings_of(places), file or places[0] / "report.html")
    print_lines(f"Page: {written.resolve()}")


app.command(name="eval")(evaluate)
app.command()(bench)
app.add_typer(data_app, name="data")
for verb in (convert, finetune, predict, detect, export, demo):
    app.command()(verb)


def _rank() -> str:
    """The beginning of a message of any rank but the first; the rank is in torchrun's environment variables."""
    rank = os.environ.get("RANK", "0") if os.environ.get("WORLD_SIZE", "1") != "1" else "0"
    return "" if rank == "0" else f"rank {rank}: "


def _wait_briefly() -> None:
    """Let threads that wait for each other sleep sooner: beside other work, a step then takes 3/4 of the time.

    OpenMP reads the variable when torch loads it; a value that the user has set stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def main() -> None:
    """Run the command line; bad input is one sentence and exit code 2, never a traceback."""
    _wait_briefly()
    # Several ranks wait for each other in calls that only the signal itself ends.
    alone = os.environ.get("WORLD_SIZE", "1") == "1"
    try:
        with standard_streams(), ending.in_order() if alone else nullcontext():
            refuse_empty(sys.argv[1:])
            app()
    except BrokenPipeError:  # the reader of a pipe has closed it
        sys.exit(1)
    except Exception as error:
        if (told := _sentence(error)) is not None:
            with suppress(OSError):  # standard error cannot be written: nobody can be told
                err.print(Text.assemble(_rank(), ("error: ", "bold red"), brief(told)), soft_wrap=True)
            sys.exit(2)
        code = getattr(error, "exit_code", None)  # that of StoppedError, which cannot be imported without loading torch
        if code is None:
            raise
        err.print(_rank() + str(error), highlight=False, markup=False, soft_wrap=True)
        sys.exit(code)


def _sentence(error: Exception) -> str | None:
    """The sentence for an error whose cause lies outside of the program; None for any other error."""
    if isinstance(error, InputError):
        return str(error)
    no_memory = isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM
    if no_memory or any(sign in str(error) for sign in NO_MEMORY):
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return f"memory ran out ({reason}); give a smaller --batch-size, in training also --set accumulate=2"
    if isinstance(error, UnicodeEncodeError):  # a recorded file name, where the environment knows ASCII alone
        return f"{error.object!a} is no name of a file in this environment ({error.encoding}); set LC_ALL=C.UTF-8"
    if isinstance(error, RuntimeError) and "home directory" in str(error):  # raised by pathlib for ~ and ~name
        return "the home folder is not known, which a path with ~ or a library needs; set HOME, or give paths in full"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full: {error}; make room and run the same command again"
    if isinstance(error, OSError):  # a file where a folder should be, a place without permission
        mend = REMEDY if in_cache(error.filename) else "check the place, its permissions and its free space"
        return f"the system refuses: {error}; {mend}"
    return None
