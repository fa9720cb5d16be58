"""The optimizers: the paper's SGD (Sec. 3.4, 4.2), and Muon for the convolutions of the recipe `fast`."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from deepres.training.recipe import Recipe

ROUNDS = 3  # of Jordan's polynomial
SLOPE, CUBE, FIFTH = 3.4445, -4.7750, 2.0315  # coefficients of Jordan's polynomial: steep at 0 and flat around 1
TINY = 1e-7  # least norm that is divided by


class SGD:
    """Momentum SGD in the form of the original code: v = m * v + lr * (g + decay * w), w = w - v.

    PyTorch's velocity u does not hold the learning rate (u = m * u + g, w = w - lr * u), so that a drop of the rate
    shrinks the old velocity at once. Here v = lr * u keeps its size: u is scaled by old / new rate at every change.
    With `nesterov` (not in the paper) the step is m * v + lr * (g + decay * w). Weight decay applies to all parameters,
    since the paper names no exception.

    This class calls PyTorch's function `sgd`: PyTorch's class SGD loads the compiler, which takes seconds. `velocity`
    holds u for each parameter, zero before the first step, and `lr` is the learning rate of the last step. On a GPU all
    parameters are stepped by one kernel that reads the rate from a tensor, so that a captured step takes any rate.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], momentum: float, weight_decay: float, nesterov: bool = False
    ):
        self.parameters = list(parameters)
        self.velocity = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.momentum, self.weight_decay, self.nesterov = momentum, weight_decay, nesterov
        self.lr = 1.0
        self.fused = bool(self.parameters) and self.parameters[0].is_cuda
        self.rate = torch.ones((), device=self.parameters[0].device) if self.fused else None

    def step_at(self, lr: float) -> None:
        """One step at learning rate `lr` along the gradients of the last backward pass, which are then dropped."""
        self.set_rate(lr)
        self.step()

    @torch.no_grad()
    def set_rate(self, lr: float) -> None:
        """Take the learning rate of the next step; after a change, v = lr * u keeps its size."""
        if lr != self.lr:
            for u in self._carried():
                u.mul_(self.lr / lr)
            self._take(lr)

    def _take(self, lr: float) -> None:
        self.lr = lr
        if self.rate is not None:
            self.rate.fill_(lr)

    @torch.no_grad()
    def step(self) -> None:
        """One step at the rate that was set, by operations of the device alone; the gradients are then dropped."""
        # Step only parameters with a gradient: frozen ones have none.
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
                lr=cast(float, self._rate),  # a tensor on a GPU
                dampening=0.0,
                nesterov=self.nesterov,
                maximize=False,
                fused=self.fused or None,
            )
        for parameter in self.parameters:
            parameter.grad = None

    @property
    def _rate(self) -> float | Tensor:
        """The rate of the next step, as a tensor on a GPU."""
        return self.lr if self.rate is None else self.rate

    def _carried(self) -> Iterable[Tensor]:
        """The velocities u for which lr * u keeps its size when the learning rate changes."""
        return self.velocity

    def restore(self, lr: float, velocity: Sequence[Tensor]) -> None:
        """Copy the learning rate and the velocity from a checkpoint."""
        self._take(lr)
        for mine, saved in zip(self.velocity, velocity, strict=True):
            mine.copy_(saved)


def optimizer_for(parameters: Iterable[nn.Parameter], recipe: Recipe) -> SGD:
    """The optimizer of a recipe."""
    if recipe.optimizer == "sgd":
        return SGD(parameters, recipe.momentum, recipe.weight_decay, recipe.nesterov)
    return Muon(parameters, recipe.momentum, recipe.weight_decay, recipe.nesterov, recipe.lr, recipe.kernel_lr)


class Muon(SGD):
    """SGD with orthogonal steps for the kernels of convolutions (Muon, Jordan et al. 2024). Not in the paper.

    The velocity of a kernel (u = m * u + g) is taken as a matrix of outputs by inputs, and its singular values are
    brought near to one: the step is equally long in all directions. Its norm is `kernel_lr` times the norm of the
    kernel, which then gets its old norm back: before batch normalization the norm does not matter, nor does weight
    decay on it. All other parameters are stepped by SGD at the rate `lr`. The schedule scales `kernel_lr` as it scales
    `lr`.
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

    @torch.no_grad()
    def step(self) -> None:
        """Step the kernels by Muon, then all other parameters by SGD."""
        # Kernels of one shape are stepped together.
        alike: dict[torch.Size, list[tuple[nn.Parameter, Tensor]]] = defaultdict(list)
        for parameter, velocity in zip(self.parameters, self.velocity, strict=True):
            if parameter.ndim == 4 and parameter.grad is not None:
                alike[parameter.shape].append((parameter, velocity))
        for kernels in alike.values():
            self._turn(kernels, self.kernel_lr_per_lr * self._rate)
        super().step()  # which skips the kernels: their gradients are dropped

    def _carried(self) -> Iterable[Tensor]:
        """All velocities but those of kernels: the length of a kernel's step does not depend on its velocity."""
        return [velocity for velocity in self.velocity if velocity.ndim != 4]

    def _turn(self, kernels: Sequence[tuple[nn.Parameter, Tensor]], rate: float | Tensor) -> None:
        """One Muon step of kernels of one shape, each given with its velocity."""
        # The velocities as matrices.
        ahead: list[Tensor] = []
        for kernel, velocity in kernels:
            gradient = cast(Tensor, kernel.grad)
            velocity.mul_(self.momentum).add_(gradient)
            ahead.append(_matrix(gradient.add(velocity, alpha=self.momentum) if self.nesterov else velocity))
            kernel.grad = None
        # Orthogonal steps, in proportion to the norm of each kernel, which then gets its old norm back.
        steps = orthogonal(torch.stack(ahead))
        weights = torch.stack([_matrix(kernel) for kernel, _ in kernels])
        length = _length(weights)
        weights = weights - rate * length * steps / _length(steps).clamp(min=TINY)
        weights *= length / _length(weights).clamp(min=TINY)
        # The matrices as kernels again.
        for (kernel, _), new in zip(kernels, weights, strict=True):
            count, inputs, *size = kernel.shape
            kernel.copy_(new.view(count, *size, inputs).permute(0, 3, 1, 2))


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices (N, R, C) with the singular vectors of the given ones, and singular values near one.

    Singular values above a fiftieth of the matrix's Frobenius norm come to lie between 0.68 and 1.21. It takes three
    rounds of Jordan's polynomial of the fifth degree, which only needs products of matrices.
    """
    wide = matrices.shape[1] <= matrices.shape[2]
    x = matrices if wide else matrices.mT
    x = x / _length(x).clamp(min=TINY)
    for _ in range(ROUNDS):
        square = x @ x.mT
        x = SLOPE * x + (CUBE * square + FIFTH * square @ square) @ x
    return x if wide else x.mT


def _matrix(kernel: Tensor) -> Tensor:
    """A kernel (outputs, inputs, height, width) as (outputs, height * width * inputs): a view if channels-last."""
    return kernel.permute(0, 2, 3, 1).flatten(1)


def _length(matrices: Tensor) -> Tensor:
    """The Frobenius norm of each matrix (N, R, C), as (N, 1, 1)."""
    return torch.linalg.matrix_norm(matrices, keepdim=True)
