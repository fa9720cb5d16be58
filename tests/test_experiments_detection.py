"""Tables 7 to 12: the lab sheets, their claims, and the smoke scale on a small folder of pictures with boxes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from box_folders import coco_json, picture, write_voc
from deepres.detection.kind import DETECTION
from deepres.detection.recipe import FASTER_RCNN
from deepres.models.catalog import build, depth
from deepres.paper.claims import close
from deepres.paper.detection import CLASSES, SHEETS, TABLE7, TABLE8, TABLE9, TABLE10, TABLE11, TABLE12, VOC_NAMES
from deepres.paper.detector_tables import RESNET, VGG, Printed
from deepres.paper.detectors import FINETUNED
from deepres.paper.plan import read_plan
from deepres.paper.sheet import Reproduction
from deepres.records import write_json
from deepres.runtime.errors import silent
from deepres.runtime.ranks import ALONE
from deepres.weights.file import serialise
from deepres.workflows.configure import configure
from det_folders import SYNSETS, write_det
from runs import run_deepres

NETWORKS = ["plain-8", "ResNet-8"]
STEPS = ["+ box refinement", "+ context", "+ multi-scale testing", "ensemble"]


@pytest.fixture(scope="module")
def boxes(tmp_path_factory):
    """A folder of PASCAL VOC with two of its classes: eight pictures to train on and three to test on."""
    box = (4, 5, 30, 25)
    objects = {f"{number:02}": [(("aeroplane", "cat")[number % 2], box)] for number in range(11)}
    sets = {"trainval": list(objects)[:8], "test": list(objects)[8:]}
    return write_voc(tmp_path_factory.mktemp("boxes"), objects, sets)


@pytest.fixture(scope="module")
def finished(boxes, kernels, tmp_path_factory):
    """The folder in which table9 was reproduced, and what the command printed. The tests change nothing in it."""
    place = tmp_path_factory.mktemp("finished")
    (place / "cache").mkdir()
    (place / "cache" / "kernels").symlink_to(kernels)
    command = ("reproduce", "table9", "--scale", "smoke", "--data", boxes, "--json")
    result = run_deepres(place, *command, DEEPRES_CACHE=str(place / "cache"))
    assert result.returncode == 0, result.stderr
    return place / "runs", json.loads(result.stdout)


def reproduced(deepres, finished, boxes, name, *more):
    result = deepres("reproduce", name, "--scale", "smoke", "--data", boxes, "--out", finished[0], "--json", *more)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def state(root):
    """When each file of a run or plan was written that holds a result."""
    files = [*root.rglob("done.json"), *root.rglob("*detections*.safetensors"), *root.rglob("weights.safetensors")]
    return {file: file.stat().st_mtime_ns for file in files}


def asked(scale, root, **fields):
    return Reproduction(scale, "boxes", fields, root, None, None, silent, None)  # pyright: ignore[reportArgumentType]


def weights(network, file):
    """Trained weights, as it were, of a classifier."""
    torch.manual_seed(0)
    net = build(network, 4)
    net.mean = torch.full((3, 1, 1), 0.5)
    file.write_bytes(serialise(net.state_dict(), net.mean, net.header))
    return file


@pytest.mark.long
def test_table9_has_each_improvement_in_a_row_beside_the_papers(finished):
    rows = {row["detector"]: row for row in finished[1]["tables"][0]["rows"]}
    assert list(rows) == [*NETWORKS, "VGG-16", "ResNet-101", *STEPS]
    assert [rows["ResNet-101"][column] for column in ("paper: val @.5", "paper: val @[.5,.95]")] == ["48.4", "27.2"]
    assert [rows["ensemble"][f"paper: test-dev {figure}"] for figure in ("@.5", "@[.5,.95]")] == ["59.0", "37.4"]
    for name in (*NETWORKS, *STEPS):
        assert 0 <= float(rows[name]["mAP@.5"]) <= 100
    assert rows["VGG-16"]["mAP@.5"] is None
    page = next(finished[0].glob("table9-smoke-*/report.html")).read_text()
    assert "plain-8 and ResNet-8 stand in for VGG-16 and ResNet-101" in page
    for number in ("48.4", "29.9", "53.3", "37.4"):
        assert f">{number}<" in page
    assert {verdict["status"] for verdict in finished[1]["verdicts"]} == {"not tested"}


@pytest.mark.long
def test_a_row_has_the_figures_that_eval_tells_of_its_test(finished, deepres):
    (root, printed), run = finished, "faster-rcnn-resnet8-context-seed0"
    folder = next(root.glob(f"*-smoke/{run}"))
    rows = {row["detector"]: row for row in printed["tables"][0]["rows"]}
    options = {"+ context": ("--refine",), "+ multi-scale testing": ("--refine", "--sides", "32,64,96,128,160")}
    for name, protocol in options.items():
        result = deepres("eval", folder, *protocol, "--json")
        assert "kept from an earlier test" in result.stderr
        coco = json.loads(result.stdout)["coco"]
        assert rows[name]["mAP@.5"] == f"{coco['map50']:.1f}"
        assert rows[name]["mAP@[.5,.95]"] == f"{coco['map']:.1f}"


@pytest.mark.long
def test_the_same_again_trains_and_tests_nothing_and_needs_no_network_for_the_page(finished, boxes, deepres):
    before = state(finished[0])
    assert len([file for file in before if file.name == "done.json"]) == 4
    assert reproduced(deepres, finished, boxes, "table9")["tables"] == finished[1]["tables"]
    assert state(finished[0]) == before
    plan = next(finished[0].glob("table9-smoke-*"))
    page = (plan / "report.html").read_text()
    folder = next(finished[0].glob("*-smoke/faster-rcnn-resnet8-seed0"))
    away = (folder / "checkpoints").rename(folder / "away")
    assert deepres("report", plan).returncode == 0
    assert (plan / "report.html").read_text() == page
    away.rename(folder / "checkpoints")


@pytest.mark.long
def test_the_other_tables_take_the_runs_of_table9(finished, boxes, deepres):
    before = state(finished[0])
    rows = {name: reproduced(deepres, finished, boxes, name)["tables"][0]["rows"] for name in ("table7", "table8")}
    assert [row["paper: VOC 2007"] for row in rows["table7"]] == [None, None, "73.2", "76.4"]
    assert [row["detector"] for row in rows["table7"]] == [*NETWORKS, "VGG-16", "ResNet-101"]
    assert [row["mAP@.5"] for row in rows["table8"][:2]] == [
        row["mAP@.5"] for row in finished[1]["tables"][0]["rows"][:2]
    ]
    assert state(finished[0]) == before


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "paper"), [("table10", ["76.4", "79.8", "89.8"]), ("table11", ["73.8", "86.5", "93.2"])]
)
def test_classes_stand_beside_the_papers_by_its_names(finished, boxes, deepres, name, paper):
    before = state(finished[0])
    table = reproduced(deepres, finished, boxes, name)["tables"][0]
    rows = {row["class"]: row for row in table["rows"]}
    assert list(rows)[:3] == ["mAP", "aero", "cat"] and len(rows) == 21
    paper = {"table10": ["76.4", "79.8", "89.8"], "table11": ["73.8", "86.5", "93.2"]}
    assert [rows[own]["paper: ResNet-101"] for own in ("mAP", "aero", "cat")] == paper[name]
    assert rows["dog"]["ResNet-8"] is None
    for column in (*NETWORKS, FINETUNED):
        values = [float(rows[own][column]) for own in ("mAP", "aero", "cat")]
        assert values[0] == pytest.approx(sum(values[1:]) / 2, abs=0.11)
    assert state(finished[0]) == before  # table9 has the test of all improvements


@pytest.mark.long
def test_table12_trains_on_half_of_val_and_tests_a_network_and_an_ensemble_on_the_other(deepres, tmp_path):
    box = (4, 5, 30, 25)
    train = {f"ILSVRC2013_train/{synset}/{synset}_1": [(synset, box)] for synset in SYNSETS}
    val = {f"ILSVRC2012_val_{number:08}": [(synset, box)] for number, synset in enumerate([*SYNSETS] * 2, start=1)}
    data = write_det(tmp_path / "ILSVRC", train, val)
    result = deepres("reproduce", "table12", "--scale", "smoke", "--data", data, "--json")
    assert result.returncode == 0, result.stderr
    assert "trained on train + val1, tested on val2" in result.stderr
    (table, runs) = json.loads(result.stdout)["tables"]
    rows = {row["detector"]: row for row in table["rows"]}
    assert list(rows) == ["ResNet-8", "single model", "ensemble", "GoogLeNet (ILSVRC'14)"]
    assert [rows["single model"][f"paper: {part}"] for part in ("val2", "test")] == ["60.5", "58.8"]
    assert [rows["ensemble"][f"paper: {part}"] for part in ("val2", "test")] == ["63.6", "62.1"]
    for name in ("ResNet-8", "single model", "ensemble"):
        assert 0 <= float(rows[name]["mAP@.5, ILSVRC"]) <= 100
    assert [row["run"].removeprefix("faster-rcnn-") for row in runs["rows"]] == [
        "resnet8-seed0",
        "resnet8-context-seed0",
        "resnet8-context-seed1",
    ]
    first = next(Path("runs").glob("*-smoke/faster-rcnn-resnet8-seed0"))
    evaluated = json.loads(deepres("eval", first, "--json").stdout)
    assert evaluated["images"] == 4 and f"{evaluated['map50_ilsvrc']:.1f}" == rows["ResNet-8"]["mAP@.5, ILSVRC"]


@pytest.mark.long
def test_detectors_start_from_trained_backbones_and_the_last_one_from_a_trained_detector(
    finished, boxes, deepres, tmp_path
):
    file = weights("resnet8", tmp_path / "backbone.safetensors")
    detector = next(finished[0].glob("*-smoke/faster-rcnn-resnet8-context-seed0"))
    given = ("--networks", f"{file},{detector}", "--out", "own")
    page = Path(reproduced(deepres, finished, boxes, "table10", *given)["page"]).read_text()
    assert "ResNet-8 from trained weights, with batch normalization fixed." in page
    runs = {place.name: json.loads((place / "config.json").read_text()) for place in Path("own").glob("*-smoke/*")}
    first, second = (f"faster-rcnn-resnet8{more}-trained" for more in ("", "-context"))
    assert set(runs) == {f"{first}-seed0", f"{second}-tuned-seed0"}
    assert runs[f"{first}-seed0"]["start_path"] == str(file)
    assert runs[f"{second}-tuned-seed0"]["start_path"] == str(detector)
    assert (
        runs[f"{second}-tuned-seed0"]["recipe"]["proposals"] == 2_000
    )  # of training, not those of the detector's test
    assert runs[f"{second}-tuned-seed0"]["context"] and runs[f"{first}-seed0"]["freeze"] == ["bn"]
    plan = read_plan(next(Path("own").glob("table10-*")))
    assert plan.starts == {"faster-rcnn-resnet8": str(file), FINETUNED: str(detector)}
    plain = next(finished[0].glob("*-smoke/faster-rcnn-resnet8-seed0"))
    result = deepres("reproduce", "table10", "--scale", "smoke", "--data", boxes, "--networks", f"{file},{plain}")
    assert "has no context" in result.stderr


def test_the_improved_network_is_the_best_residual_one(tmp_path):
    plan = TABLE9.plan("quick", "boxes", tmp_path, None, 1)
    for name, value in {"vgg16": 90.0, "resnet18": 40.0, "resnet50": 30.0}.items():
        assert TABLE9.improved(plan) is None
        assert [row.key for row in TABLE9.rows(plan)] == list(plan.networks)
        run = plan.run(f"faster-rcnn-{name}", 0)
        figures = {"iteration": 1, "seconds": 1.0, "train_loss": 1.0, "map50": value, "map": value / 2}
        write_json(run.path / "done.json", figures)
    assert TABLE9.improved(plan) == "faster-rcnn-resnet18"
    rows = TABLE9.rows(plan)
    assert [row.key for row in rows] == [*plan.networks, *STEPS]
    assert [[run.path.name.removeprefix("faster-rcnn-") for run in row.runs] for row in rows[3:]] == [
        ["resnet18-seed0"],
        ["resnet18-context-seed0"],
        ["resnet18-context-seed0"],
        ["resnet18-context-seed0", "resnet18-context-seed1"],
    ]


@pytest.mark.parametrize("name", [sheet.name for sheet in SHEETS])
def test_pictures_with_boxes_must_be_named(refused, name):
    assert "give --data" in refused("reproduce", name)


def test_options_of_classifiers_and_unknown_backbones_are_refused(refused, boxes):
    assert "--image-size is for classifiers" in refused("reproduce", "table7", "--data", boxes, "--image-size", 32)
    assert "resnet57" in refused("reproduce", "table7", "--data", boxes, "--networks", "resnet57")
    assert "absent.pth" in refused("reproduce", "table7", "--data", boxes, "--networks", "absent.pth")
    assert not Path("runs").exists()


def test_the_papers_scale_asks_for_trained_weights(refused, boxes, tmp_path):
    command = ("--scale", "paper", "--data", boxes)
    assert "--networks vgg16.pth,resnet101.pth" in refused("reproduce", "table7", *command)
    file = weights("resnet8", tmp_path / "backbone.safetensors")
    assert "trained on COCO" in refused("reproduce", "table11", *command, "--networks", file)


def test_the_papers_scale_has_the_recipe_of_faster_rcnn(tmp_path, monkeypatch):
    """On VOC a run made by `train detector` is taken as it is."""
    monkeypatch.chdir(tmp_path)
    file = weights("resnet8", tmp_path / "backbone.safetensors")
    made = {}
    for sheet in SHEETS:
        plan = sheet.plan("paper", "boxes", tmp_path, str(file), 1)
        made[sheet.name] = sheet.config(plan, "faster-rcnn-resnet8", 0, asked("paper", tmp_path), context=False)
    voc = {"network": "detector", "backbone": str(file), "data": "boxes", "train_set": "07+12", "test_images": 500}
    assert made["table7"] == made["table10"] == configure([], "faster-rcnn", voc)
    assert made["table7"].recipe == FASTER_RCNN and made["table7"].freeze == ("bn",) and made["table7"].side == 600
    assert made["table11"].train_set == "07++12"
    coco = made["table8"]
    assert made["table12"] == replace(coco, train_set="train,val1", test_set="val2")
    assert made["table9"] == coco and (coco.train_set, coco.test_set) == ("train2014", "val2014")
    assert (coco.recipe.iterations, coco.recipe.milestones, coco.recipe.batch_size) == (320_000, (240_000,), 8)
    assert (coco.recipe.lr, coco.recipe.weight_decay, coco.recipe.regions) == (0.001, 5e-4, 128)


def test_the_papers_scale_finds_its_sets_in_the_folders_of_coco(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file, root = weights("resnet8", tmp_path / "backbone.safetensors"), tmp_path / "coco"
    for first, edition in ((1, "train2014"), (3, "val2014"), (1, "train2017")):
        objects = {f"{edition}{number}.jpg": [("cat", (4, 5, 30, 25))] for number in range(2)}
        for name in objects:
            picture(root / edition / name)
        coco_json(root / "annotations" / f"instances_{edition}.json", objects, {"cat": 17}, first)
    plan = TABLE9.plan("paper", "coco", tmp_path, str(file), 1)
    config = TABLE9.config(plan, "faster-rcnn-resnet8", 0, asked("paper", tmp_path))
    train, test = DETECTION.load_source(config, silent, ALONE)
    assert [name.rpartition("/")[2] for name in train.names] == ["train20140.jpg", "train20141.jpg"]
    assert [name.rpartition("/")[2] for name in test.names] == ["val20140.jpg", "val20141.jpg"]


def test_runs_on_other_sets_of_voc_have_folders_of_their_own(tmp_path):
    names = {
        sheet.name: sheet.run(sheet.plan("paper", "VOCdevkit", tmp_path, None, 1), "faster-rcnn-resnet101", 0).path.name
        for sheet in (TABLE7, TABLE10, TABLE11)
    }
    assert names["table7"] == names["table10"] == "faster-rcnn-resnet101-seed0"
    assert names["table11"] == "faster-rcnn-resnet101-07++12-seed0"


def test_a_quick_network_without_bn_takes_a_tenth_of_the_rate(tmp_path, boxes):
    plan = TABLE7.plan("quick", str(boxes), tmp_path, None, 1)
    rates = [TABLE7.config(plan, name, 0, asked("quick", tmp_path)).recipe.lr for name in plan.networks]
    assert rates == [pytest.approx(0.001), 0.01, 0.01]
    config = TABLE7.config(plan, plan.networks[1], 3, asked("quick", tmp_path, device="cpu"), context=True)
    assert (config.recipe.iterations, config.side, config.seed, config.device) == (300, 256, 3, "cpu")
    assert (config.proposals, config.recipe.proposals, config.region_size) == (100, 2_000, 7)
    assert config.context and config.freeze == ()


def test_the_sheets_plan_the_papers_networks_and_their_claims_name_their_rows():
    for sheet in SHEETS:
        assert sheet.networks["paper"] == (("resnet101",) if sheet is TABLE12 else ("vgg16", "resnet101"))
        assert all(depth(network) for scale in sheet.networks.values() for network in scale)
        known = {RESNET, VGG, "faster-rcnn-resnet101", *(step.label for step in sheet.steps)}
        for claim in sheet.claims:
            assert set(claim.networks) <= known, claim.text


def test_the_sheets_hold_the_papers_numbers():
    assert TABLE7.printed.numbers["faster-rcnn-resnet101"] == (76.4, 73.8)
    assert TABLE8.printed.numbers[VGG] == TABLE9.printed.numbers[VGG][:2] == (41.5, 21.2)
    assert TABLE9.printed.numbers["+ multi-scale testing"] == (53.8, 32.5, 55.7, 34.9)
    for sheet, place in ((TABLE10, 0), (TABLE11, 1)):
        for row in sheet.printed.values():
            assert sum(row[name] for name in CLASSES[1:]) / 20 == pytest.approx(row["mAP"], abs=0.051)
        assert [sheet.printed[key]["mAP"] for key in TABLE7.printed.numbers] == [
            both[place] for both in TABLE7.printed.numbers.values()
        ]
    assert TABLE10.printed[FINETUNED]["mAP"] == 85.6 and TABLE11.printed[FINETUNED]["tv"] == 80.0
    assert TABLE12.printed.numbers["ensemble"] == (63.6, 62.1)
    assert set(VOC_NAMES.values()) <= set(CLASSES)


@pytest.mark.parametrize("sheet", SHEETS, ids=lambda sheet: sheet.name)
def test_the_papers_own_figures_hold_every_claim_about_them(sheet):
    """What the sheets ask of us holds for what the paper prints, so that no claim is turned around."""
    results = {}
    printed = sheet.printed.numbers if isinstance(sheet.printed, Printed) else sheet.printed
    for key, row in printed.items():
        if isinstance(row, dict):
            figures = {sheet.rule: row["mAP"]}
        else:
            ours = zip(sheet.figures, row[2:] if key == "ensemble" and len(row) > 2 else row, strict=False)
            figures = {name: value for name, value in ours if value is not None}
        classes = 80 if "COCO" in sheet.title else 200 if sheet is TABLE12 else 20
        results[key] = [figures | {"classes": classes}]
    results[RESNET] = results.get("faster-rcnn-resnet101", [])
    for claim in sheet.claims:
        assert claim.verdict(results, "paper").status == "held", claim.text
        if "paper" in claim.scales and "quick" in claim.scales and claim.networks[0] == RESNET:
            turned = results | {RESNET: results[VGG], VGG: results[RESNET]}
            assert claim.verdict(turned, "quick").status == "not held"


def test_figures_are_the_papers_within_a_point():
    judge = close({"net": {"map50": 50.0, "map": 30.0}}, within=1.0)
    assert judge({"net": [{"map50": 50.9, "map": 29.1}]})[0]
    held, detail = judge({"net": [{"map50": 50.0, "map": 31.2}]})
    assert not held and "net, mAP@[.5,.95] (%) 31.20, printed 30.00" in detail
