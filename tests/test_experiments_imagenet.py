"""Figure 4 and Tables 2 to 5: the lab sheets, their claims, and the smoke scale on tiny pictures."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from deepres.classification import score_table
from deepres.classification.recipe import IMAGENET
from deepres.models.catalog import depth
from deepres.paper.claims import Claim, ordered, printed
from deepres.paper.imagenet import SHEETS, SINGLE, TABLE2, TABLE3, TABLE4, TABLE5, TRAINING
from deepres.paper.photographs import BEST_MEMBER, QUICK, SMOKE, recipe_of
from deepres.paper.plan import SCALES, read_plan
from deepres.workflows.configure import configure
from runs import run_deepres

NETWORKS = "plain18,resnet18-a"
NAMES_OF_TABLE_2, SIX = (sheet.networks["paper"] for sheet in (TABLE2, TABLE5))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Seven classes of pictures of different sizes, four to train and two to test of each."""
    root = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(0)
    for part, count in (("train", 4), ("test", 2)):
        for label in range(7):
            folder = root / part / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(count):
                height, width = random.integers(40, 70, 2)
                pixels = random.integers(30 * label, 30 * label + 60, (height, width, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def finished(photographs, kernels, tmp_path_factory):
    """The folder in which table2 was reproduced, and what the command printed."""
    place = tmp_path_factory.mktemp("finished")
    (place / "cache").mkdir()
    (place / "cache" / "kernels").symlink_to(kernels)
    command = ("reproduce", "table2", "--scale", "smoke", "--data", photographs, "--networks", NETWORKS, "--json")
    result = run_deepres(place, *command, DEEPRES_CACHE=str(place / "cache"))
    assert result.returncode == 0, result.stderr
    return place / "runs", json.loads(result.stdout)


def place_of(finished, photographs, run):
    return finished[0] / f"{photographs.name}-smoke" / run


def reproduced(deepres, finished, photographs, name, networks):
    options = ("--scale", "smoke", "--data", photographs, "--networks", networks, "--out", finished[0], "--json")
    result = deepres("reproduce", name, *options)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.long
def test_table2_shows_ours_with_intervals_beside_the_papers(finished, photographs, deepres):
    table, every = finished[1]["tables"]
    plain, residual = table["rows"]
    assert (plain["network"], plain["paper: top-1"]) == ("plain-18", 27.94)
    assert (residual["network"], residual["paper: top-1"]) == ("ResNet-18 A", 27.88)
    run = place_of(finished, photographs, "plain18-seed0")
    report = json.loads(deepres("eval", run, "--protocol", "10-crop", "--json").stdout)
    low, high = report["top1_interval"]
    assert plain["top-1 error"] == f"{report['top1_error']:.2f} ({low:.2f} to {high:.2f})"
    done = json.loads((run / "done.json").read_text())
    assert every["rows"][0]["test error"] == done["test_error"]
    assert every["rows"][0]["run"] == "plain18-seed0"


@pytest.mark.long
def test_nothing_of_the_paper_is_tested_at_the_smoke_scale(finished):
    verdicts = finished[1]["verdicts"]
    assert {verdict["status"] for verdict in verdicts} == {"not tested"}
    assert all(verdict["detail"].startswith("not tested at this scale") for verdict in verdicts)
    assert "The errors are those of Table 2." in [verdict["claim"] for verdict in verdicts]


@pytest.mark.long
def test_a_table_is_made_again_from_scores_without_the_networks(finished, photographs, deepres):
    folder = finished[0] / f"table2-smoke-{photographs.name}"
    checkpoints = place_of(finished, photographs, "plain18-seed0") / "checkpoints"
    away = checkpoints.rename(checkpoints.with_name("away"))
    again = reproduced(deepres, finished, photographs, "table2", NETWORKS)
    assert again["tables"] == finished[1]["tables"]
    page = (folder / "report.html").read_text()
    assert deepres("report", folder).returncode == 0
    assert (folder / "report.html").read_text() == page
    assert "As in Figure 4 of the paper" in page
    away.rename(checkpoints)


@pytest.mark.long
def test_scores_that_are_missing_are_made_again(finished, photographs, deepres):
    file = place_of(finished, photographs, "resnet18-a-seed0") / "scores-10-crop.safetensors"
    before = score_table.read_scores(file).members[0].scores.clone()
    file.write_bytes(file.read_bytes()[:-1])  # one that is damaged, too
    assert reproduced(deepres, finished, photographs, "table2", NETWORKS)["tables"] == finished[1]["tables"]
    file.unlink()
    assert reproduced(deepres, finished, photographs, "table2", NETWORKS)["tables"] == finished[1]["tables"]
    assert torch.equal(score_table.read_scores(file).members[0].scores, before)


@pytest.mark.long
def test_scores_of_another_test_are_made_again(finished, photographs, deepres):
    run = place_of(finished, photographs, "resnet18-a-seed0")
    file = run / "scores-10-crop.safetensors"
    table = score_table.read_scores(file)
    other = dataclasses.replace(table.members[0], scores=table.members[0].scores.flip(1), facts={"crop": 32})
    score_table.write_scores(file, dataclasses.replace(table, members=(other,)))
    assert reproduced(deepres, finished, photographs, "table2", NETWORKS)["tables"] == finished[1]["tables"]
    fewer = [dataclasses.replace(table.members[0], scores=table.members[0].scores[:3])]
    score_table.write_scores(
        file, score_table.ScoreTable(table.data, table.names[:3], table.labels[:3], table.classes, tuple(fewer))
    )
    assert reproduced(deepres, finished, photographs, "table2", NETWORKS)["tables"] == finished[1]["tables"]


def test_a_run_made_by_train_is_the_papers_of_reproduce():
    """Weeks of torchrun on several GPUs are taken as they are."""
    for network in (*SINGLE, "vgg16", "googlenet", "prelu-net"):
        own = configure([], "imagenet", {"network": network, "data": "photos"})
        assert own.recipe == recipe_of("paper", network)
    assert recipe_of("paper", "vgg16").lr == pytest.approx(0.01)
    assert configure([], None, {"network": "vgg16", "data": "photos", "lr": 0.05}).recipe.lr == 0.05


@pytest.mark.long
def test_fig4_takes_the_runs_of_table2_and_tests_center_crops(finished, photographs, deepres):
    runs = [place_of(finished, photographs, f"{name}-seed0") for name in NETWORKS.split(",")]
    before = [(run / "done.json").stat().st_mtime_ns for run in runs]
    (every,) = reproduced(deepres, finished, photographs, "fig4", NETWORKS)["tables"]
    assert [(run / "done.json").stat().st_mtime_ns for run in runs] == before
    for row in every["rows"]:
        assert row["center: top-1"].startswith(f"{row['test error']:.2f} (")


@pytest.mark.long
def test_table5_averages_networks_of_different_depth_two_of_one_kind(finished, photographs, deepres):
    networks = "resnet18-a,plain18,resnet18-a"
    table, every = reproduced(deepres, finished, photographs, "table5", networks)["tables"]
    names = ["resnet18-a-seed0", "resnet18-a-seed1", "plain18-seed0"]
    assert [row["run"] for row in every["rows"]] == names
    files = [place_of(finished, photographs, name) / "scores-dense.safetensors" for name in names]
    report = json.loads(deepres("eval", *files, "--json").stdout)
    best, ensemble, *others = table["rows"]
    assert ensemble["network"] == "ensemble of 3"
    assert ensemble["paper: top-5"] == 3.57
    assert ensemble["top-1 error"].startswith(f"{report['top1_error']:.2f} (")
    assert best["top-1 error"].startswith(f"{min(own['top1_error'] for own in report['members']):.2f} (")
    assert [row["network"] for row in others] == list(TABLE5.others)


@pytest.mark.long
def test_an_interrupted_plan_shows_what_there_is(finished, photographs, tmp_path):
    source = finished[0] / f"{photographs.name}-smoke" / "plain18-seed0"
    plan = TABLE2.plan("smoke", str(photographs), tmp_path, NETWORKS, 1)
    plan.save()
    shutil.copytree(source, plan.run("plain18", 0).path, ignore=shutil.ignore_patterns("checkpoints"))
    shown = TABLE2.show(read_plan(plan.folder))
    plain, residual = shown.tables[0].rows
    assert plain[2] is not None
    assert residual[2] is None
    assert shown.results["resnet18-a"] == []


@pytest.mark.parametrize("name", [sheet.name for sheet in SHEETS])
def test_photographs_must_be_named(refused, name):
    assert "give --data" in refused("reproduce", name)


def test_every_row_is_planned_at_every_scale():
    for sheet in SHEETS:
        assert len({sheet.networks[scale] for scale in SCALES}) == 1
        known = {*sheet.networks["paper"], *(BEST_MEMBER if sheet is TABLE5 else ())}
        assert all(depth(network) for network in sheet.networks["paper"])
        assert set(sheet.printed or ()) <= known
        for claim in sheet.claims:
            assert set(claim.networks) <= known, claim.text
    assert (len(SIX), SIX.count("resnet152")) == (6, 2)
    assert {*TABLE3.networks["paper"]} <= {"vgg16", "googlenet", "prelu-net", *NAMES_OF_TABLE_2, *SIX}
    assert {*TABLE4.networks["paper"]} == {*SIX}


def test_the_sheets_hold_the_papers_numbers():
    assert TABLE2.printed["plain34"] == (28.54, None)
    assert TABLE3.printed["prelu-net"] == (24.27, 7.38)
    assert TABLE3.printed["googlenet"] == (None, 9.15)
    assert TABLE4.printed["resnet152"] == (19.38, 4.49)
    assert TABLE5.printed["ensemble"] == (None, 3.57)
    assert TABLE4.others["BN-inception"] == (21.99, 5.81)
    assert {name: TABLE3.printed[name][0] for name in ("plain34", "resnet34-a")} == {
        name: TABLE2.printed[name][0] for name in ("plain34", "resnet34-a")
    }


@pytest.mark.parametrize("sheet", [TABLE2, TABLE3, TABLE4], ids=lambda sheet: sheet.name)
def test_the_papers_own_errors_hold_every_claim_about_them(sheet):
    """What the sheets ask of us holds for what the paper prints, so that no claim is turned around."""
    results = {
        network: [{"top1": top1, "top5": top5, "classes": 1000}] for network, (top1, top5) in sheet.printed.items()
    }
    tested = [claim for claim in sheet.claims if "training error" not in claim.text]
    assert len(tested) >= 3
    for claim in tested:
        assert claim.verdict(results, "paper").status == "held", claim.text


def test_the_papers_errors_are_for_imagenet_alone():
    claim = Claim("The same.", "Table 2", ("plain18",), printed({"plain18": (27.94, None)}), ("paper",), classes=1000)
    verdict = claim.verdict({"plain18": [{"top1": 28.0, "classes": 5}]}, "paper")
    assert (verdict.status, verdict.detail) == ("not tested", "the data have 5 classes, ImageNet has 1,000")


def test_errors_are_the_papers_within_a_point_and_half_a_point():
    judge = printed({"plain34": (28.54, 10.02)})
    assert judge({"plain34": [{"top1": 29.5, "top5": 10.0}]})[0]
    held, detail = judge({"plain34": [{"top1": 29.0, "top5": 10.6}]})
    assert not held
    assert "plain-34, top-5 error (%) 10.60, printed 10.02" in detail


def test_an_order_holds_where_every_seed_shows_it():
    judge = ordered("top1", "plain34", "resnet34-a", "resnet34-b")
    rows = {"plain34": (28, 29), "resnet34-a": (25, 26), "resnet34-b": (24, 24)}
    held, detail = judge({name: [{"top1": value} for value in values] for name, values in rows.items()})
    assert held
    assert "plain-34 28.50, ResNet-34 A 25.50, ResNet-34 B 24.00" in detail
    rows["resnet34-b"] = (24, 27)
    assert not judge({name: [{"top1": value} for value in values] for name, values in rows.items()})[0]


def test_at_the_quick_scale_a_hair_is_no_difference():
    """Of 650 test images and a few hundred training images."""
    rows = {"plain34": [{"train_error": 60.2}], "plain18": [{"train_error": 60.0}]}
    assert TRAINING[0].verdict(rows, "quick").status == "not held"
    assert TRAINING[0].verdict(rows, "paper").status == "held"
    assert TRAINING[0].verdict(rows | {"plain34": [{"train_error": 65.2}]}, "quick").status == "held"


def test_the_scales_keep_the_proportions_of_the_papers_recipe():
    assert recipe_of("paper", "resnet152") == IMAGENET
    for recipe in (QUICK, SMOKE):
        assert recipe.sides == tuple(round(side * recipe.crop / 224) for side in (256, 480))
        assert (recipe.colour, recipe.weight_decay, recipe.momentum) == (0.1, 1e-4, 0.9)
    assert recipe_of("paper", "vgg16").lr == pytest.approx(0.01)
    assert recipe_of("quick", "vgg16-bn") == recipe_of("quick", "googlenet") == QUICK
