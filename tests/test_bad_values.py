"""Empty names and numbers without sense: refused in one sentence that names where they came from, and nothing stays."""

import json
import shutil

import pytest

from deepres.classification.recipe import ClassificationConfig, ClassificationRecipe
from deepres.runtime.errors import InputError
from tasks import from_json, merge

EMPTY = [
    ("train", "resnet8", "--data", "FOLDER", "--run", ""),
    ("train", "resnet8", "--data", "", "--run", "r"),
    ("train", "resnet8", "--data=", "--run", "r"),
    ("train", "", "--data", "FOLDER"),
    ("predict", "w.pth", ""),
    ("info", ""),
    ("eval", ""),
    ("report", ""),
    ("convert", "w.pth", "--to="),
    ("export", "w.pth", "--to", " "),
    ("data", "check", ""),
    ("reproduce", "fig6", "--networks", ""),
    ("reproduce", "fig6", "--out="),
    ("finetune", "w.pth", "--data", "FOLDER", "--run", ""),
]


@pytest.mark.parametrize("arguments", EMPTY, ids=" ".join)
def test_an_empty_name_is_refused_by_every_verb(refused, tmp_path, arguments):
    assert "is empty; give a" in refused(*arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("networks", ["../x", "resnet8,../../x", "resnet8,", ","])
def test_names_of_no_network_are_refused_by_reproduce(refused, tmp_path, networks):
    assert "unknown network" in refused("reproduce", "fig6", "--networks", networks, "--scale", "smoke")
    assert not list(tmp_path.iterdir())


NUMBERS = list(ClassificationRecipe.bounds)


@pytest.mark.parametrize("field", NUMBERS)
def test_a_number_without_sense_is_refused_with_its_field(field):
    for value in ("1" + "0" * 40, "-1", "inf", "nan", "1e400", "9" * 5_000):
        with pytest.raises(InputError, match=f"^the command line: {field} is .*, but must be ") as caught:
            from_json(merge({"network": "resnet20", "data": "x"}, {field: value}), "the command line")
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("field", "value"),
    [("image_size", 10**9), ("in_channels", 0), ("test_images", -1), ("seed", 2**63), ("workers", 10**6)],
)
def test_a_number_of_a_configuration_without_sense_is_refused(field, value):
    with pytest.raises(InputError, match=f"{field} is {value}, but must be from"):
        ClassificationConfig("resnet20", "x", **{field: value})


def test_a_pad_of_a_hundred_million_is_a_sentence(refused, folder, tmp_path):
    message = refused("train", "resnet8", "--data", folder, "--run", "r", "--set", "pad=100000000")
    assert message == "error: the command line: pad is 100000000, but must be from 0 to 512"
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def begun(folder, tmp_path_factory):
    """A run with a configuration alone."""
    place = tmp_path_factory.mktemp("begun") / "run"
    place.mkdir()
    record = ClassificationConfig(
        "resnet8", str(folder), recipe=ClassificationRecipe(iterations=4, milestones=())
    ).as_json()
    (place / "config.json").write_text(json.dumps(record))
    return place


@pytest.mark.usefixtures("checked_types")
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"batch_size": -5}, "run/config.json: batch_size is -5, but must be from 1 to 1,048,576"),
        ({"lr": "high"}, "run/config.json: lr is 'high', but must be float"),
        ({"momentums": 0.9}, "run/config.json has an unknown field 'momentums'; did you mean 'momentum'?"),
        ({"iterations": 1e999}, "run/config.json, at recipe.iterations: expected int, got float"),
    ],
)
def test_a_wrong_field_of_a_run_is_blamed_on_its_file(refused, begun, tmp_path, change, sentence):
    shutil.copytree(begun, tmp_path / "run")
    record = json.loads((begun / "config.json").read_text())
    (tmp_path / "run/config.json").write_text(json.dumps(record | {"recipe": record["recipe"] | change}))
    assert sentence in refused("train", "--run", "run")
    assert sentence in refused("train", "--run", "run", "--iterations", 2)


@pytest.mark.usefixtures("checked_types")
@pytest.mark.parametrize("name", ["c.json", "c.toml"])
def test_a_configuration_of_another_shape_is_a_sentence(refused, folder, tmp_path, name):
    deep = "[" * 100_000 if name == "c.json" else "a = " + "[" * 100_000
    texts = {deep: "nested more than 64 deep", "\x00": "cannot be read"}
    texts |= (
        {"[]": "expected object, got array", '{"recipe": null}': "at recipe: expected object, got null"}
        if name == "c.json"
        else {
            "recipe = 1979-05-27": "at recipe: expected object",
            "[recipe]\nlr = inf": "at recipe.lr: inf is no finite",
        }
    )
    for text, sentence in texts.items():
        (tmp_path / name).write_text(text)
        assert sentence in refused("train", "resnet8", "--data", folder, "--config", name)


def test_a_configuration_with_a_byte_order_mark_is_read_as_meant(refused, folder, tmp_path):
    for name, text in (("c.json", '\ufeff{"seed": -7}'), ("c.toml", "\ufeffseed = -7\n")):
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert f"{name}: seed is -7" in refused("train", "resnet8", "--data", folder, "--config", name)


def test_nothing_stays_of_a_refused_run(refused, folder, tmp_path):
    small = ("--iterations", 2, "--set", "window=1")
    arguments = ("train", "resnet8", "--data", folder, *small)
    refused(*arguments, "--run", "new/deep/run", "--batch-size", 4, "--in-channels", 5)
    assert not (tmp_path / "new").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("")
    assert "is not empty and holds no run" in refused(*arguments, "--run", "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_nothing_stays_of_a_plan_whose_runs_are_refused(refused, folder, tmp_path):
    message = refused("reproduce", "fig6", "--scale", "smoke", "--data", folder, "--precision", "fp7")
    assert "fp7" in message
    assert not list(tmp_path.iterdir())
