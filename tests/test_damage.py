"""Runs whose files were damaged, or written by others: one sentence, the rows mended, nothing in silence."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from deepres.models.catalog import build
from deepres.records import Run
from deepres.runtime.errors import InputError
from deepres.training.loop import train
from deepres.training.recipe import Recipe
from runs import run_deepres
from tasks import GivenTask, Told

RECIPE = Recipe(iterations=12, batch_size=8, lr=0.1, milestones=(9,), window=2, evaluate_every=4)


def batch_at(step):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(8, 3, 32, 32, generator=generator), torch.randint(3, (8,), generator=generator)


def half_wrong(net, last):
    return {"test_error": 50.0}


def go_on(path, recipe=RECIPE):
    torch.manual_seed(0)
    told = Told()
    done = train(build("resnet8", 3), recipe, GivenTask(batch_at, half_wrong), Run(path), told)
    return done, told.said


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "run"
    go_on(path)
    return path


@pytest.fixture
def half(whole, tmp_path, monkeypatch):
    """The run as it was in its middle: checkpoints of iterations 7 and 8, and a row after them."""
    monkeypatch.setattr("deepres.training.loop.CHECKPOINT_SECONDS", 0.0)

    def stop(step):
        if step == 8:
            raise KeyboardInterrupt
        return batch_at(step)

    torch.manual_seed(0)
    path = tmp_path / "half"
    with pytest.raises(KeyboardInterrupt):
        train(build("resnet8", 3), RECIPE, GivenTask(stop, half_wrong), Run(path), Told())
    with (path / "metrics.jsonl").open("a") as rows:
        rows.write('{"iteration": 10, "train_error": 1.0}\n')
    return path


def damage_rows(file, how):
    lines = file.read_bytes().splitlines(keepends=True)
    content = {
        "cut": b"".join(lines[:3]) + lines[3][:9],
        "emptied": b"",
        "zeroed": bytes(file.stat().st_size),
        "doubled": b"".join(lines * 2),
        "first row lost": b"".join(lines[1:]),
        "a figure changed": b"".join(lines).replace(b"50.0", b"10.0", 1),
        "gone": None,
    }[how]
    file.unlink() if content is None else file.write_bytes(content)


HOW = ("cut", "emptied", "zeroed", "doubled", "first row lost", "a figure changed", "gone")


@pytest.mark.long
@pytest.mark.parametrize("how", HOW)
def test_damaged_rows_are_taken_from_the_checkpoint_and_it_is_said(half, whole, how):
    damage_rows(half / "metrics.jsonl", how)
    _, said = go_on(half)
    assert (half / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert [line for line in said if "metrics.jsonl is not what the run wrote" in line]


def test_rows_after_the_checkpoint_are_dropped_without_a_word(half, whole):
    _, said = go_on(half)
    assert said == ["going on from iteration 8"]
    assert (half / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("how", HOW)
def test_a_finished_run_with_other_rows_than_it_wrote_is_not_shown(whole, tmp_path, how):
    shutil.copytree(whole, tmp_path / "run")
    assert len(Run(tmp_path / "run").metrics()) == 9
    damage_rows(tmp_path / "run/metrics.jsonl", how)
    with pytest.raises(InputError, match="is not what the run wrote; deepres train --run"):
        Run(tmp_path / "run").metrics()


@pytest.mark.long
def test_training_a_finished_run_again_mends_its_rows(deepres, refused, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    rows = (tmp_path / "run/metrics.jsonl").read_bytes()
    (tmp_path / "run/metrics.jsonl").write_bytes(rows * 2)
    assert "deepres train --run run takes its rows from the last checkpoint" in refused("report", "run")
    result = deepres("train", "--run", "run")
    assert result.returncode == 0, result.stderr
    assert "its rows are taken from the checkpoint" in result.stderr
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == rows
    assert deepres("report", "run").returncode == 0


def test_a_checkpoint_without_rows_and_a_finished_run_without_their_digest_still_open(half, whole, tmp_path):
    """As older ones are."""
    for place in (half / "checkpoints").iterdir():
        sums = json.loads((place / "sha256.json").read_text())
        for name in ("metrics.jsonl", "timing.jsonl"):
            (place / name).unlink()
            del sums[name]
        (place / "sha256.json").write_text(json.dumps(sums))
    go_on(half)
    assert (half / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    done = json.loads((half / "done.json").read_text())
    del done["metrics_sha256"]
    (half / "done.json").write_text(json.dumps(done | {"images_per_second": float("nan")}))
    assert len(Run(half).metrics()) == 9 and Run(half).done["iteration"] == 12


def rewrite_state(place, change):
    """Another state in the newest checkpoint, with the right checksum."""
    import hashlib

    content = torch.load(place / "state.pt", weights_only=True)
    torch.save(change(content), place / "state.pt")
    sums = json.loads((place / "sha256.json").read_text())
    sums["state.pt"] = hashlib.sha256((place / "state.pt").read_bytes()).hexdigest()
    (place / "sha256.json").write_text(json.dumps(sums))


STATES = {
    "a foreign global": (lambda state: state | {"lr": Path("x")}, "may run code"),
    "no velocity": (lambda state: {key: state[key] for key in state if key != "velocity"}, "has no velocity of"),
    "a velocity of another shape": (
        lambda state: state | {"velocity": [torch.zeros(3), *state["velocity"][1:]]},
        "velocity of state.pt is torch.float32 (3,), not torch.float32",
    ),
    "no random state": (lambda state: state | {"random": None}, "state.pt has no random"),
    "another window": (lambda state: state | {"window": torch.zeros(2, 5)}, "window of state.pt is"),
    "a rate of text": (lambda state: state | {"lr": "0.1"}, "state.pt, at lr: expected float, got str"),
    "another iteration": (lambda state: state | {"iteration": 7}, "state.pt is not of iteration 8"),
    "an unknown part": (lambda state: state | {"step": 1}, "holds 'step', which is no part of it"),
    "a list": (lambda state: [state], "state.pt is not of iteration 8"),
}


@pytest.mark.long
@pytest.mark.parametrize("what", STATES)
def test_a_state_that_is_foreign_or_does_not_fit_gives_way_to_the_checkpoint_before(half, whole, what):
    change, sentence = STATES[what]
    rewrite_state(half / "checkpoints/000000008", change)
    _, said = go_on(half)
    assert sentence in said[0] and "going on from the one before it" in said[0]
    assert "weights_only" not in said[0]
    assert said[1] == "going on from iteration 7"
    assert (half / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


@pytest.mark.usefixtures("checked_types")
def test_checksums_of_another_shape_are_damage(half):
    for number, text in enumerate(("[" * 100_000, "[]", '{"state.pt": null}', "\0")):
        (half / "checkpoints/000000008/sha256.json").write_text(text)
        copy = half.with_name(str(number))
        shutil.copytree(half, copy)
        _, said = go_on(copy)
        assert "000000008 is damaged" in said[0] and said[-1] == "going on from iteration 7"


def test_what_a_dead_process_left_half_written_is_swept_at_the_next_start(deepres, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as living:
        time.sleep(0.05)
        own = tmp_path / f"run/.report.html.{living.pid}.partial"
        left = [
            tmp_path / f"run/.{name}.{pid}.partial" for name in ("config.json", "timing.jsonl") for pid in (1, 4**11)
        ]
        for file in (own, *left):
            file.write_text("half")
        for file in left:
            os.utime(file, (1, 1))  # before any process that runs now began
        assert deepres("train", "--run", "run").returncode == 0
        assert own.exists() and not any(file.exists() for file in left)


@pytest.mark.usefixtures("checked_types")
@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        ("config.json", "[" * 100_000, "nested more than 64 deep"),
        ("config.json", '{"recipe": null}', "config.json, at recipe: expected object, got null"),
        ("config.json", '{"recipe": []}', "config.json, at recipe: expected object, got array"),
        ("config.json", '{"network": 5}', "config.json, at network: expected str, got int"),
        ("config.json", '{"seed": 1e999}', "config.json, at seed: expected int, got float"),
        ("metrics.jsonl", '{"iteration": Infinity}\n', "line 1, at iteration: expected int, got float"),
        ("metrics.jsonl", '{"iteration": 1, "train_error": "x"}\n', "line 1, at train_error: expected float, got str"),
        ("metrics.jsonl", "{" + '"a":{' * 100_000 + "\n", "line 1 is nested more than 64 deep"),
        ("timing.jsonl", "null\n", "timing.jsonl is damaged: line 1: expected object, got null"),
        ("environment.json", '{"a": 1}', "environment.json: expected array, got object"),
        ("done.json", "{}", "done.json: object missing required field iteration"),
        ("done.json", '{"iteration": 1, "train_error": null}', "done.json, at train_error: expected float, got null"),
    ],
)
def test_a_record_of_another_shape_is_a_sentence(refused, trained, tmp_path, file, text, sentence):
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / file).write_text(text)
    if file == "metrics.jsonl":
        (tmp_path / "run/done.json").unlink()  # which knows their digest
    assert sentence in refused("report", "run")


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """A finished run of the command line; the tests copy it."""
    place = tmp_path_factory.mktemp("trained")
    result = run_deepres(
        place, "train", "resnet8", "--data", folder, "--run", "run", "--iterations", 4, "--batch-size", 4,
        "--kernels", "off",
        DEEPRES_CACHE=str(place / "cache"),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return place / "run"


IN_PLACE = ("weights.safetensors", "state.pt", "metrics.jsonl", "timing.jsonl", "sha256.json")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
@pytest.mark.parametrize("name", IN_PLACE)
def test_a_pipe_or_a_device_in_a_checkpoint_is_damage_and_not_waited_for(half, whole, name):
    for place, make in (("000000008", os.mkfifo), ("000000007", lambda file: Path(file).symlink_to("/dev/zero"))):
        file = half / "checkpoints" / place / name
        file.unlink()
        make(file)
    with pytest.raises(InputError, match=r"every checkpoint in .* is damaged; remove .*, and deepres train --run"):
        go_on(half)
    for place in (half / "checkpoints").iterdir():
        shutil.rmtree(place)
    go_on(half)
    assert (half / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
@pytest.mark.parametrize(
    "name", [*IN_PLACE[2:4], "config.json", "done.json", "environment.json", "pictures.safetensors"]
)
def test_a_pipe_in_a_run_is_a_sentence(refused, trained, tmp_path, name):
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / name).unlink()
    os.mkfifo(tmp_path / "run" / name)
    if name.endswith(".jsonl"):
        (tmp_path / "run/done.json").unlink()
    verb = ("eval", "run") if name == "pictures.safetensors" else ("train", "--run", "run")
    assert "a named pipe, not a file" in refused(*verb)


def damage(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_a_finished_run_without_a_whole_checkpoint_is_trained_anew_as_its_refusal_says(
    deepres, refused, trained, tmp_path
):
    shutil.copytree(trained, tmp_path / "run")
    weights = tmp_path / "run/checkpoints/000000004/weights.safetensors"
    before, rows = weights.read_bytes(), (tmp_path / "run/metrics.jsonl").read_bytes()
    damage(weights)
    checkpoints, done = Path("run/checkpoints"), Path("run/done.json")
    way = f"remove {checkpoints} and {done}, and deepres train --run run trains it anew"
    evaluated = deepres("eval", "run")
    assert evaluated.returncode == 2 and "the one before" not in evaluated.stderr
    assert f"every checkpoint in {checkpoints} is damaged; {way}" in evaluated.stderr
    told = deepres("train", "--run", "run")
    assert told.returncode == 0 and way in told.stderr  # its figures are what they were
    done.unlink()
    assert f"every checkpoint in {checkpoints} is damaged; remove {checkpoints}, and deepres train" in refused(
        "train", "--run", "run"
    )
    shutil.rmtree(checkpoints)
    assert deepres("train", "--run", "run").returncode == 0
    assert weights.read_bytes() == before and (tmp_path / "run/metrics.jsonl").read_bytes() == rows
    assert deepres("eval", "run").returncode == 0


def test_a_finished_run_whose_last_checkpoint_is_damaged_is_tested_by_the_one_before_and_goes_on_from_it(half, whole):
    from deepres.training.resume import mend_records
    from deepres.weights.checkpoint import latest_weights

    go_on(half)
    damage(half / "checkpoints/000000012/weights.safetensors")
    told = Told()
    assert latest_weights(half / "checkpoints", told.say).parent.name == "000000011"
    assert told.said[0].endswith("using the one before it")
    mend_records(Run(half), told.say)
    assert told.said[1].endswith(f"remove {half / 'done.json'}, and the same command trains from the one before it")
    (half / "done.json").unlink()
    go_on(half)
    assert (half / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert latest_weights(half / "checkpoints", told.say).parent.name == "000000012"


def test_a_disk_that_is_full_before_the_first_checkpoint_names_none_to_go_on_from(tmp_path, monkeypatch):
    def fails(file, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("deepres.weights.checkpoint._write_synced", fails)
    with pytest.raises(InputError, match=r"the disk is full; make room and run the same command again$"):
        go_on(tmp_path / "run")


@pytest.mark.parametrize("text", ["abc", "-1", "nan", "inf"])
def test_seconds_between_checkpoints_that_are_no_number_are_a_sentence(refused, folder, tmp_path, monkeypatch, text):
    monkeypatch.setenv("DEEPRES_CHECKPOINT_SECONDS", text)
    message = refused("train", "resnet8", "--data", folder, "--run", "run", "--iterations", 2, "--batch-size", 4)
    assert f"DEEPRES_CHECKPOINT_SECONDS is '{text}'; give a number from 0 up, or unset it" in message
