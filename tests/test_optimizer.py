"""The paper's SGD, and Muon of the recipe `fast`."""

import dataclasses

import pytest
import torch
from torch import nn

from deepres.classification.recipe import CIFAR, FAST
from deepres.models.catalog import build
from deepres.training.optimizer import SGD, Muon, optimizer_for, orthogonal


def muon(*parameters, lr=0.2, kernel_lr=0.03):
    return Muon(parameters, momentum=0.9, weight_decay=5e-4, nesterov=True, lr=lr, kernel_lr=kernel_lr)


def kernel(*shape, seed=0):
    return nn.Parameter(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("shape", [(16, 144), (64, 576), (256, 64), (8, 8)])
def test_orthogonal_keeps_singular_vectors_and_evens_singular_values(shape):
    torch.manual_seed(0)
    matrices = torch.randn(3, *shape, dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    inner = left.mT @ orthogonal(matrices) @ right.mT
    even = inner.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(inner, torch.diag_embed(even), atol=1e-10, rtol=0)
    large = values > matrices.norm(dim=(1, 2))[:, None] / 50
    assert large.float().mean() > 0.9
    assert even[large].min() > 0.68
    assert even[large].max() < 1.21


def test_muon_turns_a_kernel_by_its_rate_and_keeps_its_length():
    weight = kernel(16, 8, 3, 3)
    before = weight.detach().clone()
    weight.grad = torch.randn(16, 8, 3, 3)
    muon(weight).step_at(0.1)  # half of the rate
    assert weight.grad is None
    torch.testing.assert_close(weight.norm(), before.norm())
    assert ((weight - before).norm() / before.norm()).item() == pytest.approx(0.015, rel=0.02)


def test_muon_steps_down_the_gradient_whatever_the_gradients_length():
    one, two = kernel(16, 8, 3, 3), kernel(16, 8, 3, 3)
    before, gradient = one.detach().clone(), torch.randn(16, 8, 3, 3)
    one.grad, two.grad = gradient.clone(), 1e3 * gradient
    muon(one).step_at(0.2)
    muon(two).step_at(0.2)
    torch.testing.assert_close(one, two)
    assert ((one - before) * gradient).sum() < 0


def test_muon_works_on_kernels_of_a_shape_as_on_each_alone():
    together, alone = [kernel(8, 4, 3, 3, seed=i) for i in range(3)], [kernel(8, 4, 3, 3, seed=i) for i in range(3)]
    ours, theirs = muon(*together), [muon(weight) for weight in alone]
    for _ in range(3):
        for one, other in zip(together, alone, strict=True):
            one.grad = torch.randn(8, 4, 3, 3)
            other.grad = one.grad.clone()
        ours.step_at(0.1)
        for optimizer in theirs:
            optimizer.step_at(0.1)
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other)


def test_muon_moves_kernels_alike_in_both_orders_of_memory():
    rows, last = kernel(8, 4, 3, 3), nn.Parameter(kernel(8, 4, 3, 3).detach().to(memory_format=torch.channels_last))
    rows.grad = torch.randn(8, 4, 3, 3)
    last.grad = rows.grad.to(memory_format=torch.channels_last)
    muon(rows).step_at(0.1)
    muon(last).step_at(0.1)
    torch.testing.assert_close(rows, last)


def test_the_velocity_of_a_kernel_is_a_sum_of_gradients_whatever_the_rate():
    """u = 0.9 u + g, from the first step on: its steps do not depend on the length of u."""
    weight, u = kernel(8, 4, 3, 3), torch.zeros(8, 4, 3, 3)
    optimizer = muon(weight)
    for lr in (0.001, 0.2, 0.02):
        weight.grad = torch.randn(8, 4, 3, 3)
        u = 0.9 * u + weight.grad
        optimizer.step_at(lr)
        torch.testing.assert_close(optimizer.velocity[0], u)


def test_muon_leaves_all_but_kernels_to_sgd():
    def vectors():
        return [nn.Parameter(torch.arange(5.0)), nn.Parameter(torch.ones(2, 3))]

    ours, theirs = vectors(), vectors()
    first, second = muon(*ours), SGD(theirs, 0.9, 5e-4, nesterov=True)
    for lr in (0.1, 0.2, 0.05):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        first.step_at(lr)
        second.step_at(lr)
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_muon_leaves_frozen_kernels_and_those_without_any_gradient_as_they_are():
    frozen, still = kernel(8, 4, 3, 3), kernel(8, 4, 3, 3, seed=1)
    before = frozen.detach().clone(), still.detach().clone()
    still.grad = torch.zeros_like(still)
    muon(frozen, still).step_at(0.1)
    assert torch.equal(frozen, before[0])
    torch.testing.assert_close(still.detach(), before[1])


def test_muon_goes_on_from_saved_velocities_to_the_same_bits():
    def trained(steps, restored_at=None):
        torch.manual_seed(0)
        weights = [kernel(8, 4, 3, 3), nn.Parameter(torch.ones(8))]
        optimizer = muon(*weights)
        for step in range(steps):
            if step == restored_at:
                saved = optimizer.lr, [velocity.clone() for velocity in optimizer.velocity]
                optimizer = muon(*weights)
                optimizer.restore(*saved)
            for weight in weights:
                weight.grad = torch.randn_like(weight)
            optimizer.step_at(0.2 - 0.01 * step)
        return weights

    assert all(torch.equal(one, two) for one, two in zip(trained(6), trained(6, restored_at=3), strict=True))


def test_the_papers_recipe_goes_by_sgd_and_the_fast_one_by_muon():
    parameters = list(build("resnet8").parameters())
    assert type(optimizer_for(parameters, CIFAR)) is SGD
    assert type(optimizer_for(parameters, FAST)) is Muon
    assert type(optimizer_for(parameters, dataclasses.replace(FAST, optimizer="sgd"))) is SGD
