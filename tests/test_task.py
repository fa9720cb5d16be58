"""The loop trains a task that is no classification: batches of another kind, figures and a test of its own."""

import dataclasses
import json

import pytest
import torch
from torch import nn

from deepres.records import Run
from deepres.runtime import archive
from deepres.training.loop import train
from deepres.training.recipe import Recipe
from tasks import plain

RECIPE = Recipe(
    iterations=12, batch_size=8, lr=0.05, milestones=(), window=4, evaluate_every=4, accumulate=2, bn_average=16
)


@dataclasses.dataclass(frozen=True)
class Scene:
    """An image (3, H, W) with the middle and the size of its one bright square, as shares of the side."""

    image: torch.Tensor
    box: torch.Tensor


class Boxes:
    """Where a bright square is: batches are lists of scenes of several sizes."""

    figures = ("middle", "size")
    watched = "misplaced"

    def __init__(self, until=None):
        self.until = until

    def batch_at(self, step):
        if step == self.until:
            raise KeyboardInterrupt
        generator = torch.Generator().manual_seed(step)
        return [self.scene(side, generator) for side in (8, 12) * 4]

    def scene(self, side, generator):
        x, y, size = (int(torch.randint(2, side // 2, (), generator=generator)) for _ in range(3))
        image = torch.randn(3, side, side, generator=generator) * 0.1
        image[:, y : y + size, x : x + size] += 1
        return Scene(image, torch.tensor([x + size / 2, y + size / 2, size]) / side)

    def split(self, batch, parts):
        return [batch[part::parts] for part in range(parts)]

    def images(self, batch):
        return torch.stack([scene.image[:, :8, :8] for scene in batch])

    def loss(self, net, part):
        found = torch.cat([net(scene.image[None]) for scene in part])
        errors = (found - torch.stack([scene.box for scene in part])).abs().mean(0)
        middle, size = errors[:2].mean(), errors[2]
        return middle + size, {"middle": middle, "size": size}

    def evaluate(self, net, last):
        scenes = [scene for step in (1_000, 1_001) for scene in self.batch_at(step)]
        far = sum(bool((net(scene.image[None])[0] - scene.box).abs().max() > 0.2) for scene in scenes)
        return {"misplaced": 100 * far / len(scenes)}


class Silent:
    def step(self, iteration, row):
        pass

    def say(self, message):
        pass


def trained(path, task, recipe=RECIPE):
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    net = plain(nn.Sequential(*layers, nn.Linear(32, 3)))
    return train(net, recipe, task, Run(path), Silent())


def rows(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def test_windows_and_tests_have_the_figures_of_the_task(tmp_path):
    done = trained(tmp_path, Boxes())
    windows, tests = rows(tmp_path)[::2], rows(tmp_path)[1::2]
    assert [list(row) for row in windows] == [["iteration", "middle", "size", "train_loss", "lr"]] * 3
    assert [list(row) for row in tests] == [["iteration", "misplaced"]] * 3
    for row in windows:
        assert row["middle"] + row["size"] == pytest.approx(row["train_loss"], rel=1e-5)
    assert windows[-1]["train_loss"] < windows[0]["train_loss"]
    assert {"middle", "size", "misplaced"} <= done.keys() and "test_error" not in done


def test_an_interrupted_run_ends_with_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr("deepres.training.loop.CHECKPOINT_SECONDS", 0.0)
    trained(tmp_path / "whole", Boxes())
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut", Boxes(until=6))
    state = archive.load(tmp_path / "cut" / "checkpoints" / "000000006" / "state.pt")
    assert state["window"].shape == (3, 4) and (state["window"][:, :2] > 0).all()
    trained(tmp_path / "cut", Boxes())
    for name in ("metrics.jsonl", "checkpoints/000000012/weights.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_plateau_watches_the_figure_of_the_task(tmp_path):
    class Stuck(Boxes):
        def evaluate(self, net, last):
            return {"misplaced": 50.0}

    trained(tmp_path, Stuck(), dataclasses.replace(RECIPE, decay="plateau", patience=1))
    assert [row["lr"] for row in rows(tmp_path)[::2]] == pytest.approx([0.05, 0.05, 0.005])


def test_a_plateau_of_a_figure_where_more_is_better_ends_when_it_no_longer_rises(tmp_path):
    """mAP rises twice, and then stands still: two tests later the rate falls."""

    class Found(Boxes):
        watched, tests = "map50", 0

        def evaluate(self, net, last):
            self.tests += 1
            return {"map50": min(10.0 * self.tests, 20.0)}

    recipe = dataclasses.replace(RECIPE, decay="plateau", patience=2, evaluate_every=2, window=2)
    trained(tmp_path, Found(), recipe)
    rates = [row["lr"] for row in rows(tmp_path) if "lr" in row]
    assert rates == pytest.approx([0.05] * 4 + [0.005] * 2)
