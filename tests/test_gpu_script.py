"""The script of `make gpu` on a machine without a GPU: what it says, and the parts that a processor can do, too."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import gpu
import gpu_runs

ROOT = Path(__file__).parents[1]
HIDDEN = "msgspec,platformdirs,rich,typer,pyarrow,huggingface_hub,psutil,matplotlib,onnx,onnxruntime,openvino,timm"
HIDING = """
import sys

class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in HIDDEN else self.finder.find_spec(name, path, target)

HIDDEN = set({hidden!r}.split(","))
sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
"""
BARE_RUN = """
import sys
from pathlib import Path
import deepres.bench.contest, deepres.bench.contestants, deepres.bench.limits, deepres.bench.steady
from deepres.bench import gpu_rivals, inference, library_networks, tuned_gpu
from deepres.bench.ours import Silent
from deepres.classification.recipe import ClassificationConfig, ClassificationRecipe
from deepres.data.sources import load_data_set
from deepres.records import Run
from deepres.workflows.train import train_run

recipe = ClassificationRecipe(iterations=2, batch_size=8, milestones=(), evaluate_every=2)
config = ClassificationConfig("resnet8", sys.argv[1], device="cpu", precision="fp32", kernels="off", recipe=recipe)
done = train_run(config, Run(Path(sys.argv[2])), load_data_set(sys.argv[1]), Silent())
assert train_run(config, Run(Path(sys.argv[2])), load_data_set(sys.argv[1]), Silent()) == done
print(done["iteration"])
"""


class FakePart(gpu.Part):
    """A part whose time is over as soon as `over` says so."""

    def __init__(self, options, data, over=lambda: False):
        super().__init__("fake", options, data, 1000)
        self.over = over

    @property
    def left(self):
        return 0.0 if self.over() else 1000.0


def bare(place, *command):
    """Python from the source tree alone, with every package hidden that a machine with PyTorch may lack."""
    (place / "hiding").mkdir()
    (place / "hiding/sitecustomize.py").write_text(HIDING.format(hidden=HIDDEN))
    paths = os.pathsep.join([str(place / "hiding"), str(ROOT / "src")])
    env = os.environ | {"PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *command], cwd=place, env=env, capture_output=True, text=True, timeout=240)


def table(place, *more):
    """The options for rows of Table 6 at the scale `quick`, in the folders below `place`."""
    where = ("--out", place / "out", "--runs", place / "runs", "--scale", "quick", "--networks", "plain8,resnet8")
    options = gpu.arguments([*map(str, ("--parts", "none", "--table6", 1, "--device", "cpu", *where, *more))])
    options.out.mkdir(parents=True, exist_ok=True)
    return options


def test_without_a_gpu_it_says_so_in_a_sentence_and_all_is_well(tmp_path):
    env = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    script = (sys.executable, ROOT / "benchmarks/gpu.py", "--out", tmp_path / "out")
    done = subprocess.run(script, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert "has no GPU, so the tests marked gpu" in done.stdout
    assert not (tmp_path / "out").exists()


def test_an_unknown_part_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        gpu.arguments(["--parts", "limits,pizza"])
    assert stop.value.code == 2
    assert "unknown part 'pizza'" in capsys.readouterr().err


def test_table_6_is_a_part_where_its_minutes_are_given():
    assert gpu.arguments(["--parts", "none"]).parts == []
    assert gpu.arguments(["--parts", "limits", "--table6", "4"]).parts == ["limits", "table6"]


@pytest.mark.long
def test_a_bare_machine_trains_from_the_source_tree(folder, tmp_path):
    done = bare(tmp_path, "-c", BARE_RUN, str(folder), str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["2"]
    assert (tmp_path / "run/done.json").exists()


@pytest.mark.long
def test_a_bare_machine_is_told_what_is_left_out(folder, tmp_path):
    more = ("--device", "cpu", "--data", folder, "--out", tmp_path / "out", "--runs", tmp_path / "runs")
    done = bare(tmp_path, ROOT / "benchmarks/gpu.py", "--parts", "resume,tests", *map(str, more))
    assert done.returncode == 0, done.stderr
    assert "not installed, and what needs them is left out: msgspec, platformdirs" in done.stdout
    assert "left out: this Python lacks typer, rich" in done.stdout
    assert (tmp_path / "out/gpu.json").exists()


@pytest.mark.long
def test_rows_of_table_6_stop_when_the_time_is_over_and_go_on_from_what_came_back(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPRES_CHECKPOINT_SECONDS", "0.2")
    first = table(tmp_path / "first")
    run = first.runs / f"{folder.name}-quick/plain8-seed0"
    part = FakePart(first, str(folder), lambda: any((run / "checkpoints").glob("[0-9]*")))
    gpu_runs.table6(part)
    rows = dict(part.rows)
    assert rows["table6"] == "stopped with a checkpoint"
    assert rows["table6 plain8"].startswith("stopped at iteration ") and rows["table6 resnet8"] == "not run"
    assert not (run / "done.json").exists()
    # Another machine has nothing but what came back.
    second = table(tmp_path / "second", "--packed", first.out)
    part = FakePart(second, str(folder))
    gpu_runs.table6(part)
    rows = dict(part.rows)
    assert rows["table6"] == "complete"
    assert "% (paper None)" in rows["table6 resnet8"] and "2 starts" in rows["table6 plain8"]
    assert any("verdict" in name for name, _ in part.rows)
    assert (second.out / "table6.html").exists()
    assert [file.name for file in second.out.glob("*.tar")] == ["table6-1.tar"]


def test_runs_are_packed_into_files_of_limited_size(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_runs, "MOST", 1000)
    runs, out = tmp_path / "runs", tmp_path / "out"
    for run, iterations in (("plain8-seed0", (8, 16)), ("resnet8-seed0", (9,))):
        for iteration in iterations:
            place = runs / "images-quick" / run / "checkpoints" / f"{iteration:09}"
            place.mkdir(parents=True)
            (place / "weights.safetensors").write_bytes(bytes(600))
        (place.parents[1] / "config.json").write_text("{}")
        (place.parents[1] / ".lock").touch()
    (runs / "table6-quick-images").mkdir()
    (runs / "table6-quick-images/plan.json").write_text("{}")
    out.mkdir()
    for _ in range(2):  # what was packed before is replaced
        gpu_runs.pack(runs, out)
    assert sorted(file.name for file in out.iterdir()) == ["table6-1.tar", "table6-2.tar"]
    gpu_runs.unpack(out, tmp_path / "again")
    files = {str(file.relative_to(tmp_path / "again")) for file in (tmp_path / "again").rglob("*") if file.is_file()}
    assert files == {
        "table6-quick-images/plan.json",
        "images-quick/plain8-seed0/config.json",
        "images-quick/plain8-seed0/checkpoints/000000016/weights.safetensors",
        "images-quick/resnet8-seed0/config.json",
        "images-quick/resnet8-seed0/checkpoints/000000009/weights.safetensors",
    }


@pytest.mark.long
def test_a_run_that_was_stopped_is_compared_with_a_whole_one(folder, tmp_path, monkeypatch):
    for name, number in (("STEPS", 60), ("STOPPED_AT", 6), ("WINDOW", 3)):
        monkeypatch.setattr(gpu_runs, name, number)
    part = FakePart(table(tmp_path), str(folder))
    gpu_runs.resume(part)
    assert part.records
    for record in part.records:
        assert record["same"] in ("weights equal, rows equal", "was not stopped in its middle (exit code 0)")


def test_images_that_are_generated_have_ten_classes(tmp_path):
    assert gpu_runs.generated(tmp_path / "images") == str(tmp_path / "images")
    assert len(list((tmp_path / "images/train").iterdir())) == 10
    assert len(list((tmp_path / "images/test/class9").iterdir())) == 100
