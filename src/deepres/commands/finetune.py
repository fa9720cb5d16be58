"""The verb `deepres finetune`."""

from pathlib import Path
from typing import Annotated

import typer

from deepres.commands.console import sayer
from deepres.commands.options import AsJson, NetworkName, SetField, Split, Trained
from deepres.commands.training import fields, run_to_the_end
from deepres.runtime.printing import Console

Rate = Annotated[
    float | None, typer.Option(help="The rate falls from it to 0 in a line. Default: 0.01; without BN (VGG) 0.001.")
]
Size = Annotated[
    int | None, typer.Option(help="Resize whole images to this many pixels a side instead of random crops.")
]


def finetune(
    weights: Trained,
    data: Annotated[str, typer.Option("--data", help="A name, a folder, hf:owner/name, or wds:PATTERN.")],
    run: Annotated[Path | None, typer.Option(help="The run folder; an existing run goes on.")] = None,
    freeze: Annotated[
        str | None, typer.Option(help="Stages that stay, BN statistics as well: conv1,conv2_x,conv3_x")
    ] = None,
    iterations: Annotated[int | None, typer.Option(help="Default: 2000.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Default: 64.")] = None,
    lr: Rate = None,
    seed: Annotated[int | None, typer.Option(help="Of the new head, order and augmentation. Default: 0.")] = None,
    network: NetworkName = None,
    split: Split = None,
    image_size: Size = None,
    skip_bad: Annotated[bool | None, typer.Option("--skip-bad", help="Leave out images that do not decode.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32 or bf16.")] = None,
    set_field: SetField = None,
    json: AsJson = False,
) -> None:
    """Train trained weights further on your own images: a new head where the classes differ, a lower rate.

    A run like any other: the same command, or deepres train --run RUN, goes on with one that was interrupted.

    Example: deepres finetune resnet50.pth --data PHOTOGRAPHS --freeze conv1,conv2_x --run runs/mine
    """
    from deepres.records import Run
    from deepres.weights import start
    from deepres.workflows import finetune

    say = sayer(Console(stderr=True))
    names = ("data", "freeze", "iterations", "batch_size", "lr", "seed", "split", "image_size", "skip_bad")
    given = locals()
    changes = {name: given[name] for name in (*names, "device", "precision") if given[name] is not None}
    # A run goes on with its copy where the weights that it began with are gone.
    gone = run is not None and not weights.exists() and Run(run).exists and Run(run).config.get("start") == str(weights)
    begun = start.of_run(Run(run), str(weights), say) if gone and run is not None else start.take(weights, say, network)
    config = finetune.finetune_config(begun, str(weights), run, changes | fields(set_field))
    run_to_the_end(config, Run(run or finetune.default_run(config)), json, begun)
