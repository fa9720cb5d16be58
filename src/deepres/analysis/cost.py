"""Parameters and multiply-adds, stage by stage, as in Table 1."""

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from functools import partial

import torch
from torch import Tensor, nn

from deepres.analysis.mode import evaluating
from deepres.runtime.errors import InputError

Output = tuple[nn.Conv2d | nn.Linear, torch.Size]  # a layer, and the shape of what it gives


@dataclass(frozen=True)
class Stage:
    """One stage of a network, or the total.

    `output_size` is that of the last convolution, "HxW" ("1x1" for fc, "" for the total). `multiply_adds` are those of
    convolutions and fc for one image. `weighted_layers` are convolutions and fc on the longest way, without the
    projections and gates of shortcuts. `activations` are the output values of all convolutions and fc for one image.
    """

    name: str
    output_size: str
    blocks: int
    parameters: int
    multiply_adds: int
    weighted_layers: int
    activations: int


def parameters(net: nn.Module) -> int:
    """Number of trainable values, BN's weights and biases included."""
    return sum(parameter.numel() for parameter in net.parameters())


def stages(net: nn.Module, input_size: int) -> list[Stage]:
    """Rows of Table 1: one for each of `net.stages()` (or child) that an image passes, then the row "total".

    Layers that are used in training alone (GoogLeNet's auxiliary classifiers) are left out. `input_size` is in pixels a
    side; the number of channels is that of the first convolution. One blank image goes through `net` on its device (on
    "meta" nothing is computed); `net` stays as it was. Raises `InputError` for an input size below 1.
    """
    if input_size < 1:
        raise InputError(f"the input size must be 1 pixel a side or more, not {input_size}")
    parts: dict[str, nn.Module] = dict(getattr(net, "stages", net.named_children)())
    outputs = _trace(net, parts, input_size)
    rows = [
        Stage(
            name,
            _size(outputs[name][-1][1]),
            _blocks(parts[name]),
            parameters(parts[name]),
            sum(shape.numel() * layer.weight[0].numel() for layer, shape in outputs[name]),
            _weighted_layers(parts[name]),
            sum(shape.numel() for _, shape in outputs[name]),
        )
        for name in parts
        if outputs[name]
    ]
    return [*rows, _total(rows)]


def _trace(net: nn.Module, parts: Mapping[str, nn.Module], input_size: int) -> dict[str, list[Output]]:
    """The convolutions and fully connected layers of each part of `net`, in order, with their output shapes."""
    outputs: dict[str, list[Output]] = {name: [] for name in parts}

    def note(name: str, layer: nn.Conv2d | nn.Linear, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        outputs[name].append((layer, output.shape))

    handles = [
        module.register_forward_hook(partial(note, name))
        for name, part in parts.items()
        for module in part.modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    try:
        with evaluating(net), _without_normalization(net), torch.no_grad():
            net(_blank_image(net, input_size))
    finally:
        for handle in handles:
            handle.remove()
    return outputs


@contextmanager
def _without_normalization(net: nn.Module) -> Generator[None]:
    """`net` without BN inside the `with`: BN changes no shape, and on "meta" it would take most of the time."""
    layers = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for layer in layers:
        layer.forward = nn.Identity().forward
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _size(output: torch.Size) -> str:
    height, width = output[2:] if len(output) == 4 else (1, 1)
    return f"{height}x{width}"


def _blank_image(net: nn.Module, input_size: int) -> Tensor:
    first = next(module for module in net.modules() if isinstance(module, nn.Conv2d))
    weight = first.weight
    return torch.zeros(1, first.in_channels, input_size, input_size, device=weight.device, dtype=weight.dtype)


def _blocks(child: nn.Module) -> int:
    return sum(name.split(".")[-1] == "shortcut" for name, _ in child.named_modules())


def _weighted_layers(module: nn.Module) -> int:
    """Convolutions and fc on the longest way through `module`: only the longest of parallel branches counts."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        return 1
    counts = {name: _weighted_layers(child) for name, child in module.named_children() if name != "shortcut"}
    branches = [counts.pop(name) for name in list(counts) if name.startswith("branch")]  # of an Inception module
    return sum(counts.values()) + max(branches, default=0)


def _total(rows: Iterable[Stage]) -> Stage:
    return Stage("total", "", *(sum(counts) for counts in zip(*(astuple(row)[2:] for row in rows), strict=True)))
