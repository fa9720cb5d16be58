"""What the verbs that train have in common."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from deepres.commands.console import print_json, print_lines, sayer
from deepres.commands.options import Split
from deepres.runtime.errors import InputError, silent
from deepres.runtime.printing import Console

if TYPE_CHECKING:
    from deepres.records import Run
    from deepres.training.config import Config
    from deepres.weights.start import Start


@dataclass(frozen=True)
class RecipeOptions:
    """The fields of a recipe that have an option of their own; all others are given by `--set`."""

    iterations: Annotated[int | None, typer.Option(help="Length; all marks of the recipe scale with it.")] = None
    batch_size: Annotated[int | None, typer.Option(help="Images a step, of all ranks. Default: by recipe.")] = None
    lr: Annotated[float | None, typer.Option(help="Learning rate before the drops. Default: by recipe.")] = None


@dataclass(frozen=True)
class ImageOptions:
    """Which images a run is trained and tested on."""

    seed: Annotated[int | None, typer.Option(help="Of weights, order and augmentation. Default: 0.")] = None
    split: Split = None
    image_size: Annotated[
        int | None,
        typer.Option(
            help="Resize every image to this many pixels a side, without crops; the default recipe is then cifar."
        ),
    ] = None
    skip_bad: Annotated[bool | None, typer.Option("--skip-bad", help="Leave out images that do not decode.")] = None


@dataclass(frozen=True)
class MachineOptions:
    """Where and in which precision a run is trained."""

    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")] = None
    precision: Annotated[
        str | None, typer.Option(help="auto (bf16 where the hardware multiplies it), fp32 or bf16; tests are in fp32.")
    ] = None


def fields(settings: Sequence[str] | None) -> dict[str, str]:
    """The fields of `--set field=value`. Raises `InputError` for one without a value."""
    pairs = [text.partition("=") for text in settings or []]
    if wrong := next((name for name, equals, _ in pairs if not equals), None):
        raise InputError(f"--set takes field=value, not {wrong!r}")
    return {name.strip().replace("-", "_"): value.strip() for name, _, value in pairs}


def run_to_the_end(
    config: "Config",
    run: "Run",
    json: bool,
    start: "Start | None" = None,
    log: Sequence[str] = (),
    title: str = "",
    again: bool = False,
) -> None:
    """Train `config` into `run`, show its progress, and print the final figures; torchrun's ranks share the work.

    The trackers of `log` follow the run, on the first rank alone. `title` is what the run is among several, `again`
    that its data have been told of.
    """
    from deepres.runtime.progress import ConsoleMonitor
    from deepres.runtime.ranks import joined
    from deepres.training.trackers import require_trackers
    from deepres.training.tracking import Tracked
    from deepres.workflows import kinds, train

    require_trackers(log)
    recipe, kind, main = config.recipe, kinds.kind_of(config), config.reported.main
    # Say what is trained, load the images, and train.
    with joined(config.device, recipe.batch_size) as ranks:
        console = Console(stderr=True, quiet=not ranks.first)
        say = sayer(console)
        say(
            f"{title and f'{title}: '}{config.network}: recipe {recipe.name}, {recipe.iterations:,} iterations of "
            f"{recipe.batch_size} {kind.images(config)}, rate {recipe.lr:g}"
        )
        source = kind.load_source(config, silent if again else say, ranks)
        with (
            ConsoleMonitor(console, config.network, recipe.iterations, recipe.batch_size, main) as shown,
            Tracked(shown, run, log if ranks.first else ()) as monitor,
        ):
            done = train.train_run(config, run, source, monitor, ranks, start)
    # The final figures, by the first rank alone.
    if not ranks.first:
        return
    if json:
        print_json(done | {"run": str(run.path)})
    else:
        figures = ", ".join(figure.text(done[figure.key], 2) for figure in main)
        print_lines(
            f"{config.network} after {done['iteration']:,} iterations: {figures}, {done['seconds']:,.0f} s; "
            f"run: {run.path}"
        )
