"""Parameters and multiply-adds, stage by stage, as in Table 1."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deepres.analysis.mode import evaluating
from deepres.errors import InputError


@dataclass(frozen=True)
class Stage:
    """One stage of a network, or the total.

    `output_size` is "HxW" ("1x1" for fc, "" for the total); `multiply_adds` are those of convolutions and fc
    for one image; `weighted_layers` are convolutions and fc, without projections and gates on a shortcut.
    """

    name: str
    output_size: str
    blocks: int
    parameters: int
    multiply_adds: int
    weighted_layers: int


def parameters(net: nn.Module) -> int:
    """Number of trainable values, BN's weights and biases included."""
    return sum(parameter.numel() for parameter in net.parameters())


def stages(net: nn.Module, input_size: int) -> list[Stage]:
    """Rows of Table 1: one for each child of `net` that has weights, then the row "total".

    `input_size` is in pixels a side; the number of channels is that of the first convolution. One blank image
    goes through `net` on its own device (on "meta" nothing is computed); `net` stays as it was. Raises
    `InputError` for an input size below 1.
    """
    if input_size < 1:
        raise InputError(f"the input size must be 1 pixel a side or more, not {input_size}")
    sizes, multiply_adds = _trace(net, input_size)
    rows = [
        Stage(
            name,
            sizes[name],
            _blocks(child),
            parameters(child),
            multiply_adds.get(name, 0),
            _weighted_layers(child),
        )
        for name, child in net.named_children()
        if parameters(child)
    ]
    return [*rows, _total(rows)]


def _trace(net: nn.Module, input_size: int) -> tuple[dict[str, str], dict[str, int]]:
    """Output size and multiply-adds of each child of `net` for one image."""
    sizes: dict[str, str] = {}
    multiply_adds: dict[str, int] = {}

    def note_size(name: str):
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            height, width = output.shape[2:] if output.dim() == 4 else (1, 1)
            sizes[name] = f"{height}x{width}"

        return hook

    def note_products(name: str):
        def hook(module: nn.Conv2d | nn.Linear, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            multiply_adds[name] = multiply_adds.get(name, 0) + output.numel() * module.weight[0].numel()

        return hook

    handles = [child.register_forward_hook(note_size(name)) for name, child in net.named_children()]
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            handles.append(module.register_forward_hook(note_products(name.split(".")[0])))
    try:
        with evaluating(net), torch.no_grad():
            net(_blank_image(net, input_size))
    finally:
        for handle in handles:
            handle.remove()
    return sizes, multiply_adds


def _blank_image(net: nn.Module, input_size: int) -> Tensor:
    first = next(module for module in net.modules() if isinstance(module, nn.Conv2d))
    weight = first.weight
    return torch.zeros(1, first.in_channels, input_size, input_size, device=weight.device, dtype=weight.dtype)


def _blocks(child: nn.Module) -> int:
    return sum(name.split(".")[-1] == "shortcut" for name, _ in child.named_modules())


def _weighted_layers(child: nn.Module) -> int:
    return sum(
        isinstance(module, nn.Conv2d | nn.Linear) and "shortcut" not in name.split(".")
        for name, module in child.named_modules()
    )


def _total(rows: Iterable[Stage]) -> Stage:
    rows = list(rows)
    return Stage(
        "total",
        "",
        sum(row.blocks for row in rows),
        sum(row.parameters for row in rows),
        sum(row.multiply_adds for row in rows),
        sum(row.weighted_layers for row in rows),
    )
