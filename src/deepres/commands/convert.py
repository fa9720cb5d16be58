"""The verb `deepres convert`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from deepres.commands.console import print_json, print_lines, say
from deepres.commands.options import AsJson, NetworkName


def convert(
    source: Annotated[
        Path, typer.Argument(help="A run, a weights file (.safetensors .pth .caffemodel) or hf:owner/name.")
    ],
    to: Annotated[Path, typer.Option(help="The file to write: .safetensors (ours) or .pth (torchvision's names).")],
    network: NetworkName = None,
    padding: Annotated[
        Literal["both", "behind"] | None,
        typer.Option(help="Where shortcuts of option A have the zeros: half before, or all behind as here."),
    ] = None,
    take: Annotated[str | None, typer.Option(help="Of several state dicts in a checkpoint: model_ema.")] = None,
    form: Annotated[
        Literal["safetensors", "torchvision"] | None, typer.Option("--format", help="Default: by the name of --to.")
    ] = None,
    mean: Annotated[
        str | None, typer.Option(help="A .binaryproto of Caffe, or a number a channel in 0..1: 0.485,0.456,0.406.")
    ] = None,
    std: Annotated[str | None, typer.Option(help="What images are divided by, a number a channel.")] = None,
    errors: Annotated[
        list[Path] | None, typer.Option(help="A report of deepres eval --json, for the header; repeatable.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Bring weights in (torchvision, timm, transformers, CIFAR repositories, Caffe's) or out (torchvision).

    Example: deepres convert ResNet-50-model.caffemodel --mean ResNet_mean.binaryproto --to resnet50.safetensors
    """
    from deepres.weights import convert
    from deepres.weights.origins import Hints

    target = convert.Target(to, form, mean, std, errors or ())
    facts = convert.convert(source, target, say, Hints(network, padding, take))
    if json:
        print_json(facts)
    else:
        print_lines(
            f"{facts['network']}, {facts['parameters']:,} parameters, {facts['num_classes']} classes, stride on the "
            f"{facts['stride_on']}, {'with' if facts['mean'] else 'without'} a mean; read back and the same: {to}"
        )
