"""Evaluation mode inside a `with`."""

from collections.abc import Generator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(net: nn.Module) -> Generator[None]:
    """`net` is in evaluation mode inside the `with`; afterwards each module is in the mode it was in before."""
    before = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
