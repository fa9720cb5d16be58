"""Claims, plans that go on where they stopped, and the experiments at the smoke scale through the command line."""

import json

import pytest

from deepres.findings import Curve, Figure, Findings, Panel, Series
from deepres.models.catalog import depth
from deepres.paper.cifar import FIG6, QUICK, SHEETS, recipe_of
from deepres.paper.claims import Claim, beyond, higher, not_higher
from deepres.paper.plan import read_plan
from deepres.paper.reproduce import SHEETS as ALL_SHEETS
from deepres.paper.sheet import Experiment, Sheet
from deepres.runtime.errors import InputError


def errors(*values):
    return [{"train_error": value, "test_error": value} for value in values]


def test_a_claim_holds_only_where_every_seed_shows_the_margin():
    claim = Claim("deeper is worse", "Fig. 6", ("deep", "shallow"), higher("train_error", "deep", "shallow", 1.0))
    held = claim.verdict({"deep": errors(50, 52), "shallow": errors(40, 41)}, "quick")
    assert held.status == "held"
    assert "deep 51.0, shallow 40.5 (2 seeds; differences +10.0, +11.0)" in held.detail
    assert claim.verdict({"deep": errors(50, 41.5), "shallow": errors(40, 41)}, "quick").status == "not held"


def test_networks_are_compared_at_the_seeds_that_both_have_finished():
    claim = Claim("deeper is worse", "Fig. 6", ("deep", "shallow"), higher("train_error", "deep", "shallow", 0.5))
    deep = [row | {"place": place} for row, place in zip(errors(50, 10), (0, 2), strict=True)]
    shallow = [row | {"place": place} for row, place in zip(errors(49, 20, 9), (0, 1, 2), strict=True)]
    verdict = claim.verdict({"deep": deep, "shallow": shallow}, "quick")
    assert verdict.status == "held" and "2 seeds; differences +1.0, +1.0" in verdict.detail
    verdict = claim.verdict({"deep": deep[1:], "shallow": shallow[:2]}, "quick")
    assert verdict.status == "not tested" and "no seed at which" in verdict.detail


@pytest.mark.usefixtures("checked_types")
@pytest.mark.parametrize(
    "text", ["{}", "[]", '{"experiment": "fig9", "scale": "quick", "data": "x", "networks": [], "seeds": 1}', "{"]
)
def test_a_damaged_plan_is_told_in_one_sentence(refused, tmp_path, text):
    (tmp_path / "plan.json").write_text(text)
    assert "plan" in refused("report", ".")


@pytest.mark.usefixtures("checked_types")
def test_a_damaged_run_is_told_in_one_sentence(refused, tmp_path):
    (tmp_path / "config.json").write_text("[]")
    assert "expected object, got array" in refused("report", ".")
    (tmp_path / "config.json").write_text('{"network": "resnet8", "data": "x", "seed": 0}')
    (tmp_path / "metrics.jsonl").write_text('{"train_error": 1.0}\n')
    assert "metrics.jsonl is damaged" in refused("report", ".")


def test_the_papers_scale_asks_for_the_papers_seeds(refused, monkeypatch):
    asked = []

    def stop(sheet, scale, data, root, networks, seeds):
        asked.append(seeds)
        raise InputError("enough")

    monkeypatch.setattr(Experiment, "plan", stop)
    for scale in ("paper", "quick"):
        refused("reproduce", "table6", "--scale", scale)
    assert asked == [5, 1]


def test_a_claim_is_not_tested_at_a_smaller_scale_or_without_its_networks():
    claim = Claim("deeper is worse", "Fig. 6", ("deep", "shallow"), higher("train_error", "deep", "shallow", 1.0))
    assert claim.verdict({"deep": errors(50), "shallow": errors(40)}, "smoke").status == "not tested"
    missing = claim.verdict({"deep": errors(50), "shallow": []}, "paper")
    assert (missing.status, missing.detail) == ("not tested", "no finished run of shallow")


def test_a_bounded_loss_is_allowed_up_to_its_margin():
    judge = not_higher("train_error", "deep", "shallow", 5.0)
    assert judge({"deep": errors(44), "shallow": errors(40)})[0]
    assert not judge({"deep": errors(46), "shallow": errors(40)})[0]


def test_a_bound_is_kept_on_its_side():
    assert beyond("train_error", "net", 60.0, below=False)({"net": errors(61)})[0]
    assert not beyond("train_error", "net", 0.1, below=True)({"net": errors(0.2)})[0]


def test_every_sheet_names_networks_that_exist_and_claims_that_its_paper_scale_can_test():
    for sheet in SHEETS:
        for networks in sheet.networks.values():
            assert all(depth(network) for network in networks)
        for claim in sheet.claims:
            assert set(claim.networks) <= set(sheet.networks["paper"]), claim.text


def test_the_quick_recipe_is_the_same_for_all_networks(tmp_path):
    plan = FIG6.plan("quick", "cifar10", tmp_path, None, 3)
    assert [plan.run(name, 2).path.name for name in plan.networks][-1] == "resnet56-seed2"
    assert QUICK.warmup == "linear" and {recipe_of("quick", name) for name in plan.networks} == {QUICK}
    plan.save()
    assert read_plan(plan.folder) == plan


def test_a_plan_of_an_unknown_network_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(InputError, match="resnet57"):
        FIG6.plan("smoke", "cifar10", tmp_path, "plain8,resnet57", 1)


def test_fig6_at_the_smoke_scale_makes_a_page_and_runs_nothing_twice(deepres, folder, tmp_path):
    command = ("reproduce", "fig6", "--scale", "smoke", "--data", folder, "--seeds", 2, "--networks", "plain8,resnet8")
    first = deepres(*command)
    assert first.returncode == 0, first.stderr
    plan = next((tmp_path / "runs").glob("fig6-smoke-*"))
    page = (plan / "report.html").read_text()
    assert page.index("No claim was tested") < page.index("not tested") < page.index("<figure")
    runs = sorted(place for place in (tmp_path / "runs").glob("*-smoke/*"))
    assert [run.name for run in runs] == ["plain8-seed0", "plain8-seed1", "resnet8-seed0", "resnet8-seed1"]
    (runs[3] / "done.json").unlink()  # as if the plan had been killed in its last run
    before = [(run / "done.json").stat().st_mtime_ns for run in runs[:3]]
    again = deepres(*command, "--json")
    assert again.returncode == 0, again.stderr
    assert [(run / "done.json").stat().st_mtime_ns for run in runs[:3]] == before
    assert (runs[3] / "done.json").exists()
    page = (plan / "report.html").read_text()
    assert {verdict["status"] for verdict in json.loads(again.stdout)["verdicts"]} == {"not tested"}
    other = deepres("report", plan, "--out", tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text() == page, other.stderr


def test_fig7_and_table6_share_the_runs_of_a_scale(deepres, folder, tmp_path):
    common = ("--scale", "smoke", "--data", folder, "--networks", "resnet8")
    assert deepres("reproduce", "table6", *common).returncode == 0
    (done,) = (tmp_path / "runs").glob("*-smoke/resnet8-seed0/done.json")
    before = done.stat().st_mtime_ns
    result = deepres("reproduce", "fig7", *common)
    assert result.returncode == 0, result.stderr
    assert done.stat().st_mtime_ns == before
    responses = json.loads((done.parent / "responses.json").read_text())
    assert len(responses) == 7  # 8 layers less the fully connected one
    assert all(value > 0 for value in responses.values())


class Detection(Sheet):
    """A sheet of another task, of which nothing else knows."""

    def reproduce(self, order):
        """A folder, and what was found."""
        return order.root / self.name, self.findings(None)

    def findings(self, plan):
        """A curve that is no error."""
        curve = Curve("detector", 101, "residual", {"mAP": Series((10, 20), (50.0, 60.0))})
        return Findings(self.title, "", figures=(Figure("Detection", "", (Panel("boxes", (curve,), value="mAP"),)),))


def test_a_sheet_of_another_kind_needs_a_place_in_the_list_and_nothing_else(deepres, refused, tmp_path, monkeypatch):
    monkeypatch.setitem(ALL_SHEETS, "table7", Detection(name="table7", title="Table 7: detection"))
    assert json.loads(deepres("reproduce", "table7", "--json").stdout)["title"] == "Table 7: detection"
    assert "detector, mAP: 60.00 % at iteration 20" in (tmp_path / "runs" / "table7" / "report.html").read_text()
    assert "did you mean table7?" in refused("reproduce", "tablet7")


def test_table1_needs_no_runs(deepres):
    result = deepres("reproduce", "table1")
    assert "11,282,415,616" in result.stdout, result.stderr


def test_a_report_of_bare_runs_needs_no_plan(deepres, folder, tmp_path):
    run = tmp_path / "bare"
    assert (
        deepres("train", "resnet8", "--data", folder, "--iterations", 2, "--batch-size", 4, "--run", run).returncode
        == 0
    )
    assert deepres("report", run).returncode == 0
    assert "ResNet-8" in (run / "report.html").read_text()
