"""A second kind of task goes through the same verbs, loop, records and page as classification."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from brightness import BRIGHTNESS, add_brightness
from deepres.classification.recipe import ClassificationConfig
from deepres.records import Run, append_line, write_json
from deepres.report import page
from deepres.report.live import Live, Observer
from deepres.report.runs import findings_of
from deepres.runtime.errors import InputError
from deepres.runtime.figures import REPORTED
from deepres.training.loop import StoppedError
from deepres.weights.file import read_file
from deepres.workflows.configure import configure
from deepres.workflows.train import train_run
from runs import make_run
from tasks import Told


@pytest.fixture
def brightness(monkeypatch):
    add_brightness(monkeypatch)


@pytest.fixture
def glowing(deepres, folder, tmp_path, brightness):
    """A finished run of the command line, named by the word of its kind."""
    result = deepres("train", "glow", "--data", folder, "--run", "run", "--batch-size", 8)
    assert result.returncode == 0, result.stderr
    return tmp_path / "run", result


def test_a_run_of_a_second_kind_is_told_recorded_and_tested_as_its_task_says(glowing):
    run, result = glowing
    assert "glownet: recipe short, 12 iterations of 8 pictures, rate 0.05" in result.stderr
    done = json.loads((run / "done.json").read_text())
    assert f"training gap {done['train_gap']:.2f} %, test gap {done['test_gap']:.2f} %, " in result.stdout
    config = Run(run).config
    assert (config["task"], config["network"], config["classes"]) == ("brightness", "glownet", ["bright"])
    assert [list(row) for row in Run(run).metrics()[:2]] == [
        ["iteration", "train_gap", "train_loss", "lr"], ["iteration", "test_gap"]
    ]  # fmt: skip
    last = read_file(run / "checkpoints/000000012/weights.safetensors")
    assert last.header["white"] == 255.0 and last.mean is not None
    assert len((run / "pictures.safetensors").read_bytes()) > 8 * (48 + 18)


def test_an_interrupted_run_of_a_second_kind_ends_with_the_same_bits(glowing, tmp_path):
    whole, _ = glowing
    config = configure([whole], None, {})
    source = BRIGHTNESS.load_source(config, lambda message: None, None)

    class Stopped(Told):
        def step(self, iteration, row):
            if iteration == 6:
                os.kill(os.getpid(), signal.SIGTERM)

    half, told = Run(tmp_path / "half"), Told()
    with pytest.raises(StoppedError):
        train_run(config, half, source, Stopped())
    train_run(config, half, source, told)
    assert "going on from iteration 6" in told.said
    for name in ("metrics.jsonl", "checkpoints/000000012/weights.safetensors"):
        assert (half.path / name).read_bytes() == (whole / name).read_bytes()


def test_a_run_goes_on_by_its_record_and_by_the_word_of_its_kind(deepres, refused, glowing, folder):
    run, _ = glowing
    for name in ("done.json", "checkpoints/000000012"):
        shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()
    again = deepres("train", "--run", "run")
    assert again.returncode == 0 and "glownet after 12 iterations" in again.stdout, again.stderr
    same = deepres("train", "glow", "--data", folder, "--run", "run", "--batch-size", 8)
    assert same.returncode == 0 and same.stdout == again.stdout
    other = deepres("train", "--like", "run", "--set", "noise=0", "--run", "other", "--json")
    assert other.returncode == 0 and Run(run.parent / "other").config["recipe"]["noise"] == 0
    assert "holds a run of another configuration (recipe.noise: 0.1 -> 0.2)" in refused(
        "train", "--run", "run", "--set", "noise=0.2"
    )


def test_a_network_of_one_kind_and_a_run_of_another_are_refused(refused, glowing, folder, tmp_path):
    sentence = refused("train", "resnet8", "--run", "run")
    assert "run is of the task brightness, and resnet8 of classification; leave one of them out" in sentence
    (tmp_path / "own.toml").write_text('task = "classification"\n')
    assert "own.toml is of the task classification, and glow of brightness" in refused(
        "train", "glow", "--data", folder, "--config", "own.toml"
    )
    (tmp_path / "own.toml").write_text('task = "tracking"\n')
    known = "classification, detection, segmentation, localization, brightness"
    assert f"unknown task 'tracking'; known: {known}" in refused("train", "--config", "own.toml")


def test_fields_recipes_and_checks_are_those_of_the_kind(refused, folder, brightness):
    start = ("train", "glow", "--data", folder)
    assert "unknown recipe 'cifar'; known: short, finetune" in refused(*start, "--recipe", "cifar")
    assert "has an unknown field 'crop'" in refused(*start, "--set", "crop=8")
    assert "white must be more than 0" in refused(*start, "--set", "white=-1")
    assert "too few pictures for a batch" in refused(*start, "--batch-size", 64)


def test_a_run_may_lie_in_its_data_where_no_folder_is_a_class(deepres, refused, folder, brightness, tmp_path):
    shutil.copytree(folder, tmp_path / "data")
    data, more = tmp_path / "data", ("--iterations", 4, "--batch-size", 8)
    assert "be read as a class" in refused("train", "resnet8", "--data", data, "--run", data / "train/dog", *more)
    result = deepres("train", "glow", "--data", data, "--run", data / "train/run", *more)
    assert result.returncode == 0, result.stderr


def test_trained_weights_of_a_kind_are_trained_further_as_that_kind(deepres, glowing, folder):
    run, _ = glowing
    result = deepres("finetune", "run", "--data", folder, "--run", "more", "--batch-size", 8)
    assert result.returncode == 0 and "glownet: recipe finetune, 12 iterations of 8 pictures" in result.stderr
    config = Run(run.parent / "more").config
    assert (config["task"], config["white"], config["start"]) == ("brightness", 255.0, "run")
    assert (run.parent / "more/start.safetensors").exists()


def test_weights_of_a_second_kind_carry_the_figures_of_its_last_test(deepres, glowing, tmp_path):
    result = deepres("convert", "run", "--to", "out.safetensors")
    assert result.returncode == 0, result.stderr
    header = read_file(tmp_path / "out.safetensors").header
    assert header["figures"] == {"test_gap": Run(tmp_path / "run").done["test_gap"]} and "errors" not in header


def test_a_page_of_two_kinds_has_figures_and_a_table_of_each(deepres, glowing, tmp_path):
    make_run(tmp_path / "errors")
    assert deepres("report", "run", "errors", "--out", "page.html").returncode == 0
    found = findings_of([tmp_path / "run", tmp_path / "errors"])
    assert [figure.title for figure in found.figures] == ["Gap", "Training and test error"]
    assert [table.title for table in found.tables] == ["Final gaps (%)", "Final errors (%)"]
    done = Run(tmp_path / "run").done
    assert found.tables[0].columns[4:] == ("test gap",)
    assert found.tables[0].rows == (("run", "Glow net", 0, 12, done["test_gap"]),)
    html = (tmp_path / "page.html").read_text()
    assert f"<title>Glow net, test gap: {done['test_gap']:.2f} % at iteration 12</title>" in html


def test_a_watched_page_has_a_column_for_each_figure_of_its_runs(glowing, tmp_path):
    make_run(tmp_path / "errors", done=False)
    places = [tmp_path / "run", tmp_path / "errors"]
    live = Live(tuple(Observer().progress(Run(place)) for place in places), "12:00:00", 5)
    labels = [figure.label for figure in live.figures]
    assert labels == ["training loss", "training gap", "test gap", "training error", "test error"]
    cells = [row.split("</td>")[0] for row in page.render(findings_of(places), live).split('<td class="number">')[1:]]
    assert cells[3 + 3 : 3 + 5] == ["–", "–"]  # the run of brightness has no errors
    assert cells[8 + 4 : 8 + 8] == ["–", "–", "40.00", "45.12"]


def make_detection_run(folder, network="faster-rcnn-resnet50", seed=0, done=True):
    """A run folder of a detector with records as the loop writes them."""
    recipe = {"name": "faster-rcnn", "iterations": 40, "batch_size": 2, "window": 10, "evaluate_every": 20}
    fields = {"task": "detection", "network": network, "data": "bccd", "seed": seed, "num_classes": 3}
    write_json(folder / "config.json", fields | {"recipe": recipe})
    write_json(folder / "environment.json", [{"started": "2026-01-01"}])
    parts = ("rpn_class_loss", "rpn_box_loss", "class_loss", "box_loss")
    tested = {"map50": 0.0, "map": 0.0}
    for at in range(10, 41 if done else 31, 10):
        losses = {part: (place + 1) / at for place, part in enumerate(parts)}
        append_line(folder / "metrics.jsonl", {"iteration": at} | losses | {"train_loss": 10 / at, "lr": 0.001})
        append_line(folder / "timing.jsonl", {"iteration": at, "seconds": at / 2})
        if at % 20 == 0:
            tested = {"map50": 1.5 * at + seed, "map": 0.75 * at}
            append_line(folder / "metrics.jsonl", {"iteration": at} | tested)
    if done:
        final = {"iteration": 40, **losses, "train_loss": 0.25, **tested, "seconds": 20.0, "images_per_second": 4.0}
        write_json(folder / "done.json", final)
    return Run(folder)


def test_a_page_of_detectors_has_their_losses_their_precision_and_a_final_table(tmp_path):
    runs = [
        make_detection_run(tmp_path / "a"),
        make_detection_run(tmp_path / "b", seed=1),
        make_detection_run(tmp_path / "c", "faster-rcnn-vgg16", done=False),
    ]
    found = findings_of([run.path for run in runs])
    precision, proposals, regions = found.figures
    plain, residual = precision.panels
    assert (plain.title, residual.title, plain.unit) == ("Plain networks", "Residual networks", "%")
    (curve,) = residual.curves
    assert (curve.label, curve.depth, curve.seeds) == ("ResNet-50, Faster R-CNN", 50, 2)
    assert curve.series["mAP@.5"].x == (20, 40) and curve.series["mAP@.5"].y == (30.5, 60.5)
    assert curve.series["mAP@[.5,.95]"].y == (15, 30)
    assert list(proposals.panels[0].curves[0].series) == ["object or background", "box of the proposal"]
    assert list(regions.panels[0].curves[0].series) == ["class", "box", "training loss"]
    (table,) = found.tables
    assert (table.title, table.columns[4:]) == ("Final figures", ("training loss", "mAP@.5 (%)", "mAP@[.5,.95] (%)"))
    assert table.rows[1] == ("b", "ResNet-50, Faster R-CNN", 1, 40, 0.25, 61.0, 30.0)
    assert table.rows[2][3:] == (30, None, None, None)
    html = page.render(found)
    assert "<title>VGG-16, Faster R-CNN, mAP@.5: 30.00 % at iteration 20</title>" in html
    looks = [text.split('class="')[1].split('"')[0] for text in html.split('<span><svg viewBox="0 0 34 8">')[1:]]
    assert looks[:2] == ["bold", "bold-dashed"]


def test_a_detector_in_training_shows_its_newest_figures(tmp_path):
    found = Observer().progress(make_detection_run(tmp_path / "run", done=False))
    assert {figure.key: value for figure, value in found.figures.items()} == {
        "train_loss": pytest.approx(1 / 3), "map50": 30.0, "map": 15.0
    }  # fmt: skip


@pytest.mark.usefixtures("checked_types")
def test_a_damaged_figure_of_any_task_is_named(tmp_path):
    run = make_detection_run(tmp_path / "run")
    write_json(run.path / "done.json", run.done | {"map50": "high"})
    with pytest.raises(InputError, match=r"done.json, at map50: expected float, got str"):
        _ = run.done
    write_json(run.path / "done.json", {"iteration": 40, "seconds": 1.0, "train_loss": 1.0, "map": 2.0})
    with pytest.raises(InputError, match=r"done.json: it lacks map50"):
        _ = run.done
    append_line(run.path / "metrics.jsonl", {"iteration": 50, "class_loss": [1]})
    (run.path / "done.json").unlink()
    with pytest.raises(InputError, match="at class_loss: expected float, got array"):
        run.metrics()


def test_a_run_of_a_task_that_this_version_does_not_know_is_refused(tmp_path, refused):
    run = make_detection_run(tmp_path / "run")
    write_json(run.path / "config.json", run.config | {"task": "depth"})
    assert f"run is a run of the task 'depth', but this version knows {', '.join(REPORTED)}" in refused("report", "run")


def test_the_record_of_a_classification_names_no_task():
    """Runs of before go on under the same record."""
    assert "task" not in ClassificationConfig("resnet8", "cifar10").as_json()


def test_the_kinds_are_loaded_when_they_are_asked_for():
    code = (
        "import sys; from deepres.workflows import kinds, train\n"
        "print(any(name.startswith('deepres.classification') for name in sys.modules))\n"
        "kinds.kind('classification'); print('deepres.classification.kind' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "True"]
