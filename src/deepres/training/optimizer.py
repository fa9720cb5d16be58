"""The paper's SGD."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


class SGD(torch.optim.SGD):
    """Momentum SGD in the form of the original code: v = m * v + lr * (g + decay * w), w = w - v.

    PyTorch keeps the rate out of its velocity u (u = m * u + g, w = w - lr * u), so that after a drop of the rate
    the old velocity shrinks at once. Here v = lr * u keeps its size: u is scaled by old / new rate at every change.
    With `nesterov` (not the paper's) the step is along m * v + lr * (g + decay * w).
    Weight decay is on all parameters (the paper names no exception).
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], momentum: float, weight_decay: float, nesterov: bool = False
    ):
        super().__init__(parameters, lr=1.0, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov)

    @property
    def velocity(self) -> list[Tensor]:
        """PyTorch's u for each parameter, zero before the first step."""
        parameters = self.param_groups[0]["params"]
        return [self.state[p].setdefault("momentum_buffer", torch.zeros_like(p)) for p in parameters]

    @property
    def lr(self) -> float:
        """The rate of the last step."""
        return self.param_groups[0]["lr"]

    def step_at(self, lr: float) -> None:
        """One step at rate `lr` from the gradients of the last backward pass, which are then dropped."""
        if lr != self.lr:
            for u in self.velocity:
                u.mul_(self.lr / lr)
            self.param_groups[0]["lr"] = lr
        self.step()
        self.zero_grad(set_to_none=True)

    def restore(self, lr: float, velocity: Sequence[Tensor]) -> None:
        """Take over the rate and velocity of a checkpoint."""
        self.param_groups[0]["lr"] = lr
        for mine, saved in zip(self.velocity, velocity, strict=True):
            mine.copy_(saved)
