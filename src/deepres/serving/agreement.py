"""How near the outputs of an exported or converted network are to those of the network itself."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deepres.runtime.errors import InputError
from deepres.serving.outputs import SCORES, Outputs, Runner, named


@dataclass(frozen=True)
class Agreement:
    """How near a form of a network is to the network, over `images` of them.

    `change` is the largest change of a value relative to the largest value of its output, over all outputs; `same` is
    the share (0 to 1) of the images with the same best class, None where the network has no scores.
    """

    images: int
    change: float
    same: float | None


def agreement(run: Runner, net: nn.Module, batches: Iterable[Tensor]) -> Agreement:
    """How near `run` is to `net` in evaluation mode, for `batches` of images in the form that both take.

    Outputs are compared by name. Raises `InputError` where the two have other names.
    """
    # Run both on every batch.
    was_training = net.training
    net.eval()
    with torch.inference_mode():
        pairs = [(named(net(images)), run(images)) for images in batches]
    net.train(was_training)
    # Join the batches, and compare output by output.
    expected, found = (_joined(side) for side in zip(*pairs, strict=True))
    if expected.keys() != found.keys():
        raise InputError(
            f"the network gives {', '.join(expected)}, and the other form of it {', '.join(found)}; write it again"
        )
    change = max(_change(found[name], expected[name]) for name in expected)
    classes = [side[SCORES].argmax(1) for side in (expected, found) if SCORES in side]
    same = float((classes[0] == classes[1]).float().mean()) if classes else None
    return Agreement(len(next(iter(expected.values()))), change, same)


def _joined(batches: tuple[Outputs, ...]) -> dict[str, Tensor]:
    return {name: torch.cat([outputs[name] for outputs in batches]) for name in batches[0]}


def _change(found: Tensor, expected: Tensor) -> float:
    """The largest difference relative to the largest expected value; 0 where all are equal."""
    if found.shape != expected.shape:
        return float("inf")
    if found.equal(expected):
        return 0.0
    return float((found - expected).abs().max() / expected.abs().max())
