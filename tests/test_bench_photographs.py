"""Training on pictures on disk as the bench measures it on a GPU."""

import dataclasses

import pytest

from deepres.bench import photograph_runs
from deepres.bench.contestants import check
from deepres.bench.job import Job
from deepres.bench.tables import setting
from deepres.classification.recipe import IMAGENET
from deepres.runtime.errors import InputError


@pytest.mark.long
def test_a_run_on_pictures_tells_its_speed_beside_that_of_a_batch_in_memory(photographs, monkeypatch):
    """What a GPU is measured by, on the processor: the windows of a turn, the waiting in them, then one batch."""
    monkeypatch.setattr(photograph_runs, "IMAGENET", dataclasses.replace(IMAGENET, crop=32, sides=(36, 48)))
    monkeypatch.setattr(photograph_runs, "TURN_SECONDS", 0.5)
    monkeypatch.setattr(photograph_runs, "WINDOW", 2)
    asked, raw = [], photograph_runs.Photographs.raw
    monkeypatch.setattr(
        photograph_runs.Photographs, "raw", lambda own, step: asked.append((step, raw(own, step))) or asked[-1][1]
    )
    ours = photograph_runs.run(Job("train", "resnet18", 4, data=str(photographs), compile=False), "cpu")
    images, figures = ours.turn(), ours.figures()
    assert images % 8 == 0 and figures["seconds"] >= 0.5 and 0 < figures["waited"] < figures["seconds"]
    assert figures["resident"] > 0 and "decoded by the processor" in ours.setting
    steps = [step for step, _ in asked]
    warm, held = photograph_runs.WARM * 2, steps[-1] + 1
    assert steps[-held:] == list(range(held)) and held == warm + images // 4  # the batch of the last step is kept
    side = {
        "setting": "x",
        "median": {"seconds": 2.0, "waited": 0.1, "resident": 40.0},
        "facts": {},
        "images_per_second": 30,
    }
    assert setting(side) == "x; waits for batches 5.0% of the time, 0.75 of the 40 images/s of a batch in memory"


def test_nvjpeg_takes_part_where_there_is_a_gpu(tmp_path):
    """On a processor it is refused with the reason."""
    with pytest.raises(InputError, match="needs a GPU by CUDA"):
        check("nvjpeg", Job("train", "resnet18", 4, data=str(tmp_path)))
