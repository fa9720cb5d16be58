"""Trackers get the figures of `metrics.jsonl` at the same steps, each once, however often a run was interrupted."""

import dataclasses
import importlib
import json
import struct
import sys
import time
from itertools import pairwise

import pytest
import torch
from torch import nn

from deepres.pace import Pace, pace_of, rates
from deepres.records import Run, write_json
from deepres.runtime.errors import InputError
from deepres.training import trackers
from deepres.training.loop import train
from deepres.training.recipe import Recipe
from deepres.training.tracking import Tail, Tracked, named
from deepres.weights import checkpoint
from runs import run_two_ranks
from tasks import GivenTask, Told, plain

RECIPE = Recipe(iterations=12, batch_size=8, lr=0.1, milestones=(9,), window=2, evaluate_every=4)
CONFIG = {"network": "resnet8", "data": "a|b", "seed": 0, "recipe": {"name": "cifar", "batch_size": 8}}
ARGUMENTS = ("--iterations", 8, "--batch-size", 4, "--set", "window=2", "--set", "evaluate_every=4", "--kernels", "off")


class Kept:
    """A tracker that keeps what it gets."""

    def __init__(self, run, say):
        self.rows, self.ages, self.closed = [], [], None
        say("kept")

    def write(self, iteration, figures, age):
        self.rows.append((iteration, dict(figures)))
        self.ages.append(age)

    def close(self, failed):
        self.closed = failed


@pytest.fixture
def kept(monkeypatch):
    """The trackers `kept`, one for each start."""
    made = []

    def make(run, say):
        made.append(Kept(run, say))
        return made[-1]

    monkeypatch.setitem(trackers.TRACKERS, "kept", make)
    return made


def tensorboard_of(folder):
    """Each scalar of a TensorBoard log: (step, value, time of day) in order, as TensorBoard's own reader has them."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = reader.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    return {
        tag: [(one.step, one.value, one.wall_time) for one in found.Scalars(tag)] for tag in found.Tags()["scalars"]
    }


def recorded(run):
    """The figures of `metrics.jsonl` in the form of `tensorboard_of`, without times."""
    found = {}
    for row in run.metrics():
        for name, value in named(row).items():
            found.setdefault(name, []).append((row["iteration"], value))
    return found


def assert_log_holds_the_records(run):
    log = tensorboard_of(run.path / "tensorboard")
    speeds = log.pop("train/images_per_second")
    assert {tag: [step for step, _, _ in points] for tag, points in log.items()} == {
        tag: [step for step, _ in points] for tag, points in recorded(run).items()
    }
    for tag, points in recorded(run).items():
        assert [value for _, value, _ in log[tag]] == pytest.approx([value for _, value in points], rel=1e-6)
    assert [step for step, _, _ in speeds] == [step for step, _, _ in log["train/error"]]
    assert all(value > 0 for _, value, _ in speeds)


def net():
    torch.manual_seed(0)
    return plain(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 2)))


def batch_at(step):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(8, 1, 4, 4, generator=generator), torch.randint(0, 2, (8,), generator=generator)


def run_loop(run, names, evaluate=lambda net, last: {"test_error": 50.0, "test_top5_error": 5.0}, recipe=RECIPE):
    write_json(run.path / "config.json", CONFIG)
    monitor = Told()
    with Tracked(monitor, run, names) as told:
        train(net(), recipe, GivenTask(batch_at, evaluate), run, told)
    return monitor


def test_the_verb_writes_the_figures_of_the_records_to_tensorboard(deepres, folder, tmp_path):
    pytest.importorskip("tensorboard")
    result = deepres("train", "resnet8", "--data", folder, "--run", "runs/mine", *ARGUMENTS, "--log", "tensorboard")
    assert result.returncode == 0, result.stderr
    assert "tensorboard --logdir runs" in result.stderr
    assert_log_holds_the_records(Run(tmp_path / "runs/mine"))


def test_a_resumed_run_has_each_point_once_in_tensorboard(tmp_path, monkeypatch):
    """Points after the checkpoint are written again, and take the place of those that were there."""
    pytest.importorskip("tensorboard")
    run = Run(tmp_path / "run")

    def fail_at_last(net, last):
        if last:
            raise RuntimeError("a test that fails")
        return {"test_error": 50.0}

    def none_after_six(folder, iteration, *content):
        if iteration <= 6:
            save(folder, iteration, *content)

    save = checkpoint.save
    monkeypatch.setenv("DEEPRES_CHECKPOINT_SECONDS", "0")
    monkeypatch.setattr("deepres.weights.checkpoint.save", none_after_six)
    with pytest.raises(RuntimeError, match="a test that fails"):
        run_loop(run, ["tensorboard"], fail_at_last)
    monkeypatch.setattr("deepres.weights.checkpoint.save", save)
    assert tensorboard_of(run.path / "tensorboard")["train/error"][-1][0] == 10
    assert run_loop(run, ["tensorboard"]).said[0] == "going on from iteration 6"
    assert_log_holds_the_records(run)


def test_rows_of_before_come_with_the_time_at_which_they_were_recorded(tmp_path, kept):
    """As where a run was begun without the tracker."""
    run = Run(tmp_path / "run")
    run_loop(run, [], recipe=dataclasses.replace(RECIPE, iterations=6, milestones=()))
    (run.path / "done.json").unlink()
    file = run.path / "timing.jsonl"
    saved = next((run.path / "checkpoints").iterdir())
    rows = [{"iteration": at, "seconds": 10.0 * at} for at in (2, 4, 6)]
    # The rows of the checkpoint are those that a resumed run goes on with.
    for place in (file, saved / "timing.jsonl"):
        place.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with Tracked(Told(), run, ["kept"]) as told:
        told.step(6, {})
        told.step(7, {})
    assert [iteration for iteration, _ in kept[0].rows] == [2, 4, 6]
    assert kept[0].ages == [40.0, 20.0, 0.0]
    assert [figures["train/images_per_second"] for _, figures in kept[0].rows] == pytest.approx([0.8, 0.8, 0.8])


def test_each_row_is_handed_on_once_and_with_the_test_of_its_iteration(tmp_path, kept):
    run = Run(tmp_path / "run")
    monitor = run_loop(run, ["kept", "kept"])
    (tracker,) = kept  # a name that is given twice is one tracker
    assert monitor.said == ["kept"]
    assert [iteration for iteration, _ in tracker.rows] == [2, 4, 6, 8, 10, 12]
    assert tracker.rows[1][1].keys() == {
        "train/error", "train/loss", "train/lr", "train/images_per_second", "test/error", "test/top5_error",
    }  # fmt: skip
    assert tracker.closed is False


def test_a_run_that_fails_is_closed_as_such(tmp_path, kept):
    with pytest.raises(InputError, match="not finite"):
        run_loop(Run(tmp_path / "run"), ["kept"], recipe=dataclasses.replace(RECIPE, lr=1e30))
    assert [tracker.closed for tracker in kept] in ([], [True])


def test_without_a_tracker_nothing_is_read(tmp_path, kept):
    run_loop(Run(tmp_path / "run"), [])
    assert kept == []


@pytest.mark.long
def test_the_first_of_two_ranks_writes_the_log_alone(folder, tmp_path):
    pytest.importorskip("tensorboard")
    result = run_two_ranks(
        tmp_path, "train", "resnet8", "--data", folder, "--run", "run", *ARGUMENTS, "--log", "tensorboard",
        DEEPRES_CACHE=str(tmp_path / "cache"),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert len(list((tmp_path / "run/tensorboard").iterdir())) == 1
    assert_log_holds_the_records(Run(tmp_path / "run"))


@pytest.mark.parametrize(("name", "mend"), [("tensorboard", ".[log]"), ("wandb", "pip install wandb"), ("trackio", "")])
@pytest.mark.parametrize("verb", [("train", "resnet8"), ("reproduce", "fig6")])
def test_a_tracker_that_is_not_installed_is_named_before_anything_begins(
    refused, folder, tmp_path, monkeypatch, verb, name, mend
):
    monkeypatch.setitem(sys.modules, name, None)
    sentence = refused(*verb, "--data", folder, "--log", name)
    assert f"--log {name} needs the package {name}: " in sentence and mend in sentence
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_tracker_is_refused(refused, folder):
    assert "must be one of tensorboard, wandb, trackio" in refused("train", "resnet8", "--data", folder, "--log", "x")


def history_of(file):
    """The steps that a file of Weights & Biases holds, each with its figures; LevelDB's format of a log."""
    record, content = importlib.import_module("wandb.proto.wandb_internal_pb2").Record(), file.read_bytes()
    place, whole = 7, b""
    while place + 7 <= len(content):
        length, kind = struct.unpack_from("<HB", content, place + 4)
        whole, place = whole + content[place + 7 : place + 7 + length], place + 7 + length
        if kind in (1, 4):  # a record in one piece, or the last piece of one
            record.ParseFromString(whole)
            whole = b""
            if record.HasField("history"):
                items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
                yield (
                    record.history.step.num,
                    {name: json.loads(value) for name, value in items.items() if name[0] != "_"},
                )


def test_weights_and_biases_gets_the_figures_offline(tmp_path, monkeypatch):
    """Each start writes the whole run, under one name."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = Run(tmp_path / "run")
    assert "wandb sync " in run_loop(run, ["wandb"]).said[0]
    (file,) = (run.path / "wandb").glob("offline-run-*/*.wandb")
    assert trackers.identity(run) in file.name
    history = dict(history_of(file))
    assert list(history) == [2, 4, 6, 8, 10, 12]
    assert all("train/images_per_second" in figures for figures in history.values())
    for tag, points in recorded(run).items():
        assert [(at, figures[tag]) for at, figures in history.items() if tag in figures] == points


def test_trackio_has_each_point_once_after_a_second_start(tmp_path, monkeypatch):
    trackio = pytest.importorskip("trackio")
    storage = importlib.import_module("trackio.sqlite_storage").SQLiteStorage
    monkeypatch.setattr(trackio.utils, "TRACKIO_DIR", tmp_path / "store")
    monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", tmp_path / "store", raising=False)
    run = Run(tmp_path / "run")
    run_loop(run, ["trackio"])
    with Tracked(Told(), run, ["trackio"]) as told:
        told.step(12, {})
    (record,) = storage.get_run_records(trackers.PROJECT)
    rows = storage.get_logs(trackers.PROJECT, record["name"], run_id=record["id"])
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 10, 12]
    errors = [row["train/error"] for row in rows]
    assert errors == pytest.approx(run.curve("train_error")[1])


def test_the_tail_gives_whole_rows_and_each_once(tmp_path):
    tail, file = Tail(tmp_path / "rows.jsonl"), tmp_path / "rows.jsonl"
    assert tail.rows() == []
    file.write_text('{"iteration": 1}\n{"iter')
    assert tail.rows() == [{"iteration": 1}]
    assert tail.rows() == []
    with file.open("a") as stream:
        stream.write('ation": 2}\n')
    assert tail.rows() == [{"iteration": 2}]


def test_the_configuration_is_a_table_that_a_name_cannot_break():
    table = trackers.as_markdown(CONFIG)
    assert '| data | "a\\|b" |' in table
    assert "| recipe.batch_size | 8 |" in table


def test_the_name_of_a_run_stays_over_its_starts_and_changes_with_its_folder(tmp_path):
    run, other = Run(tmp_path / "a"), Run(tmp_path / "b")
    for one in (run, other):
        write_json(one.path / "config.json", CONFIG)
        write_json(one.path / "environment.json", [{"started": "1"}])
    name = trackers.identity(run)
    write_json(run.path / "environment.json", [{"started": "1"}, {"started": "2"}])
    assert trackers.identity(run) == name != trackers.identity(other)


def row(iteration, seconds):
    return {"iteration": iteration, "seconds": seconds}


def test_the_pace_leaves_tests_out_and_the_time_left_has_them():
    """Windows of 100 steps of 0.1 s, the first of them slow, and a test of 5 s every 200."""
    timing = [row(100, 30.0), row(200, 40.0), row(200, 45.0), row(300, 55.0), row(400, 65.0), row(400, 70.0)]
    assert dict(rates(timing)) == pytest.approx({100: 100 / 30, 200: 10.0, 300: 10.0, 400: 10.0})
    assert pace_of(timing, 1_000, 200) == Pace(pytest.approx(10.0), pytest.approx(60.0 + 3 * 5.0))
    assert pace_of(timing, 1_050, 200).seconds_left == pytest.approx(65.0 + 4 * 5.0)  # it is tested at the end, too
    assert pace_of(timing, 400, 200) == Pace(pytest.approx(10.0), 0.0)


def test_the_time_of_a_test_stands_between_two_timing_rows(tmp_path):
    def slow(net, last):
        time.sleep(0.3)
        return {"test_error": 50.0}

    run = Run(tmp_path / "run")
    run_loop(run, [], slow)
    times = run.timing()
    assert [row["iteration"] for row in times] == [2, 4, 4, 6, 8, 8, 10, 12, 12]
    spans = [after["seconds"] - before["seconds"] for before, after in pairwise(times)]
    assert [span > 0.2 for span in spans] == [False, True, False, False, True, False, False, True]
    assert run.done["seconds"] == pytest.approx(times[-1]["seconds"], abs=0.1)


def test_the_pace_of_rows_that_do_not_tell_it():
    assert pace_of([], 100, 10) is None
    assert pace_of([row(5, 0.0)], 100, 10) is None
    assert pace_of([row(50, 10.0)], 100, 100) == Pace(5.0, 10.0)
    old = [row(200, 20.0), row(400, 45.0)]  # older runs have a row a test: tests count as training
    assert pace_of(old, 600, 200) == Pace(8.0, 25.0)


def test_a_step_without_new_rows_costs_next_to_nothing(tmp_path, kept):
    run = Run(tmp_path / "run")
    write_json(run.path / "config.json", CONFIG)
    (run.path / "metrics.jsonl").write_text('{"iteration": 2, "test_error": 1.0}\n' * 1000)
    with Tracked(Told(), run, ["kept"]) as told:
        told.step(1, {})
        begun = time.perf_counter()
        for step in range(1_000):
            told.step(step, {})
        assert time.perf_counter() - begun < 0.5  # 500 us a step; about 5 are usual
