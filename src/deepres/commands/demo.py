"""The verb `deepres demo`."""

from pathlib import Path
from typing import Annotated

import typer

from deepres.commands.console import print_lines, say
from deepres.commands.options import Device, NetworkName, TestPrecision


def demo(
    weights: Annotated[
        list[Path] | None, typer.Argument(help="Runs or weights files, side by side. Default: the newest run in runs/.")
    ] = None,
    host: Annotated[str, typer.Option(help="0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 7860,
    network: NetworkName = None,
    device: Device = "auto",
    precision: TestPrecision = "auto",
) -> None:
    """A page in the browser: drop a picture, see the best classes and the layers' responses, or what a detector finds.

    Example: deepres demo runs/plain34 runs/resnet34
    """
    from deepres.classification.scorer import Execution
    from deepres.report import demo as page

    execution = Execution(device=device, precision=precision)
    blocks = page.page(page.exhibits(weights or [page.newest_run(Path("runs"))], say, network, execution))
    print_lines(f"{page.serve(blocks, host, port)} (Ctrl-C ends it)")
    blocks.block_thread()
