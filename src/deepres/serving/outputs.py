"""The outputs of a network by name: one that classifies has `scores`, others may have several."""

from collections.abc import Callable, Mapping

from torch import Tensor

SCORES = "scores"  # (N, K), before softmax: the output of a network that returns one tensor rather than a mapping
Outputs = Mapping[str, Tensor]  # the first dimension of each is the N images of the batch
Runner = Callable[[Tensor], Outputs]  # images to outputs, computed by PyTorch or another runtime


def named(outputs: Tensor | Outputs) -> Outputs:
    """The outputs of a network by name; a single tensor is its scores."""
    return {SCORES: outputs} if isinstance(outputs, Tensor) else outputs
