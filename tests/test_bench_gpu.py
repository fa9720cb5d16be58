"""Contests on a GPU: what a processor can check of them."""

import dataclasses
import io
import json
import time

import pytest
import torch

import gpu_aims
from deepres.bench import contest as contests
from deepres.bench import gpu_rivals, steady, tuned_gpu
from deepres.bench.contestants import rivals
from deepres.bench.inputs import data_of
from deepres.bench.job import Job, is_epoch, is_resident
from deepres.bench.textbook import DEVIATION, MEAN
from deepres.bench.tuned_gpu import Setting
from deepres.bench.turns import Turns
from deepres.runtime.errors import InputError

JOB = Job("train", "resnet8", 8, device="cuda")


@pytest.fixture
def resident(monkeypatch):
    """Jobs on the processor train on resident images, as on a GPU."""
    for module in (steady, gpu_rivals):
        monkeypatch.setattr(module, "is_resident", lambda job: job.data != Job.data)


def test_on_a_gpu_a_small_network_trains_on_resident_images_and_others_take_part():
    assert is_resident(JOB) and not is_epoch(JOB)
    assert not is_resident(dataclasses.replace(JOB, device="cpu"))
    assert not is_resident(dataclasses.replace(JOB, network="resnet50"))
    assert rivals(JOB) == ["textbook", "tuned"]
    others = rivals(dataclasses.replace(JOB, task="infer", network="plain18"))
    assert {"plain", "tuned"} <= set(others) and not {"torchvision", "timm", "openvino"} & set(others)


def answers(job, turns, monkeypatch, windows=1):
    monkeypatch.setattr(steady, "WARM_WINDOWS", windows)
    monkeypatch.setattr(steady, "TURN_SECONDS", 0.0)
    out = io.StringIO()
    begun = time.perf_counter()
    steady.train(job).work(Turns(["turn\n"] * turns, out))
    return [json.loads(line) for line in out.getvalue().splitlines()], time.perf_counter() - begun


@pytest.mark.long
def test_a_turn_of_ours_is_a_part_of_one_run_of_deepres_train(folder, resident, monkeypatch):
    windowed = dataclasses.replace(steady.paper_recipe(20), window=2, evaluate_every=8)
    monkeypatch.setattr(steady, "paper_recipe", lambda depth: windowed)
    job = Job("train", "resnet8", 4, data=str(folder), compile=False)
    (begun, *turns), whole = answers(job, 5, monkeypatch)
    assert begun["setting"].startswith("deepres train, fp32")
    assert 0 < begun["facts"]["start"] < whole
    # A window with the test in it does not count, so that its turn takes the window after it, too.
    assert [turn["images"] for turn in turns] == [8] * 5
    assert 0 < sum(turn["seconds"] for turn in turns) < whole


@pytest.mark.long
def test_a_step_at_224_runs_in_the_same_loop(monkeypatch):
    monkeypatch.setattr(steady, "STEP_WINDOW", 1)
    (begun, *turns), _ = answers(Job("train", "resnet18", 2, compile=False), 2, monkeypatch)
    assert begun["setting"].startswith("the loop of deepres train")
    assert [turn["images"] for turn in turns] == [2, 2]


def test_a_batch_in_memory_is_split_like_any_other():
    images, labels = torch.randn(6, 3, 4, 4), torch.arange(6)
    task = steady.InMemory(images, labels)
    parts = task.split(task.batch_at(3), 2)
    assert torch.cat([part[0] for part in parts]).equal(images)
    assert torch.cat([part[1] for part in parts]).equal(labels)


def test_resident_batches_are_crops_and_flips_of_the_images(folder, resident):
    job = Job("train", "resnet8", 16, data=str(folder))
    batches, training = gpu_rivals.Batches(job), data_of(job).train
    padded = torch.nn.functional.pad(training.images, (4, 4, 4, 4))
    seen = []
    for _ in range(3):  # an epoch of 48
        batches.advance()
        images, labels = batches.batch()
        assert images.is_contiguous(memory_format=torch.channels_last)
        pixels = images * torch.tensor(DEVIATION).view(3, 1, 1) * 255 + torch.tensor(MEAN).view(3, 1, 1) * 255
        for image, label, place in zip(pixels.round().byte(), labels, batches.chosen, strict=True):
            views = padded[place].unfold(1, 32, 1).unfold(2, 32, 1).permute(1, 2, 0, 3, 4)
            both = torch.cat([views, views.flip(-1)])
            assert (both == image).flatten(2).all(2).any() and label == training.labels[place]
        seen += batches.chosen.tolist()
    assert sorted(seen) == list(range(48))


def test_the_fastest_setting_is_taken_and_the_others_are_told(monkeypatch):
    naps = {Setting(): 0.002, Setting("default"): 0.0005, Setting("reduce-overhead"): 0.004}

    def make(setting):
        if setting.mode == "max-autotune":
            raise RuntimeError("no kernel is left")
        return lambda: time.sleep(naps[setting])

    monkeypatch.setattr("deepres.bench.inputs.TURN_SECONDS", 0.01)
    made = tuned_gpu._fastest(Job("train", "resnet8", 2, patience=30.0), make)
    assert made.setting.endswith("torch.compile default")
    assert made.facts["torch.compile default"] == pytest.approx(0.0005, abs=0.001)
    assert made.facts["torch.compile max-autotune"] == "does not work: no kernel is left"
    assert made.turn() == 2


def test_a_setting_that_takes_too_long_is_given_up():
    def make(setting):
        time.sleep(30 if setting.mode else 0)
        return lambda: None

    begun = time.monotonic()
    made = tuned_gpu._fastest(Job("train", "resnet8", 2, patience=1.1), make)
    assert time.monotonic() - begun < 20
    assert made.setting.endswith("eager")
    told = [made.facts[f"torch.compile {mode}"] for mode in ("reduce-overhead", "default", "max-autotune")]
    assert told == ["did not work within 1 s", *["not tried: the time for all settings was over"] * 2]
    assert all(isinstance(time_, float) for name, time_ in made.facts.items() if name.endswith("tried for"))
    with pytest.raises(InputError, match="no setting of stock PyTorch works"):
        tuned_gpu._fastest(Job("train", "resnet8", 2, patience=0.1), lambda setting: time.sleep(1))


def test_aims_that_were_not_measured_say_so_and_others_show_what_was(tmp_path):
    rows = gpu_aims.aims([], tmp_path, "gpu")
    assert rows.count("| not run |") == len(rows.splitlines()) - 4 and "Nothing was run yet." in rows
    work = {"task": "train", "network": "resnet20", "batch_size": 128, "device": "cuda", "data": "cifar10"}
    ours = {"images_per_second": 128_000.0, "median": {}, "facts": {}, "setting": "deepres train"}
    records = [
        {"work": work, "ours": ours, "rival": {"name": name}, "ratio": {"median": ratio}}
        for name, ratio in (("textbook", 9.871), ("tuned", 1.52))
    ]
    records.append(records[0] | {"work": work | {"network": "resnet50", "batch_size": 256}})
    records[-1]["ours"] = ours | {"median": {"resident": 256_000.0, "waited": 1.0, "seconds": 4.0}}
    env = {"gpu": "H100", "versions": {"torch": "2"}, "started": "2026-11-27T15:00"}
    (tmp_path / "gpu.json").write_text(json.dumps({"environment": env, "fast": {"whole": 11.04, "test_error": 8.5}}))
    (tmp_path / "gpu-table6.json").write_text(json.dumps([{"network": "resnet20", "seconds": 90}]))
    rows = gpu_aims.aims(records, tmp_path, "gpu")
    for row in (
        "| `resnet20`, a step of 128 images | 0.9 ms | 1 ms, 128,000 images/s |",
        "|  | 10 x textbook | 9.87 |",
        "|  | 1.5 x tuned | 1.52 |",
        "| 0.8 of a batch in memory | 0.50 (128,000 images/s, waits 25% of the time) |",
        "| 15 minutes in all | 1.5 minutes for 20 layers |",
        "| 12 s | 11.0 s, 8.50 % |",
        "H100, torch 2, 2026-11-27.",
    ):
        assert row in rows
    assert "| `resnet50` at 224, a step of 256 images | 6,600 images/s | not run |" in rows


def test_settings_of_stock_pytorch_train_and_score(folder, resident):
    job = Job("train", "resnet8", 8, data=str(folder), compile=False)
    assert [str(setting) for setting in tuned_gpu.usable(job)] == ["eager"]
    assert len(tuned_gpu.usable(JOB)) == len(tuned_gpu.SETTINGS)
    step = tuned_gpu.trainer(job, Setting())
    for _ in range(3):
        step()
    scores = tuned_gpu.scorer(Job("infer", "resnet8", 4), Setting())()
    assert scores.shape == (4, 10) and scores.isfinite().all()


@pytest.mark.long
def test_a_rival_that_cannot_begin_is_left_out_where_there_is_a_limit(monkeypatch):
    """Without a limit it ends the contest; ours always does."""

    class Failing(contests.Process):
        def setup(self):
            if self.name == "timm":
                raise InputError("timm cannot take part: it is shy")
            return super().setup()

    monkeypatch.setattr(contests, "Process", Failing)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    job, said = Job("train", "resnet18", 1), []
    records = contests.contest(job, ["timm", "nobody", "textbook"], 1, 0, said.append, 200)
    assert [record["rival"]["name"] for record in records] == ["textbook"]
    assert "left out: timm cannot take part: it is shy" in said
    assert any(told.startswith("left out: nobody called 'nobody'") for told in said)
    with pytest.raises(InputError, match="no rival takes part"):
        contests.contest(job, ["nobody"], 1, 0, said.append, 200)
    with pytest.raises(InputError, match="it is shy"):
        contests.contest(job, ["timm"], 1, 0, said.append)
    with pytest.raises(InputError, match="ours was not ready within 0 s"):
        contests.contest(job, ["textbook"], 1, 0, said.append, 0.01)


def test_other_contests_stay_on_the_processor(refused, monkeypatch):
    assert "no 'cuda'" in refused("bench", "train", "--device", "cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "load is measured on the processor; give --device cpu" in refused("bench", "load", "--device", "cuda")
