"""Runs that are killed, stopped, damaged or short of disk go on to the same bits."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import time

import pytest
import torch

from deepres.runtime.ending import SIGNALS
from runs import checkpoints, last_weights, run_deepres, wait_for_checkpoint

pytestmark = pytest.mark.long

RECIPE = ("--iterations", 60, "--batch-size", 8, "--lr", 0.05)
MARKS = ("--set", "window=7", "--set", "evaluate_every=20")


def arguments(folder, run, *more):
    return ("train", "resnet8", "--data", folder, "--run", run, *RECIPE, *MARKS, *more)


def last_iteration(run):
    return int(checkpoints(run)[-1].name)


@pytest.fixture(scope="module")
def undisturbed(folder, tmp_path_factory):
    """A run that was left alone; the tests only read it."""
    place = tmp_path_factory.mktemp("undisturbed")
    result = run_deepres(place, *arguments(folder, place / "run"), DEEPRES_CACHE=str(place / "cache"))
    assert result.returncode == 0, result.stderr
    return place / "run"


def assert_same_bits(run, other):
    assert last_weights(run).read_bytes() == last_weights(other).read_bytes()
    assert (run / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()


def test_a_run_killed_at_any_moment_ends_with_the_same_bits(process, folder, undisturbed, tmp_path):
    """SIGKILL at three random moments; weights and metrics at the end are bit-identical."""
    run, kills, moments = tmp_path / "killed", 0, random.Random(0)
    environment = {"DEEPRES_CHECKPOINT_SECONDS": "0.05"}
    while kills < 3:
        child = process(*arguments(folder, run), wait=False, **environment)
        begun = last_iteration(run) if checkpoints(run) else 0
        while child.poll() is None and (not checkpoints(run) or last_iteration(run) <= begun):
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.15))
        child.send_signal(signal.SIGKILL)
        assert child.communicate()[1] is not None
        kills += 1
    assert not (run / "done.json").exists() or last_iteration(run) == 60
    assert process(*arguments(folder, run), **environment).returncode == 0
    assert_same_bits(run, undisturbed)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_stop_signal_ends_after_the_step_with_a_checkpoint(process, here, folder, undisturbed, tmp_path, number):
    run = tmp_path / "stopped"
    child = process(*arguments(folder, run), wait=False)
    while not (run / "metrics.jsonl").exists():
        time.sleep(0.005)
    child.send_signal(number)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 128 + number
    assert f"stopped after iteration {last_iteration(run)}" in errors
    assert not (run / "done.json").exists()
    result = here("train", "--run", run)  # the recorded configuration is enough to go on
    assert result.returncode == 0, result.stderr
    assert_same_bits(run, undisturbed)


def test_the_fast_recipe_goes_on_to_the_same_bits(process, here, folder, tmp_path):
    """Muon's velocities and the place in its schedule are in the checkpoint."""
    fast = ("train", "resnet8", "--data", folder, "--recipe", "fast", "--iterations", 40, "--batch-size", 8, *MARKS)
    assert here(*fast, "--run", "whole").returncode == 0
    child = process(*fast, "--run", "stopped", wait=False, DEEPRES_CHECKPOINT_SECONDS="0")
    wait_for_checkpoint(child, tmp_path / "stopped")
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert process(*fast, "--run", "stopped").returncode == 0
    assert_same_bits(tmp_path / "stopped", tmp_path / "whole")


def test_bad_images_may_be_left_out_from_any_moment_on(deepres, folder, undisturbed, tmp_path):
    """Or a run that met its first one in a test could not go on."""
    shutil.copytree(undisturbed, tmp_path / "run")
    assert deepres(*arguments(folder, "run"), "--skip-bad").returncode == 0


def test_a_run_from_before_a_field_of_the_recipe_was_known_goes_on(deepres, undisturbed, tmp_path):
    shutil.copytree(undisturbed, tmp_path / "run")
    config = json.loads((undisturbed / "config.json").read_text())
    for field in ("optimizer", "kernel_lr", "pad", "alternate_flips", "epochs"):
        del config["recipe"][field]
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    assert deepres("train", "--run", "run").returncode == 0


def test_a_finished_run_is_not_trained_again(deepres, undisturbed):
    before = last_weights(undisturbed).stat().st_mtime_ns
    result = deepres("train", "--run", undisturbed, "--json")
    assert json.loads(result.stdout)["iteration"] == 60
    assert len(json.loads((undisturbed / "environment.json").read_text())) == 1
    assert last_weights(undisturbed).stat().st_mtime_ns == before


def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(process, here, folder, undisturbed, tmp_path):
    run = tmp_path / "stopped"
    child = process(*arguments(folder, run), wait=False, DEEPRES_CHECKPOINT_SECONDS="0.05")
    while child.poll() is None and len(checkpoints(run)) < 2:
        time.sleep(0.005)
    child.send_signal(signal.SIGTERM)
    child.communicate()
    good = last_weights(run).read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    (run / "done.json").unlink(missing_ok=True)
    for damage, content in (("cut", good[: len(good) // 2]), ("flipped", bytes(flipped))):
        shutil.copytree(run, tmp_path / damage)
        last_weights(tmp_path / damage).write_bytes(content)
        result = here(*arguments(folder, damage))
        assert result.returncode == 0, result.stderr
        assert "damaged" in result.stderr
        assert_same_bits(tmp_path / damage, undisturbed)


def test_a_run_of_another_configuration_is_refused_with_the_fields(refused, folder, undisturbed):
    message = refused(*arguments(folder, undisturbed), "--seed", 3, "--set", "momentum=0.8")
    assert "seed: 0 -> 3" in message
    assert "recipe.momentum: 0.9 -> 0.8" in message


def test_a_run_goes_on_on_another_device_and_says_so(process, here, folder, undisturbed, tmp_path):
    """A GPU's run, as its record and its checkpoint say, on this processor; its kernels and capture do not bind it."""
    run = tmp_path / "moved"
    child = process(*arguments(folder, run), wait=False)
    while not (run / "metrics.jsonl").exists():
        time.sleep(0.005)
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=60)
    assert child.returncode == 128 + signal.SIGTERM
    began = json.loads((run / "config.json").read_text()) | {"device": "cuda", "kernels": "on", "compile": "on"}
    (run / "config.json").write_text(json.dumps(began))
    with_random_state_of_a_gpu(checkpoints(run)[-1])
    result = here(*arguments(folder, run, "--device", "cpu"))
    assert result.returncode == 0, result.stderr
    assert "the run began on cuda and goes on on cpu, with other bits than there" in result.stderr
    now, before = (json.loads((place / "config.json").read_text()) for place in (run, undisturbed))
    assert now == before
    assert_same_bits(run, undisturbed)  # since it was this processor that began it


def with_random_state_of_a_gpu(place):
    state = torch.load(place / "state.pt", weights_only=True) | {"device_random": torch.zeros(16, dtype=torch.uint8)}
    torch.save(state, place / "state.pt")
    sums = json.loads((place / "sha256.json").read_text())
    sums["state.pt"] = hashlib.sha256((place / "state.pt").read_bytes()).hexdigest()
    (place / "sha256.json").write_text(json.dumps(sums))


def test_like_takes_over_the_recorded_configuration(here, undisturbed, tmp_path):
    result = here("train", "--like", undisturbed, "--seed", 0, "--run", tmp_path / "again")
    assert result.returncode == 0, result.stderr
    assert_same_bits(tmp_path / "again", undisturbed)


def test_the_run_folder_tells_what_made_it(undisturbed):
    config = json.loads((undisturbed / "config.json").read_text())
    environment = json.loads((undisturbed / "environment.json").read_text())
    assert (config["network"], config["classes"], config["seed"]) == ("resnet8", ["ant", "bee", "cow"], 0)
    assert {"cpu", "threads", "versions", "commit", "started"} <= environment[0].keys()
    rows = [json.loads(line) for line in (undisturbed / "metrics.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows if "test_error" in row] == [20, 40, 60]
    assert [row["iteration"] for row in rows if "train_error" in row] == [7, 14, 21, 28, 35, 42, 49, 56, 60]
    assert len(list((undisturbed / "checkpoints").iterdir())) <= 2


def test_a_loss_that_is_not_finite_stops_the_run_and_says_where(refused, folder, tmp_path):
    message = refused(*arguments(folder, tmp_path / "hot"), "--lr", 1e30)
    assert "not finite at iteration" in message
    assert "rate 1e+30" in message
    assert "last good checkpoint" in message


def test_a_run_that_has_not_begun_takes_another_configuration(deepres, refused, folder, tmp_path):
    """What its first step was stopped by can be mended in its own folder: nothing is lost."""
    refused(*arguments(folder, tmp_path / "hot"), "--lr", 1e30)
    result = deepres(*arguments(folder, tmp_path / "hot", "--iterations", 4))
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "hot" / "config.json").read_text())["recipe"]["lr"] == 0.05
    assert "iterations: 4 -> 5" in refused(*arguments(folder, tmp_path / "hot", "--iterations", 5))


def test_memory_that_runs_out_is_one_sentence(refused, folder, tmp_path):
    message = refused(*arguments(folder, tmp_path / "wide"), "--batch-size", 1_000_000, "--set", "pad=500")
    assert "memory ran out" in message and "smaller --batch-size" in message


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_on_a_full_disk_the_last_checkpoint_survives(process, folder, tmp_path):
    """A tmpfs that holds two checkpoints of resnet14 but not a third."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        run = disk / "run"
        more = ("train", "resnet14", "--data", folder, "--run", run, *RECIPE)
        child = process(*more, wait=False, DEEPRES_CHECKPOINT_SECONDS="0.05")
        while child.poll() is None and not checkpoints(run):
            time.sleep(0.005)
        space = shutil.disk_usage(disk).free
        (disk / "ballast").write_bytes(bytes(max(0, space - 4096)))
        _, errors = child.communicate(timeout=120)
        assert child.returncode == 2, errors
        assert "the disk is full" in errors
        assert "Traceback" not in errors
        assert not list((run / "checkpoints").glob(".*"))
        (disk / "ballast").unlink()
        assert process(*more).returncode == 0
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_run_that_another_process_trains_is_refused_and_left_alone(process, folder, tmp_path):
    run = tmp_path / "shared"
    first = process(*arguments(folder, run, "--set", "iterations=100000"), wait=False)
    try:
        while not (run / "metrics.jsonl").exists():
            assert first.poll() is None
            time.sleep(0.05)
        second = process(*arguments(folder, run, "--set", "iterations=100000"))
        assert second.returncode == 2
        assert "another process is at work" in second.stderr
        assert len(json.loads((run / "environment.json").read_text())) == 1
    finally:
        first.send_signal(signal.SIGTERM)
        first.communicate(timeout=60)
    assert first.returncode == 128 + signal.SIGTERM
