"""The verb `deepres finetune`."""

from typing import Annotated

import typer

from deepres.commands.console import say
from deepres.commands.options import AsJson, Log, NetworkName, RunFolder, SetField, Trained, given, grouped
from deepres.commands.training import ImageOptions, MachineOptions, RecipeOptions, fields, run_to_the_end


@grouped
def finetune(
    weights: Trained,
    data: Annotated[str, typer.Option("--data", help="A name, a folder, hf:owner/name, or wds:PATTERN.")],
    recipe: RecipeOptions,
    images: ImageOptions,
    machine: MachineOptions,
    run: RunFolder = None,
    freeze: Annotated[
        str | None, typer.Option(help="Stages that stay, with their BN: conv1,conv2_x,conv3_x; bn: BN of all stages.")
    ] = None,
    network: NetworkName = None,
    set_field: SetField = None,
    log: Log = None,
    json: AsJson = False,
) -> None:
    """Train trained weights further on your own images: a new head where the classes differ, a lower rate.

    By default 2,000 iterations of 64 images, at a rate that falls in a line from 0.01 (without BN 0.001) to 0; of a
    detector as deepres train detector chooses them.

    A run like any other: the same command, or deepres train --run RUN, goes on with one that was interrupted.

    Example: deepres finetune resnet50.pth --data PHOTOGRAPHS --freeze conv1,conv2_x --run runs/mine
    """
    from deepres.records import Run
    from deepres.weights import start
    from deepres.workflows import finetune

    changes = {"data": data, **({"freeze": freeze} if freeze else {}), **given(recipe, images, machine)}
    # A run goes on with its own copy of the start weights where the weights themselves are gone.
    gone = run is not None and not weights.exists() and Run(run).exists and Run(run).config.get("start") == str(weights)
    begun = start.of_run(Run(run), str(weights), say) if gone and run is not None else start.take(weights, say, network)
    config = finetune.finetune_config(begun, str(weights), run, changes | fields(set_field))
    run_to_the_end(config, Run(run or finetune.default_run(config)), json, begun, log or ())
