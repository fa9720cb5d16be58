"""The loop by itself: warm-up by measured error, evaluation marks, what travels with the weights."""

import dataclasses
import io

import pytest
import torch
from rich.console import Console
from torch import nn

from deepres.classification.accuracy import Scores, score
from deepres.records import Run
from deepres.runtime import progress
from deepres.runtime.errors import InputError
from deepres.runtime.progress import ConsoleMonitor
from deepres.training.loop import train
from deepres.training.recipe import Recipe
from deepres.training.trainer import Setup
from deepres.weights import checkpoint
from deepres.weights import file as weights_file
from tasks import GivenTask, plain

RECIPE = Recipe(iterations=12, batch_size=8, lr=0.1, milestones=(9,), window=2, evaluate_every=4)


class Silent:
    def step(self, iteration, row):
        pass

    def say(self, message):
        pass


def batch_at(step):
    """Two classes that differ in brightness, under so much noise that some images are always taken for the other."""
    generator = torch.Generator().manual_seed(step)
    labels = torch.randint(0, 2, (8,), generator=generator)
    return torch.randn(8, 1, 4, 4, generator=generator) * 3 + labels.view(8, 1, 1, 1) * 2 - 1, labels


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 2))


def run_loop(tmp_path, recipe, evaluate=lambda net, last: {"test_error": 0.0}, **more):
    run = Run(tmp_path)
    return train(plain(net()), recipe, GivenTask(batch_at, evaluate), run, Silent(), Setup(**more)), run


def test_the_warm_up_ends_when_the_measured_error_is_low_enough_and_not_before(tmp_path):
    easy = dataclasses.replace(RECIPE, warmup="error", warmup_lr=0.05, warmup_error=60.0)
    _, run = run_loop(tmp_path / "easy", easy)
    rates = run.curve("lr")[1]
    errors = run.curve("train_error")[1]
    first = next(index for index, error in enumerate(errors) if error < 60)
    assert rates[: first + 1] == [0.05] * (first + 1)
    assert rates[first + 1] == 0.1
    hard = dataclasses.replace(easy, warmup_error=1e-9)
    _, run = run_loop(tmp_path / "hard", hard)
    assert run.curve("lr")[1][:4] == [0.05] * 4
    assert run.curve("lr")[1][-1] == pytest.approx(0.01)  # the schedule's drop all the same


def test_tests_are_made_at_their_marks_and_the_last_one_is_told(tmp_path):
    seen = []

    def evaluate(net, last):
        assert not net.training
        seen.append(last)
        return {"test_error": float(len(seen))}

    done, run = run_loop(tmp_path, RECIPE, evaluate)
    assert seen == [False, False, True]
    assert run.curve("test_error") == ([4, 8, 12], [1.0, 2.0, 3.0])
    assert done["test_error"] == 3.0  # the last, not the best


def test_the_network_learns(tmp_path):
    """Chance is 50 %; the noise leaves about 10 %."""
    done, _ = run_loop(tmp_path, dataclasses.replace(RECIPE, iterations=60, milestones=(50,), window=20))
    assert done["train_error"] < 30


def test_weights_travel_with_mean_image_and_header(tmp_path):
    mean = torch.rand(1, 4, 4)
    train(plain(net(), mean, {"network": "mine"}), RECIPE, GivenTask(batch_at), Run(tmp_path), Silent())
    saved = weights_file.read_file(checkpoint.latest_weights(tmp_path / "checkpoints", print))
    assert torch.equal(saved.mean, mean)
    assert saved.header == {"network": "mine", "iteration": 12}
    assert set(saved.state) == set(net().state_dict())


def test_groups_of_the_batch_change_the_training(tmp_path):
    whole, _ = run_loop(tmp_path / "whole", RECIPE)
    halves, _ = run_loop(tmp_path / "halves", dataclasses.replace(RECIPE, bn_group=4))
    assert whole["train_loss"] != halves["train_loss"]


def test_bf16_runs_and_keeps_weights_in_fp32(tmp_path):
    _, _ = run_loop(tmp_path, RECIPE, precision="bf16")
    saved = weights_file.read_file(checkpoint.latest_weights(tmp_path / "checkpoints", print))
    assert saved.state["0.weight"].dtype == torch.float32


def test_the_iteration_of_a_loss_that_is_not_finite_is_exact(tmp_path):
    def poisoned(step):
        images, labels = batch_at(step)
        return (images * float("nan") if step == 5 else images), labels

    with pytest.raises(InputError, match="not finite at iteration 5 "):
        train(plain(net()), RECIPE, GivenTask(poisoned), Run(tmp_path), Silent())
    assert not (tmp_path / "checkpoints").exists()


def test_errors_count_top_k_and_classes():
    scores = Scores(torch.tensor([[0.9, 0.5, 0.1], [0.9, 0.5, 0.1], [0.2, 0.1, 0.7]]), torch.tensor([0, 1, 2]))
    assert scores.error() == pytest.approx(100 / 3)
    assert scores.error(top=2) == 0.0
    assert scores.error(top=5) == 0.0
    assert scores.confusion().tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 1]]
    assert scores.class_errors() == [0.0, 100.0, 0.0]


def test_scores_do_not_depend_on_the_batch_size():
    model, (images, labels) = net(), batch_at(0)
    whole = score(model, [(images, labels)])
    parts = score(model, zip(images.split(3), labels.split(3), strict=True))
    torch.testing.assert_close(whole.scores, parts.scores)
    assert model.training


def test_progress_counts_from_where_it_began(monkeypatch):
    """A test of pictures moves on by many at a time, and a run that goes on begins in the middle."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    for steps, speed in (((0, 392, 649), "32 images/s"), ((401, 649), "12 images/s")):
        now[0], out = 0.0, io.StringIO()
        monitor = ConsoleMonitor(Console(file=out), "test", 649, 1)
        for step in steps:
            now[0] = 20.0 if step == 649 else now[0]
            monitor.step(step, {})
        assert speed in out.getvalue()


def test_weights_that_are_not_finite_are_no_checkpoint(tmp_path):
    """The loss of the last step was finite, its gradients were not."""

    def damage(net, last):
        net[0].weight.data[0] = float("nan")
        return {"test_error": 0.0}

    with pytest.raises(InputError, match="weights are not finite after iteration 12"):
        run_loop(tmp_path, dataclasses.replace(RECIPE, evaluate_every=12), damage)
    assert not Run(tmp_path).done


def test_a_damaged_checkpoint_does_not_count_among_the_two_that_are_kept(tmp_path):
    for iteration in (10, 20):
        checkpoint.save(tmp_path, iteration, b"weights", {})
    (tmp_path / "000000020" / checkpoint.WEIGHTS).write_bytes(b"")
    assert checkpoint.newest(tmp_path).endswith("000000010")
    checkpoint.save(tmp_path, 15, b"weights", {})
    assert sorted(place.name for place in tmp_path.iterdir()) == ["000000010", "000000015"]
