"""What a run remembers of its pictures: it is tested on none that it was trained on, and what changed is told."""

import json
import shutil
import tarfile
from pathlib import Path

import pytest
import torch

import images
from deepres.data.sources import find_data_set
from deepres.models.catalog import build
from deepres.weights.file import read_file, serialise

SHORT = ("--iterations", 4, "--batch-size", 8)
CROPS = ("resnet18", "--set", "crop=8", "--set", "sides=8,12", "--set", "workers=0")


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Two classes of 20 pictures in the folder of the test."""
    return images.write_folder(tmp_path / "pets", {"cat": 20, "dog": 20})


@pytest.fixture
def run(deepres, pets: Path, tmp_path: Path) -> Path:
    """A run that was trained on `pets`, named as from the folder of the test."""
    assert deepres("train", "resnet8", "--data", "pets", *SHORT, "--run", "run").returncode == 0
    return tmp_path / "run"


def report_of(deepres, *arguments, precision="fp32"):
    """The report of `eval`, and what it said."""
    result = deepres("eval", *arguments, "--precision", precision, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout), result.stderr


def names(data: Path, part: str) -> list[str]:
    _, found = find_data_set(str(data), lambda message: None).scan()
    return [picture.name for picture in found if picture.part == part]


def free(label: str, is_test: bool) -> str:
    """A name in a class that is taken by no picture and that the rule puts into one part; it sorts first."""
    names = (f"{label}/!{number}.png" for number in range(99))
    return next(name for name in names if (images.hash_fraction(name.encode()) < 0.2) == is_test)


def test_a_picture_that_comes_changes_no_figure_and_a_test_picture_is_told(deepres, pets, run):
    """Even where its name sorts first, which moved every picture by a place once."""
    before, said = report_of(deepres, run)
    assert before["images"] == len(names(pets, "test")) and "not all" not in said
    shutil.copy(pets / "dog" / "003.png", pets / free("cat", False))
    same, said = report_of(deepres, run)
    assert same == before and "not all" not in said
    images.picture(999).save(pets / free("cat", True))
    more, said = report_of(deepres, run)
    assert more["images"] == before["images"] + 1
    wanted = (
        f"the test pictures are not all that {run} was tested on when it was trained: 1 added ({free('cat', True)})"
    )
    assert wanted in said


@pytest.mark.parametrize("network", [("resnet8",), CROPS])
def test_what_was_added_is_gone_or_has_other_content_is_told(deepres, pets, network):
    """Of a run on resident images and of one on crops; another name for the same content is no change."""
    assert deepres("train", *network, "--data", "pets", *SHORT, "--run", "run").returncode == 0
    first, second, third = names(pets, "test")[:3]
    (pets / first).unlink()
    images.picture(998).save(pets / second)
    (pets / third).rename(pets / free(third.partition("/")[0], True))
    report, said = report_of(deepres, "run")
    assert f"1 gone ({first}), 1 with other content ({second})" in said and "1 added" not in said
    assert report["images"] == len(names(pets, "test"))


def test_a_training_picture_that_comes_to_the_test_part_is_left_out(deepres, tmp_path):
    root = images.write_folder(tmp_path / "set", {f"{part}/{name}": 5 for part in ("train", "test") for name in "ab"})
    assert deepres("train", "resnet8", "--data", root, *SHORT, "--run", "run").returncode == 0
    before, _ = report_of(deepres, "run")
    (root / "train" / "a" / "001.png").rename(root / "test" / "b" / "001x.png")
    shutil.copy(root / "train" / "b" / "002.png", root / "test" / "b" / "003.png")
    images.picture(997).save(root / "test" / "a" / "new.png")
    report, said = report_of(deepres, "run")
    assert report["images"] == before["images"]  # one is new, one gave way
    assert "left out of the test: 2 that a run was trained on (test/b/001x.png, test/b/003.png)" in said
    assert "2 added (test/a/new.png, test/b/001x.png), 1 with other content (test/b/003.png)" in said
    given, said = report_of(deepres, "run", "--data", root)
    assert given["images"] == report["images"] and "left out of the test: 2" in said
    every, said = report_of(deepres, "run", "--part", "all")
    assert every["images"] == 21 and "left out" not in said


def test_the_one_that_trained_of_a_class_of_test_pictures_is_never_tested(deepres, tmp_path):
    """It would be a test picture by the rule, once others of its class are for training."""
    root = images.write_folder(tmp_path / "set", {"a": 0, "b": 12})
    tests = images.keys("a", True, 4)
    for number, key in enumerate(tests):
        images.picture(number).save(root / f"{key}.png")
    keep = [key for key in (f"a/{n}.png" for n in range(200)) if images.hash_fraction(key.encode()) < 0.2][:4]
    for file, key in zip(sorted((root / "a").iterdir()), keep, strict=True):
        file.rename(root / key)
    largest = max(keep, key=lambda key: images.hash_fraction(key.encode()))
    assert largest in names(root, "train")
    assert deepres("train", "resnet8", "--data", root, *SHORT, "--run", "run").returncode == 0
    images.picture(77).save(root / free("a", False))
    assert largest in names(root, "test")
    report, said = report_of(deepres, "run")
    assert f"left out of the test: 1 that a run was trained on ({largest})" in said
    assert report["images"] == len(names(root, "test")) - 1


def test_twins_of_training_pictures_that_were_always_in_the_test_part_are_told(deepres, tmp_path):
    root = images.write_folder(tmp_path / "set", {f"{part}/{name}": 4 for part in ("train", "test") for name in "ab"})
    shutil.copy(root / "train" / "a" / "000.png", root / "test" / "a" / "twin.png")
    assert deepres("train", "resnet8", "--data", root, *SHORT, "--run", "run").returncode == 0
    report, said = report_of(deepres, "run")
    assert report["images"] == 9
    assert "warning: 1 of the test pictures have the content of pictures that run was trained on" in said


def test_a_run_is_tested_on_its_own_data_from_any_folder(deepres, pets, run, tmp_path, monkeypatch):
    """Not on another set of the same name that lies there."""
    before, _ = report_of(deepres, run)
    config = json.loads((run / "config.json").read_text())
    assert (config["data"], config["data_path"]) == ("pets", str(pets))
    images.write_folder(tmp_path / "else" / "pets", {"cat": 9, "dog": 9})
    monkeypatch.chdir(tmp_path / "else")
    assert deepres("train", "--run", run).returncode == 0
    assert deepres("train", "--like", "../run").returncode == 0
    like = json.loads(Path("runs/resnet8-pets-seed0/config.json").read_text())
    assert like["data_path"] == str(pets) and like["fingerprint"] == config["fingerprint"]
    assert deepres("train", "--like", "../run", "--data", "pets", "--run", "own").returncode == 0
    assert json.loads(Path("own/config.json").read_text())["data_path"] == str(tmp_path / "else" / "pets")
    report, _ = report_of(deepres, run)
    assert report == before and report["data"] == str(pets)


def test_data_that_moved_are_named_and_all_is_well(deepres, refused, pets, run, tmp_path):
    before, _ = report_of(deepres, run)
    pets.rename(tmp_path / "moved")
    assert f"{pets}, the data of {run}, does not exist; where it was moved, name it with --data" in refused("eval", run)
    assert "the data of the run, does not exist" in refused("train", "--run", run)
    report, said = report_of(deepres, run, "--data", "moved")
    assert report["top1_error"] == before["top1_error"] and "not all" not in said
    assert deepres("train", "--run", run, "--data", "moved").returncode == 0
    assert json.loads((run / "config.json").read_text())["data_path"] == str(tmp_path / "moved")
    assert report_of(deepres, run)[0]["top1_error"] == before["top1_error"]
    images.write_folder(tmp_path / "other", {"cat": 3, "dog": 3}, size=(9, 9))
    shutil.rmtree(tmp_path / "moved")
    (tmp_path / "other").rename(tmp_path / "moved")
    assert "holds none of the" in refused("eval", run)


def test_a_run_does_not_go_on_with_other_pictures_and_says_which(refused, pets, run):
    test, train = names(pets, "test")[0], names(pets, "train")
    (pets / test).unlink()
    (pets / train[0]).unlink()
    images.picture(996).save(pets / train[1])
    message = refused("train", "--run", run)
    assert f"of the training pictures 1 added ({train[1]}), 2 gone, and of the test pictures 1 gone ({test})" in message


def test_reproduce_tells_what_changed_and_its_plan_where_the_data_are(deepres, refused, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "mine")
    command = ("reproduce", "fig6", "--scale", "smoke", "--data", "mine", "--networks", "resnet8")
    assert deepres(*command).returncode == 0
    plan = json.loads((tmp_path / "runs" / "fig6-smoke-mine" / "plan.json").read_text())
    assert (plan["data"], plan["data_path"]) == ("mine", str(tmp_path / "mine"))
    (tmp_path / "mine" / "test" / "ant" / "00.png").unlink()
    assert "of the test pictures 1 gone (test/ant/00.png)" in refused(*command)
    del plan["data_path"]  # as plans of before
    (tmp_path / "runs" / "fig6-smoke-mine" / "plan.json").write_text(json.dumps(plan))
    assert deepres("report", "runs/fig6-smoke-mine").returncode == 0


def test_finetuning_tells_what_the_start_weights_saw_of_the_test_part(deepres, pets, run, tmp_path):
    again = ("finetune", "run", "--data", "pets", "--iterations", 2, "--batch-size", 8)
    result = deepres(*again, "--run", "same")
    assert result.returncode == 0 and "was trained on" not in result.stderr, result.stderr
    config = json.loads((tmp_path / "same" / "config.json").read_text())
    assert (config["start"], config["start_path"]) == ("run", str(run))
    result = deepres(*again, "--split", "26/8", "--run", "split")
    assert f"warning: {run} was trained on 8 of the test pictures" in result.stderr
    assert "warning: 8 of the test pictures have the content" in report_of(deepres, "split")[1]
    (pets / names(pets, "test")[0]).unlink()
    images.picture(994).save(pets / free("dog", False))
    result = deepres(*again, "--run", "changed")
    assert f"not all the pictures that {run} was trained on: of the training pictures 1 added" in result.stderr
    assert "of the test pictures 1 gone" in result.stderr


def old(run: Path) -> None:
    """Make a run what it was before runs kept lists of their pictures."""
    (run / "pictures.safetensors").unlink()
    config = json.loads((run / "config.json").read_text())
    kept = {name: value for name, value in config.items() if name not in ("division", "data_path", "start_path")}
    (run / "config.json").write_text(json.dumps(kept))


def test_a_run_of_before_is_tested_by_its_own_division_or_not_at_all(deepres, refused, pets, tmp_path):
    """Every fifth by place, as long as these are the pictures of its fingerprint."""
    how = ("train", "resnet8", "--data", "pets", *SHORT, "--run", "run")
    assert deepres(*how, "--set", "division=place").returncode == 0
    old(tmp_path / "run")
    message = refused(*how, "--set", "division=hash")
    assert "division: 'place' -> 'hash'" in message
    report, said = report_of(deepres, "run", "--save-scores", "kept.json")
    assert report["images"] == 8 and "every fifth picture" in said
    kept = json.loads((tmp_path / "kept.json").read_text())["deepres.scores"]["names"]
    assert kept[:2] == ["cat/004.png", "cat/009.png"]
    assert "keeps no list of its pictures" in report_of(deepres, "run", "--data", "pets")[1]
    started = deepres("finetune", "run", "--data", "pets", "--iterations", 1, "--batch-size", 8, "--run", "next")
    assert "run keeps no list of its pictures, and may have been trained on some" in started.stderr
    images.picture(995).save(pets / "cat" / "!.png")
    assert "was trained on other pictures than" in refused("eval", "run")
    (pets / "cat" / "!.png").unlink()
    assert deepres("train", "--run", "run").returncode == 0  # it goes on by the rule of then, and keeps its list
    images.picture(995).save(pets / "cat" / "!.png")
    report, said = report_of(deepres, "run")
    assert "left out of the test" in said and report["images"] == 4  # the dogs: the cats at its places are other ones


def test_runs_on_different_data_are_tested_together_on_those_of_the_first(deepres, refused, run, tmp_path):
    """The second has no picture in common with them, and none to be refused for."""
    images.write_folder(tmp_path / "more", {"cat": 6, "dog": 6}, size=(8, 8))
    for file in (tmp_path / "more").rglob("*.png"):
        images.picture(5000 + int(file.stem) + 50 * (file.parent.name == "cat")).save(file)
    assert deepres("train", "resnet8", "--data", "more", *SHORT, "--run", "second").returncode == 0
    report, said = report_of(deepres, "run", "second")
    assert report["data"] == str(tmp_path / "pets") and "second was trained on" in said
    assert len(report["members"]) == 2 and "not all" not in said


def test_weights_of_before_are_warned_of_where_a_folder_is_divided(deepres, pets, run, tmp_path):
    """Written out of a run, they keep no list; those of now tell by which rule their data were divided."""
    assert deepres("convert", "run", "--to", "now.safetensors").returncode == 0
    found = read_file(tmp_path / "now.safetensors")
    assert found.header["division"] == "hash"
    before = {name: value for name, value in found.header.items() if name != "division"}
    (tmp_path / "before.safetensors").write_bytes(serialise(found.state, found.mean, before))
    for name, warned in (("now", False), ("before", True)):
        said = report_of(deepres, f"{name}.safetensors", "--data", "pets")[1]
        assert ("was trained when data were divided otherwise" in said) == warned


def test_a_damaged_list_is_refused_in_a_sentence(refused, run):
    (run / "pictures.safetensors").write_bytes(b"damaged")
    assert "pictures.safetensors is damaged" in refused("eval", run)


def test_pictures_that_do_not_decode_are_no_change(deepres, pets, tmp_path):
    (pets / names(pets, "test")[0]).write_bytes(b"nothing")
    (pets / names(pets, "train")[0]).write_bytes(b"nothing either")
    how = ("train", "resnet8", "--data", "pets", *SHORT, "--run", "run", "--skip-bad")
    assert deepres(*how).returncode == 0
    report, said = report_of(deepres, "run")
    assert report["skipped"] == 1 and "not all" not in said and "left out of the test" not in said
    assert deepres(*how, "--split", "26/7", "--run", "split").returncode == 0
    report, said = report_of(deepres, "split")
    assert report["images"] == 7 and "not all" not in said and "left out of the test" not in said


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Weights for two classes."""
    torch.manual_seed(0)
    net = build("resnet8", 2)
    file = tmp_path / "net.safetensors"
    header = net.header | {"classes": ["cat", "dog"]}
    file.write_bytes(serialise(net.state_dict(), torch.full((3, 1, 1), 0.5), header))
    return file


def test_any_part_of_any_folder_is_tested(deepres, pets, weights):
    count = {
        part: report_of(deepres, weights, "--data", pets, "--part", part)[0]["images"] for part in ("train", "all")
    }
    test, _ = report_of(deepres, weights, "--data", pets)
    assert (test["part"], test["images"]) == ("test", len(names(pets, "test")))
    assert count == {"train": 40 - test["images"], "all": 40}
    held, _ = report_of(deepres, weights, "--data", pets, "--split", f"{count['train'] - 5}/5", "--part", "train")
    assert held["images"] == count["train"] - 5
    text = deepres("eval", weights, "--data", pets, "--part", "train").stdout
    assert f"resnet8 on {count['train']} training images of" in text


def test_a_test_part_alone_is_tested(deepres, refused, weights, tmp_path):
    """A folder, Parquet and shards; there is nothing to train on."""
    images.write_folder(tmp_path / "set" / "val", {"cat": 3, "dog": 3})
    contents = [images.png(images.picture(number)) for number in range(6)]
    images.write_parquet(tmp_path / "rows" / "test.parquet", contents, [0, 1] * 3, names=["cat", "dog"])
    with tarfile.open(tmp_path / "val.tar", "w") as tar:
        tar.add(tmp_path / "set" / "val", arcname=".")
    for data in ("set", "rows", "wds:val.tar"):
        assert report_of(deepres, weights, "--data", data)[0]["images"] == 6
        assert "has no training pictures" in refused("eval", weights, "--data", data, "--part", "train")


def test_the_worst_classes_come_first_and_at_most_twenty(deepres, tmp_path):
    """Of 30 classes, of which a network that knows one alone gets that one right."""
    root = images.write_folder(tmp_path / "set" / "test", {f"c{number:02}": 1 for number in range(30)}).parent
    net = build("resnet8", 30)
    net.fc.weight.data.zero_()
    net.fc.bias.data = torch.arange(30.0).neg()
    header = net.header | {"classes": [f"c{number:02}" for number in range(30)]}
    (tmp_path / "net.safetensors").write_bytes(serialise(net.state_dict(), torch.zeros(3, 1, 1), header))
    lines = deepres("eval", "net.safetensors", "--data", root).stdout.splitlines()
    rows = [line for line in lines if " c" in line and "100.0" in line]
    assert [row.split("│")[1].strip() for row in rows] == [f"{number} c{number:02}" for number in range(1, 21)]
    assert any("10 more err as much or less; --json has them all, and the confusion" in line for line in lines)
    assert not any(" 0.0 " in line for line in lines)
    report, _ = report_of(deepres, "net.safetensors", "--data", root)
    assert report["top1_error"] == 96.6667 and report["class_errors"] == [0.0] + [100.0] * 29
    assert report["members"][0]["top1_error"] == 96.6667
    figures = [*report["top1_interval"], *report["top5_interval"], *report["members"][0]["top1_interval"]]
    assert figures == [round(figure, 4) for figure in figures]


def test_few_classes_are_shown_with_the_worst_first(deepres, pets, weights):
    text = deepres("eval", weights, "--data", pets).stdout
    lines = [line for line in text.splitlines() if " cat " in line or " dog " in line]
    errors = [float(line.split("│")[2]) for line in lines]
    assert len(errors) == 2 and errors == sorted(errors, reverse=True)
