"""A kind of task for tests: how bright a picture is, learned by the network `glownet`, for which the word `glow` asks.

It shares with classification what the house has for all kinds, and nothing else.
"""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from deepres.data.manifest import Manifest
from deepres.models.blocks import ConvBN
from deepres.models.catalog import build
from deepres.models.registry import NETWORKS, Entry
from deepres.models.staged import StagedNetwork
from deepres.runtime.errors import InputError
from deepres.runtime.figures import REPORTED, Figure, Plot, Reported
from deepres.training.config import Config
from deepres.training.kind import Kind
from deepres.training.recipe import Recipe
from deepres.workflows.kinds import KINDS, Row

NAME = "brightness"


class Glow(StagedNetwork):
    """One convolution and fc."""

    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.conv1 = ConvBN(in_channels, 4, 3)
        self.fc = nn.Linear(4, num_classes)


@dataclass(frozen=True)
class BrightnessRecipe(Recipe):
    """A recipe with noise on the pictures."""

    noise: float = 0.1


SHORT = BrightnessRecipe(
    name="short", iterations=12, batch_size=8, lr=0.05, milestones=(), window=4, evaluate_every=4, decay="plateau"
)
RECIPES = {"short": SHORT, "finetune": replace(SHORT, name="finetune", lr=0.01)}


@dataclass(frozen=True)
class BrightnessConfig(Config):
    """A configuration with the brightness that counts as 1."""

    task: ClassVar[str] = NAME
    white: float = 255.0
    recipe: BrightnessRecipe = SHORT


class Part(NamedTuple):
    """Pictures float32 (N, 3, H, W) in 0..1, and their files."""

    pictures: torch.Tensor
    manifest: Manifest

    def __len__(self):
        return len(self.pictures)


class Parts(NamedTuple):
    train: Part
    test: Part


def load_source(config, say, ranks):
    def part(name):
        files = sorted(Path(config.data_path, name).rglob("*.png"))
        pictures = np.stack([np.asarray(Image.open(file)) for file in files]).astype(np.float32)
        digests = [hashlib.sha256(file.read_bytes()).digest() for file in files]
        return Part(torch.from_numpy(pictures).movedim(3, 1) / config.white, Manifest.of(map(str, files), digests))

    say("two parts")
    return Parts(part("train"), part("test"))


@dataclass
class BrightnessTask:
    """Mean brightness: the loss is the squared gap, the figures are gaps in percent."""

    config: BrightnessConfig
    source: Parts
    mean: torch.Tensor
    classes: tuple = ("bright",)
    channels: int = 3
    figures: tuple = ("train_gap",)
    watched: str = "test_gap"
    facts: dict = field(default_factory=lambda: {"white": 255.0})
    closed: bool = False

    @property
    def fingerprint(self):
        return "".join(part.manifest.checksum for part in self.source)

    def batch_at(self, step):
        generator = torch.Generator().manual_seed(self.config.seed * 1_000 + step)
        own = self.source.train.pictures
        pictures = own[torch.randint(len(own), (self.config.recipe.batch_size,), generator=generator)]
        noise = torch.randn(pictures.shape, generator=generator) * self.config.recipe.noise
        return pictures + noise - self.mean, pictures.mean((1, 2, 3))

    def split(self, batch, parts):
        return list(zip(*(own.chunk(parts) for own in batch), strict=True))

    def images(self, batch):
        return batch[0]

    def loss(self, net, part):
        gaps = net(part[0])[:, 0] - part[1]
        return gaps.square().mean(), {"train_gap": 100 * gaps.abs().mean()}

    def evaluate(self, net, last):
        pictures = self.source.test.pictures
        gaps = net(pictures - self.mean)[:, 0] - pictures.mean((1, 2, 3))
        return {"test_gap": 100 * gaps.abs().mean().item()}

    def close(self):
        self.closed = True


def make_task(config, source, ranks, say, start_mean):
    mean = source.train.pictures.mean((0, 2, 3))[:, None, None] if start_mean is None else start_mean
    return BrightnessTask(config, source, mean)


def begin(config, task, start, say):
    return build(config.network, 1, 3) if start is None else start.begin(task.classes, task.channels, say)


def check(config, source, ranks, start):
    if len(source.train) < config.recipe.batch_size:
        raise InputError("too few pictures for a batch")


def settle(settings, changes, recipe):
    """The word `glow` is the network that the settings name, or else glownet."""
    named = {"network": settings.get("network", "glownet")} if changes.get("network") == "glow" else {}
    return {**changes, **named}


def require(config):
    if config.white <= 0:
        raise InputError("white must be more than 0")


BRIGHTNESS = Kind(
    config=BrightnessConfig,
    recipes=RECIPES,
    recipe_of=lambda settings, name: RECIPES[name or "short"],
    load_source=load_source,
    check=check,
    make_task=make_task,
    begin=begin,
    images=lambda config: "pictures",
    finetuned=lambda start, changes: {"white": start.net.header["white"]},
    settle=settle,
    require=require,
)

TRAIN, TEST = Figure("train_gap", "training gap", "%", training=True), Figure("test_gap", "test gap", "%")


def add_brightness(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add a row to each of the three tables that know kinds of tasks."""
    plot = Plot("Gap", "gap", "%", (TRAIN, TEST), "Gap against the iteration.")
    monkeypatch.setitem(REPORTED, NAME, Reported((TRAIN, TEST), (plot,), (TEST,), "Final gaps"))
    monkeypatch.setitem(NETWORKS, "glownet", Entry(2, "Glow net", Glow, family="cifar", task=NAME))
    monkeypatch.setitem(KINDS, NAME, Row("brightness:BRIGHTNESS", word="glow"))
