"""The paper's SGD, and Muon, by which the recipe `fast` moves the kernels of convolutions."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from deepres.training.recipe import Recipe

ROUNDS = 3
SLOPE, CUBE, FIFTH = 3.4445, -4.7750, 2.0315  # steep at 0, flat around 1
TINY = 1e-7


class SGD:
    """Momentum SGD in the form of the original code: v = m * v + lr * (g + decay * w), w = w - v.

    PyTorch keeps the rate out of its velocity u (u = m * u + g, w = w - lr * u), so that after a drop of the rate
    the old velocity shrinks at once. Here v = lr * u keeps its size: u is scaled by old / new rate at every change.
    With `nesterov` (not the paper's) the step is along m * v + lr * (g + decay * w).
    Weight decay is on all parameters (the paper names no exception).

    It is PyTorch's function; PyTorch's class loads its compiler, which takes seconds. `velocity` is u for each
    parameter, zero before the first step, and `lr` the rate of the last step.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], momentum: float, weight_decay: float, nesterov: bool = False
    ):
        self.parameters = list(parameters)
        self.velocity = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.momentum, self.weight_decay, self.nesterov = momentum, weight_decay, nesterov
        self.lr = 1.0

    @torch.no_grad()
    def step_at(self, lr: float) -> None:
        """One step at rate `lr` from the gradients of the last backward pass, which are then dropped."""
        if lr != self.lr:
            for u in self._carried():
                u.mul_(self.lr / lr)
            self.lr = lr
        pairs = zip(self.parameters, self.velocity, strict=True)
        moved = [(own, own.grad, u) for own, u in pairs if own.grad is not None]
        if moved:
            parameters, gradients, velocity = ([entry[place] for entry in moved] for place in range(3))
            sgd(
                parameters,
                gradients,
                velocity,
                weight_decay=self.weight_decay,
                momentum=self.momentum,
                lr=lr,
                dampening=0.0,
                nesterov=self.nesterov,
                maximize=False,
            )
        for parameter in self.parameters:
            parameter.grad = None

    def _carried(self) -> Iterable[Tensor]:
        """The velocities that keep their size, in steps, when the rate changes."""
        return self.velocity

    def restore(self, lr: float, velocity: Sequence[Tensor]) -> None:
        """Take over the rate and velocity of a checkpoint."""
        self.lr = lr
        for mine, saved in zip(self.velocity, velocity, strict=True):
            mine.copy_(saved)


def optimizer_for(parameters: Iterable[nn.Parameter], recipe: Recipe) -> SGD:
    """The optimizer that a recipe asks for."""
    if recipe.optimizer == "sgd":
        return SGD(parameters, recipe.momentum, recipe.weight_decay, recipe.nesterov)
    return Muon(parameters, recipe.momentum, recipe.weight_decay, recipe.nesterov, recipe.lr, recipe.kernel_lr)


class Muon(SGD):
    """SGD whose steps of convolutions' kernels are orthogonal matrices (Muon, Jordan et al. 2024). Not the paper's.

    The velocity of a kernel (u = m * u + g), as a matrix of outputs by inputs, has its singular values brought near to
    one, so that a step is of one size in all directions. It is `kernel_lr` times as long as the kernel, which then gets
    its old length back: batch normalization makes lengths meaningless, and weight decay on kernels with them. All else
    goes by SGD at the rate `lr`, and where a schedule gives a part of that, kernels go by the same part of `kernel_lr`.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        momentum: float,
        weight_decay: float,
        nesterov: bool,
        lr: float,
        kernel_lr: float,
    ):
        super().__init__(parameters, momentum, weight_decay, nesterov)
        self.kernel_lr_per_lr = kernel_lr / lr

    def step_at(self, lr: float) -> None:
        """As `SGD.step_at`, kernels first."""
        alike: dict[torch.Size, list[tuple[nn.Parameter, Tensor]]] = defaultdict(list)
        for parameter, velocity in zip(self.parameters, self.velocity, strict=True):
            if parameter.ndim == 4 and parameter.grad is not None:
                alike[parameter.shape].append((parameter, velocity))
        with torch.no_grad():
            for kernels in alike.values():
                self._turn(kernels, self.kernel_lr_per_lr * lr)
        super().step_at(lr)  # which leaves alone what has no gradient any more

    def _carried(self) -> Iterable[Tensor]:
        """Those of all but kernels, whose steps are as long whatever the length of their velocity."""
        return [velocity for velocity in self.velocity if velocity.ndim != 4]

    def _turn(self, kernels: Sequence[tuple[nn.Parameter, Tensor]], rate: float) -> None:
        """One step of kernels of one shape, each with its velocity."""
        ahead: list[Tensor] = []
        for kernel, velocity in kernels:
            gradient = cast(Tensor, kernel.grad)
            velocity.mul_(self.momentum).add_(gradient)
            ahead.append(_matrix(gradient.add(velocity, alpha=self.momentum) if self.nesterov else velocity))
            kernel.grad = None
        steps = orthogonal(torch.stack(ahead))
        weights = torch.stack([_matrix(kernel) for kernel, _ in kernels])
        length = _length(weights)
        weights = weights - rate * length * steps / _length(steps).clamp(min=TINY)
        weights *= length / _length(weights).clamp(min=TINY)
        for (kernel, _), new in zip(kernels, weights, strict=True):
            count, inputs, *size = kernel.shape
            kernel.copy_(new.view(count, *size, inputs).permute(0, 3, 1, 2))


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices (N, R, C) with the same singular vectors, and singular values of 0.68 to 1.21 in place of all that were
    above a fiftieth of the matrix's length.

    Three rounds of Jordan's polynomial of the fifth degree, which needs products of matrices alone.
    """
    wide = matrices.shape[1] <= matrices.shape[2]
    x = matrices if wide else matrices.mT
    x = x / _length(x).clamp(min=TINY)
    for _ in range(ROUNDS):
        square = x @ x.mT
        x = SLOPE * x + (CUBE * square + FIFTH * square @ square) @ x
    return x if wide else x.mT


def _matrix(kernel: Tensor) -> Tensor:
    """A kernel (outputs, inputs, height, width) as (outputs, height * width * inputs), a view where channels-last."""
    return kernel.permute(0, 2, 3, 1).flatten(1)


def _length(matrices: Tensor) -> Tensor:
    return torch.linalg.matrix_norm(matrices, keepdim=True)
