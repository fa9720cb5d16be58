"""Several ranks, started by torchrun on this machine with gloo, train one network together."""

import contextlib
import json
import os
import signal
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from deepres.classification.accuracy import Scores
from deepres.data.augment import CropFlip
from deepres.data.order import Order
from deepres.data.resident_batches import Batches
from deepres.data.sources import load_data_set
from deepres.runtime.errors import InputError
from deepres.runtime.ranks import Ranks, ranks
from runs import last_weights, run_two_ranks, torchrun, wait_for_checkpoint

BATCH = 16
# A rate so low that rounding, which differs with the grouping of the sums, does not grow past the comparison.
RECIPE = ("--iterations", 40, "--batch-size", BATCH, "--lr", 0.0002, "--precision", "fp32")
MARKS = ("--set", "window=1", "--set", "evaluate_every=20", "--set", "test_images=7")  # 7 do not divide by 2


def arguments(folder, run, *more):
    return ("train", "resnet8", "--data", folder, "--run", run, *RECIPE, *MARKS, *more)


def rank_process(launcher, rank):
    """The process of one rank, among the children of torchrun."""
    for child in psutil.Process(launcher.pid).children():
        with contextlib.suppress(psutil.Error):
            if child.environ().get("RANK") == str(rank):
                return child
    raise AssertionError(f"rank {rank} is not there")


def rows(run, key):
    return [row for line in (run / "metrics.jsonl").read_text().splitlines() if key in (row := json.loads(line))]


@pytest.fixture(scope="module")
def undisturbed(folder, tmp_path_factory):
    """A run of two ranks that was left alone, and what it printed."""
    place = tmp_path_factory.mktemp("two")
    result = run_two_ranks(place, *arguments(folder, "run"), DEEPRES_CACHE=str(place / "cache"))
    assert result.returncode == 0, result.stderr
    return place / "run", result


@pytest.mark.long
def test_two_ranks_compute_the_training_of_one_rank_with_batch_statistics_over_half_the_batch(
    deepres, folder, undisturbed, tmp_path
):
    run, _ = undisturbed
    assert deepres(*arguments(folder, tmp_path / "one", "--bn-group", BATCH // 2)).returncode == 0
    ours, theirs = rows(run, "train_loss"), rows(tmp_path / "one", "train_loss")
    assert [row["iteration"] for row in ours] == [row["iteration"] for row in theirs] == list(range(1, 41))
    losses = [row["train_loss"] for row in ours]
    assert losses[:20] == pytest.approx([row["train_loss"] for row in theirs[:20]], rel=1e-5)
    assert [row["train_error"] for row in ours[:20]] == [row["train_error"] for row in theirs[:20]]
    assert len(set(losses)) > 20  # a loss that moves, or equality says nothing


@pytest.mark.long
def test_two_ranks_whose_steps_are_static_as_on_gpus_train_as_others_do(folder, undisturbed, tmp_path):
    """Figures and running statistics are exchanged within the step, and flags alone outside of it."""
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    how = {"module": "static_steps", "DEEPRES_CACHE": str(tmp_path / "cache"), "PYTHONPATH": path}
    result = run_two_ranks(tmp_path, *arguments(folder, "run"), **how)
    assert result.returncode == 0, result.stderr
    plain, static = (load_file(last_weights(run)) for run in (undisturbed[0], tmp_path / "run"))
    assert all(torch.equal(plain[name], value) for name, value in static.items())
    assert rows(tmp_path / "run", "train_loss") == rows(undisturbed[0], "train_loss")


def test_the_parts_of_the_ranks_are_together_the_batch_of_one_rank(folder):
    images = load_data_set(str(folder))

    def make(part=slice(None)):
        return Batches(images.train, images.mean(), Order(3, BATCH, part), torch.device("cpu"), CropFlip())

    whole, parts = make(), [make(Ranks(rank, 4).part(BATCH)) for rank in range(4)]
    for step in (0, 2, 7):  # 48 images: step 2 ends an epoch
        pictures, labels = whole.batch(step)
        shared = [part.batch(step) for part in parts]
        assert all(len(share[1]) == BATCH // 4 for share in shared)
        assert torch.equal(torch.cat([share[0] for share in shared]), pictures)
        assert torch.equal(torch.cat([share[1] for share in shared]), labels)


@pytest.mark.long
def test_only_the_first_rank_writes_and_speaks(undisturbed):
    run, result = undisturbed
    iterations = [row["iteration"] for row in rows(run, "iteration")]
    assert len(iterations) == len(rows(run, "train_loss")) + len(rows(run, "test_error")) == 42
    [start] = json.loads((run / "environment.json").read_text())
    assert start["ranks"] == 2
    assert "ranks" not in json.loads((run / "config.json").read_text())
    assert len(result.stdout.splitlines()) == 1
    assert result.stderr.count("decoding") == 1
    assert result.stderr.count("40/40") == 1


@pytest.mark.long
def test_every_test_image_counts_once_whatever_the_number_of_ranks(deepres, undisturbed):
    """18 test images at the end, 7 before it: the errors are fractions of just those numbers."""
    run, _ = undisturbed
    during, end = (row["test_error"] for row in rows(run, "test_error"))
    assert during * 7 / 100 == pytest.approx(round(during * 7 / 100), abs=1e-9)
    report = json.loads(deepres("eval", run, "--precision", "fp32", "--json").stdout)
    assert report["images"] == 18
    assert round(end, 4) == report["top1_error"]


def test_counts_give_the_error_of_the_scores():
    scores = Scores(torch.tensor([[3.0, 2, 1], [1, 2, 3], [2, 1, 3]]), torch.tensor([0, 1, 1]))
    assert (scores.correct(), scores.correct(top=2), scores.correct(top=5)) == (1, 2, 3)
    assert scores.error() == pytest.approx(200 / 3)


@pytest.mark.long
def test_a_run_goes_on_after_a_rank_was_killed_and_ends_with_the_same_bits(folder, undisturbed, tmp_path):
    """SIGKILL to the second rank after a checkpoint; torchrun starts both again."""
    run = tmp_path / "killed"
    environment = {"DEEPRES_CHECKPOINT_SECONDS": "0.1"}
    with torchrun(tmp_path, *arguments(folder, run), restarts=1, **environment) as launcher:
        wait_for_checkpoint(launcher, run)
        rank_process(launcher, 1).kill()
        assert not (run / "done.json").exists()
        _, errors = launcher.communicate(timeout=120)
    assert launcher.returncode == 0, errors
    assert len(json.loads((run / "environment.json").read_text())) == 2
    assert errors.count("going on from iteration") == 1
    assert last_weights(run).read_bytes() == last_weights(undisturbed[0]).read_bytes()
    assert (run / "metrics.jsonl").read_bytes() == (undisturbed[0] / "metrics.jsonl").read_bytes()


@pytest.mark.long
def test_a_stop_signal_to_one_rank_stops_all_after_the_same_step_with_a_checkpoint(folder, tmp_path):
    run = tmp_path / "stopped"
    more = ("--set", "iterations=100000")
    with torchrun(tmp_path, *arguments(folder, run, *more), DEEPRES_CHECKPOINT_SECONDS="0.1") as launcher:
        wait_for_checkpoint(launcher, run)
        rank_process(launcher, 1).send_signal(signal.SIGTERM)
        _, errors = launcher.communicate(timeout=60)
    assert launcher.returncode != 0
    last = int(last_weights(run).parent.name)
    assert f"\nstopped after iteration {last};" in "\n" + errors
    assert f"rank 1: stopped after iteration {last};" in errors
    assert not (run / "done.json").exists()


def test_a_batch_that_does_not_divide_among_the_ranks_is_refused_and_nothing_is_written(
    refused, folder, tmp_path, monkeypatch
):
    """As the first of two ranks sees it, before it looks for the other one."""
    for name, value in {"WORLD_SIZE": 2, "RANK": 0, "LOCAL_RANK": 0, "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("MASTER_PORT", "0")
    message = refused(*arguments(folder, tmp_path / "odd", "--set", "batch_size=15"))
    assert "a batch of 15 images does not divide among 2 ranks; give a --batch-size" in message
    assert not (tmp_path / "odd").exists()


@pytest.mark.parametrize("wrong", [{"WORLD_SIZE": "many"}, {"WORLD_SIZE": "2"}])
def test_half_an_environment_of_torchrun_is_refused_by_the_name_of_what_is_wrong(monkeypatch, wrong):
    for name in ("MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="WORLD_SIZE"):
        ranks()
