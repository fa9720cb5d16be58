"""Parameters and multiply-adds, stage by stage, as in Table 1."""

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass
from functools import partial

import torch
from torch import Tensor, nn

from deepres.analysis.mode import evaluating
from deepres.runtime.errors import InputError

Output = tuple[nn.Conv2d | nn.Linear, torch.Size]  # a layer, and the shape of its output


@dataclass(frozen=True)
class Stage:
    """One stage of a network, or the total.

    `output_size` is that of the last convolution, "HxW" ("1x1" for fc, "" for the total). `multiply_adds` counts those
    of convolutions and fc for one image. `weighted_layers` counts convolutions and fc on the longest path, without the
    projections and gates of shortcuts. `activations` counts the output values of convolutions and fc for one image.
    """

    name: str
    output_size: str
    blocks: int
    parameters: int
    multiply_adds: int
    weighted_layers: int
    activations: int


def parameters(net: nn.Module) -> int:
    """The number of trainable values, including the weights and biases of BN."""
    return sum(parameter.numel() for parameter in net.parameters())


def stages(
    net: nn.Module, input_size: int | tuple[int, int], run: Callable[[Tensor], object] | None = None
) -> list[Stage]:
    """Rows of Table 1: one for each of `net.stages()` (or its children) that an image passes, then the row "total".

    Layers that are used in training only (GoogLeNet's auxiliary classifiers) are left out. `input_size` is in pixels a
    side, or (height, width); the number of channels is that of the first convolution. One blank image goes through
    `net`, or through `run` where that needs more than the image, on the device of `net` (on "meta" nothing is
    computed); `net` is not changed. Raises `InputError` for an input size below 1.
    """
    size = (input_size, input_size) if isinstance(input_size, int) else input_size
    if min(size) < 1:
        raise InputError(f"the input size must be 1 pixel a side or more, not {input_size}")
    parts: dict[str, nn.Module] = dict(getattr(net, "stages", net.named_children)())
    outputs = _trace(net, parts, size, run or net)
    rows = [
        Stage(
            name,
            _map_size(outputs[name][-1][1]),
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


def _trace(
    net: nn.Module, parts: Mapping[str, nn.Module], size: tuple[int, int], run: Callable[[Tensor], object]
) -> dict[str, list[Output]]:
    """The convolutions and fully connected layers of each part of `net`, in order, with their output shapes."""
    outputs: dict[str, list[Output]] = {name: [] for name in parts}

    def note(name: str, layer: nn.Conv2d | nn.Linear, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        outputs[name].append((layer, output.shape))

    # One image goes through the network, and each layer notes the shape of its output.
    with ExitStack() as hooks, evaluating(net), _without_normalization(net), torch.no_grad():
        for name, part in parts.items():
            for module in part.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    hooks.enter_context(module.register_forward_hook(partial(note, name)))
        run(_blank_image(net, size))
    return outputs


@contextmanager
def _without_normalization(net: nn.Module) -> Generator[None]:
    """BN layers of `net` do nothing inside the `with`: they change no shape, and on "meta" would take most time."""
    layers = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for layer in layers:
        layer.forward = nn.Identity().forward
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _map_size(output: torch.Size) -> str:
    height, width = output[-2:] if len(output) >= 4 else (1, 1)
    return f"{height}x{width}"


def _blank_image(net: nn.Module, size: tuple[int, int]) -> Tensor:
    first = next(module for module in net.modules() if isinstance(module, nn.Conv2d))
    weight = first.weight
    return torch.zeros(1, first.in_channels, *size, device=weight.device, dtype=weight.dtype)


def _blocks(child: nn.Module) -> int:
    return sum(name.split(".")[-1] == "shortcut" for name, _ in child.named_modules())


def _weighted_layers(module: nn.Module) -> int:
    """Convolutions and fc on the longest path through `module`: only the longest of parallel branches counts."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        return 1
    counts = {name: _weighted_layers(child) for name, child in module.named_children() if name != "shortcut"}
    branches = [counts.pop(name) for name in list(counts) if name.startswith("branch")]  # of an Inception module
    return sum(counts.values()) + max(branches, default=0)


def _total(rows: Iterable[Stage]) -> Stage:
    return Stage("total", "", *(sum(counts) for counts in zip(*(astuple(row)[2:] for row in rows), strict=True)))
