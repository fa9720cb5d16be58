"""A run that was begun before the loop knew tasks (its checkpoint keeps losses and wrong answers apart) goes on."""

import json
import shutil
from pathlib import Path

import pytest

from deepres.runtime import archive

BEFORE = Path(__file__).parent / "before"  # data, a run stopped at iteration 11 of 20, and the rows of a whole one


@pytest.fixture
def begun(tmp_path):
    shutil.copytree(BEFORE, tmp_path, dirs_exist_ok=True)
    return tmp_path / "run"


def rows(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_run_begun_before_goes_on_in_the_middle_of_its_window_and_ends_as_it_would_have(deepres, begun):
    early = rows(begun / "metrics.jsonl")
    result = deepres("train", "--run", "run")
    assert result.returncode == 0, result.stderr
    assert "going on from iteration 11" in result.stderr
    found, expected = rows(begun / "metrics.jsonl"), rows(BEFORE / "whole.jsonl")
    assert found[: len(early)] == early
    assert [row.keys() for row in found] == [row.keys() for row in expected]
    for row, other in zip(found, expected, strict=True):
        assert row == pytest.approx(other, abs=1e-3), "its errors, and the mean loss of a window half of which is old"


def test_its_next_checkpoint_is_of_todays_form(deepres, begun):
    assert deepres("train", "--run", "run").returncode == 0
    old, new = (archive.load(begun / "checkpoints" / name / "state.pt") for name in ("000000011", "000000020"))
    assert {"losses", "wrong"} <= old.keys() and "window" not in old
    assert old.keys() - {"losses", "wrong"} | {"window"} == new.keys()
    assert new["window"].shape == (2, 8)


def test_the_weights_of_a_run_of_before_are_tested(deepres, begun):
    result = deepres("eval", "run", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["images"] == 8
