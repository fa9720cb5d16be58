"""The verb `deepres train`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from deepres.commands.detection import PANEL
from deepres.commands.options import AsJson, Data, Log, RunFolder, SetField, given, grouped
from deepres.commands.training import ImageOptions, MachineOptions, RecipeOptions, fields, run_to_the_end


@dataclass(frozen=True)
class Sources:
    """What a configuration starts from; a later one overrides an earlier one."""

    like: Annotated[Path | None, typer.Option(help="Start from the configuration of another run.")] = None
    config: Annotated[Path | None, typer.Option(help="Fields from a JSON or TOML file.")] = None
    recipe: Annotated[
        str | None,
        typer.Option(
            help="cifar, cifar-deep, imagenet (the paper's; default: by network), fast or finetune; of a detector "
            "auto (its default: what suits the data) or faster-rcnn (the paper's), of a segmenter auto or mnc, of a "
            "localizer auto or localizer."
        ),
    ] = None


@dataclass(frozen=True)
class Subject:
    """What is trained, and on what."""

    network: Annotated[str | None, typer.Argument(help="May be left out with --run of an existing run, or --like.")] = (
        None
    )
    data: Data = None


@dataclass(frozen=True)
class BatchNormOptions:
    """The images that batch normalization takes its statistics over, and the input channels."""

    bn_group: Annotated[int | None, typer.Option(help="Images a batch statistic is over (the paper's GPUs: 64).")] = (
        None
    )
    bn_average: Annotated[
        int | None, typer.Option(help="Training images that the statistics for testing are averaged over at the end.")
    ] = None
    in_channels: Annotated[int | None, typer.Option(help="3 repeats grayscale images over three channels.")] = None


@dataclass(frozen=True)
class SpeedOptions:
    """How the same training takes less time or memory."""

    kernels: Annotated[str | None, typer.Option(help="The project's own kernels: auto, on, off.")] = None
    compile: Annotated[
        str | None, typer.Option(help="Blocks compiled by PyTorch: auto (where the run is long enough), on, off.")
    ] = None
    memory_budget: Annotated[
        float | None, typer.Option(help="GiB of activations, gradients and velocity; above it, blocks run twice.")
    ] = None


@dataclass(frozen=True)
class DetectorOptions:
    """What a detector is made of and trained on."""

    backbone: Annotated[
        str | None,
        typer.Option(rich_help_panel=PANEL, help="A network's name, or trained weights."),
    ] = None
    freeze: Annotated[
        str | None, typer.Option(help="Stages that stay, with their BN: conv1,conv2_x; bn: BN of all stages; none.")
    ] = None
    train_set: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=PANEL, help="Image sets to train on: train,val; of PASCAL VOC also 07+12, 07++12."
        ),
    ] = None
    test_set: Annotated[str | None, typer.Option(rich_help_panel=PANEL, help="Image sets to test on, with commas.")] = (
        None
    )


@grouped
def train(
    subject: Subject,
    sources: Sources,
    recipe: RecipeOptions,
    batch_norm: BatchNormOptions,
    images: ImageOptions,
    machine: MachineOptions,
    speed: SpeedOptions,
    detector: DetectorOptions,
    alternating: Annotated[
        bool,
        typer.Option(
            "--alternating", rich_help_panel=PANEL, help="Train in the four steps of Faster R-CNN, a run each in RUN."
        ),
    ] = False,
    run: RunFolder = None,
    set_field: SetField = None,
    log: Log = None,
    json: AsJson = False,
) -> None:
    """Train a network; the same command goes on with a run that was interrupted.

    Example: deepres train resnet20 --data cifar10 --iterations 8000 --run runs/resnet20

    A detector, on pictures with boxes: deepres train detector --data VOC2007 --backbone resnet50.pth

    One that gives masks: deepres train segmenter --data coco128 --backbone resnet50.pth

    A localizer, on pictures with one class each: deepres train localizer --data ILSVRC --backbone resnet101.pth
    """
    from deepres.records import Run
    from deepres.workflows import alternating as alternate
    from deepres.workflows import configure

    # Options override what the files say, and `--set` overrides options.
    changes = given(subject, recipe, batch_norm, images, machine, speed, detector) | fields(set_field)
    first = run and alternate.begun(run)
    begun = run if run and Run(run).exists else first
    places = [path for path in (sources.like, sources.config, begun) if path]
    chosen = configure.configure(places, sources.recipe, changes)
    place = run or Path("runs") / configure.default_name(chosen)
    if not (alternating or first):
        run_to_the_end(chosen, Run(place), json, log=log or ())
        return
    alternate.require_apart(place)
    for number, step in enumerate(alternate.steps(chosen, place)):
        run_to_the_end(step.config, Run(step.folder), json, log=log or (), title=step.title, again=number > 0)
