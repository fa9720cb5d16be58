"""Tables 13 and 14: the lab sheets, their claims, and the smoke scale on pictures with one object."""

import json

import pytest
import torch

from deepres.models.catalog import build
from deepres.paper.localization import SHEETS, TABLE13, TABLE14
from deepres.paper.localizers import DENSE, ENSEMBLE, ONE_CROP, RCNN
from deepres.paper.sheet import Reproduction
from deepres.runtime.errors import InputError, silent
from deepres.weights.file import serialise
from one_object import write_pictures
from runs import run_deepres


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("pictures"), 6, 2)


@pytest.fixture(scope="module")
def finished(pictures, tmp_path_factory):
    """The folder in which table13 was reproduced, and what the command printed. The tests change nothing in it."""
    place = tmp_path_factory.mktemp("finished")
    result = run_deepres(place, "reproduce", "table13", "--scale", "smoke", "--data", pictures, "--json")
    assert result.returncode == 0, result.stderr
    return place / "runs", json.loads(result.stdout)


@pytest.mark.long
def test_table13_has_ours_beside_the_papers_with_intervals(finished):
    rows = {row["method"]: row for row in finished[1]["tables"][0]["rows"]}
    steps = [step.label for step in (ONE_CROP, DENSE, RCNN, ENSEMBLE)]
    assert list(rows) == ["box in the middle of the picture", "VGG's, 1-crop", *steps]
    assert [rows[DENSE.label][f"paper: {name}"] for name in ("class given", "top-5, predicted")] == ["11.7", "14.4"]
    assert rows["VGG's, 1-crop"]["class given"] is None
    for label in steps:
        for column in ("class given", "top-5, predicted"):
            assert "(" in rows[label][column] and " to " in rows[label][column]
    assert {verdict["status"] for verdict in finished[1]["verdicts"]} == {"not tested"}
    page = next(finished[0].glob("table13-smoke-*/report.html")).read_text()
    for number in ("33.1", "13.3", "11.7", "14.4", "10.6", "8.9"):
        assert f">{number}<" in page


@pytest.mark.long
def test_table14_takes_the_runs_of_table13(finished, pictures, deepres):
    before = {file: file.stat().st_mtime_ns for file in finished[0].rglob("done.json")}
    result = deepres("reproduce", "table14", "--scale", "smoke", "--data", pictures, "--out", finished[0], "--json")
    assert result.returncode == 0, result.stderr
    assert {file: file.stat().st_mtime_ns for file in finished[0].rglob("done.json")} == before
    found = {row["method"]: row for row in json.loads(result.stdout)["tables"][0]["rows"]}
    assert found["GoogLeNet (ILSVRC'14)"]["paper: val"] is None
    assert found[ENSEMBLE.label]["paper: test"] == "9.0"
    of13 = {row["method"]: row for row in finished[1]["tables"][0]["rows"]}
    assert found[ENSEMBLE.label]["ours"] == of13[ENSEMBLE.label]["top-5, predicted"]


def results(**errors):
    return {
        label: [dict(zip(("loc_given", "loc_top5"), own, strict=True)) | {"classes": 1000}]
        for label, own in errors.items()
    }


def test_the_claims_hold_for_the_papers_numbers_and_not_for_turned_ones():
    ours = {
        ONE_CROP.label: (13.3, 15.0),
        DENSE.label: (11.7, 14.4),
        RCNN.label: (9.0, 10.6),
        ENSEMBLE.label: (8.0, 8.9),
    }
    verdicts = [claim.verdict(results(**ours), "paper").status for claim in TABLE13.claims]
    assert verdicts == ["held"] * 4
    turned = dict(zip(ours, reversed(ours.values()), strict=True))
    assert [claim.verdict(results(**turned), "paper").status for claim in TABLE13.claims] == ["not held"] * 4
    assert TABLE14.claims[0].verdict(results(**ours), "paper").status == "held"


@pytest.mark.parametrize("sheet", SHEETS, ids=lambda sheet: sheet.name)
def test_what_a_sheet_cannot_take_is_refused_in_a_sentence(sheet, tmp_path):
    def asked(scale, networks=None, data="data", **fields):
        return Reproduction(scale, data, fields, tmp_path, networks, None, silent, None)  # pyright: ignore[reportArgumentType]

    detector = build("faster-rcnn-resnet8", 2)
    file = tmp_path / "net.safetensors"
    file.write_bytes(serialise(detector.state_dict(), torch.full((3, 1, 1), 0.5), detector.header))
    for given, told in (
        (asked("smoke", data=None), "pictures with objects of one class"),
        (asked("smoke", "resnet8,resnet18"), "takes one backbone, not 2"),
        (asked("smoke", str(file)), "is no classifier"),
        (asked("paper"), "starts from weights that were trained on ImageNet"),
        (asked("smoke", split="1/1"), "--split is for classifiers"),
    ):
        with pytest.raises(InputError, match=told):
            sheet.reproduce(given)
