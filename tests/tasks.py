"""A classification task for the loop whose batches and test are functions that a test gives."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from deepres.classification.recipe import ClassificationConfig
from deepres.classification.task import ClassificationTask
from deepres.training import settings

from_json = partial(settings.from_json, kind=ClassificationConfig)
merge = partial(settings.merge, kind=ClassificationConfig)


class Told:
    """A monitor that remembers what a person is told."""

    def __init__(self):
        self.said = []

    def step(self, iteration, row):
        pass

    def say(self, message):
        self.said.append(message)


def untested(net: nn.Module, last: bool) -> Mapping[str, float]:
    return {"test_error": 0.0}


@dataclass
class GivenTask:
    batch_at: Callable[[int], tuple[Tensor, Tensor]]
    evaluate: Callable[[nn.Module, bool], Mapping[str, float]] = untested
    label_smoothing: float = 0.0
    figures: tuple[str, ...] = ("train_error",)
    watched: str | None = "test_error"
    split = ClassificationTask.split
    images = ClassificationTask.images
    loss = ClassificationTask.loss


def plain(net: nn.Module, mean: Tensor | None = None, header: Mapping[str, object] | None = None) -> nn.Module:
    """A module that is no network of the catalog, with what goes with the weights."""
    net.mean, net.header = mean, dict(header or {})
    return net
