"""The division of data without a test part: by a hash, so that no picture that comes or goes moves another."""

import json
import shutil
import tarfile
import unicodedata
from pathlib import Path

import pytest

import images
from deepres.data.division import divided
from deepres.data.listing import Picture
from deepres.data.sources import find_data_set, load_data_set
from deepres.data.stream.index import open_index


def parts(data: object) -> dict[str, str]:
    """The part of each picture, by name."""
    _, pictures = find_data_set(str(data), lambda message: None).scan()
    return {picture.name: picture.part for picture in pictures}


def pictures(*hashed: tuple[int, str]) -> list[Picture]:
    return [Picture(key, label, "train", b"", key) for label, key in hashed]


@pytest.fixture(scope="module")
def pets(tmp_path_factory) -> Path:
    """Two classes of 40 pictures."""
    return images.write_folder(tmp_path_factory.mktemp("pets"), {"cat": 40, "dog": 40})


def test_a_picture_is_for_testing_where_the_hash_of_its_class_and_name_is_below_a_fifth(pets: Path):
    found = parts(pets)
    assert found == {name: "test" if images.hash_fraction(name.encode()) < 0.2 else "train" for name in found}
    assert 8 < list(found.values()).count("test") < 24
    said: list[str] = []
    assert len(load_data_set(str(pets), progress=said.append).test) == list(found.values()).count("test")
    assert "about one picture in five is a test picture, by a hash of its name" in said[0]


def test_pictures_that_come_or_go_move_no_other_and_nor_does_another_place(pets: Path, tmp_path: Path):
    before = parts(pets)
    moved = tmp_path / "elsewhere" / "animals"
    shutil.copytree(pets, moved)
    assert parts(moved) == before
    for number in range(10):  # before, between and behind the others
        for name in (f"0{number}x", f"{number:03}x", f"z{number}"):
            images.picture(number).save(moved / "cat" / f"{name}.png")
    images.write_folder(moved, {"ant": 7})
    for name in ("dog/003.png", "cat/011.png"):
        (moved / name).unlink()
    after = parts(moved)
    assert len(after) == len(before) + 35
    assert {name: part for name, part in after.items() if name in before} == {
        name: part for name, part in before.items() if name not in ("dog/003.png", "cat/011.png")
    }


def test_a_training_folder_alone_and_a_tar_have_the_division_of_the_folder(pets: Path, tmp_path: Path):
    wanted = parts(pets)
    shutil.copytree(pets, tmp_path / "set" / "train")
    assert parts(tmp_path / "set") == {f"train/{name}": part for name, part in wanted.items()}
    with tarfile.open(tmp_path / "pets.tar", "w") as tar:
        tar.add(pets, arcname="some/pets")
    assert parts(f"wds:{tmp_path}/pets.tar") == {f"pets.tar some/pets/{name}": part for name, part in wanted.items()}


def test_rows_of_parquet_are_divided_by_their_content(tmp_path: Path):
    """A row that comes first, and another file: each picture keeps its part."""
    contents = [images.png(images.picture(number)) for number in range(30)]
    images.write_parquet(tmp_path / "a" / "train.parquet", contents, [number % 2 for number in range(30)])
    found = list(parts(tmp_path / "a").values())
    assert found == ["test" if images.hash_fraction(content) < 0.2 else "train" for content in contents]
    images.write_parquet(tmp_path / "b" / "train-0.parquet", [images.png(images.picture(99)), *contents[:9]], [0] * 10)
    images.write_parquet(tmp_path / "b" / "train-1.parquet", contents[9:], [0] * 21)
    assert list(parts(tmp_path / "b").values())[1:] == found
    assert [len(part) for part in open_index(str(tmp_path / "b"), print)] == [
        31 - list(parts(tmp_path / "b").values()).count("test"), list(parts(tmp_path / "b").values()).count("test")
    ]  # fmt: skip


def test_the_unicode_form_of_a_name_does_not_matter():
    """A Mac decomposes what others compose."""
    names = [f"café/größe{number}.jpg" for number in range(50)]
    composed, decomposed = (
        [own.part for own in divided(pictures(*((0, unicodedata.normalize(form, name)) for name in names)))]
        for form in ("NFC", "NFD")
    )
    assert composed == decomposed and composed.count("test") > 3


def test_a_class_of_test_pictures_alone_trains_on_the_one_with_the_largest_hash():
    tests = images.keys("a", True, 4)
    found = {own.name: own.part for own in divided(pictures(*((0, key) for key in tests)))}
    largest = max(tests, key=lambda key: images.hash_fraction(key.encode()))
    assert found == {key: "train" if key == largest else "test" for key in tests}
    alone = list(divided(pictures((0, tests[0]), *((1, key) for key in images.keys("b", True, 2)))))
    assert alone[0].part == "train" and [own.part for own in alone].count("test") == 1


def test_without_any_test_picture_the_one_with_the_least_hash_is_one_where_its_class_has_another():
    train = images.keys("a", False, 5)
    found = {own.name: own.part for own in divided(pictures(*((0, key) for key in train)))}
    least = min(train, key=lambda key: images.hash_fraction(key.encode()))
    assert found == {key: "test" if key == least else "train" for key in train}
    [cat], [dog] = (images.keys(name, True, 1) for name in ("cat", "dog"))
    singles = [own.part for own in divided(pictures((0, cat), (1, dog)))]
    assert singles == ["train", "train"]


def test_the_rule_of_before_is_known_for_its_runs(pets: Path):
    """Every fifth of each class."""
    _, found = find_data_set(str(pets), print, "place").scan()
    assert [own.name for own in found if own.part == "test"][:3] == ["cat/004.png", "cat/009.png", "cat/014.png"]


def test_one_picture_a_class_is_enough_to_look_at_data_and_not_to_train(deepres, refused, tmp_path: Path):
    images.write_folder(tmp_path / "set", {"a": 1, "b": 1})
    facts = json.loads(deepres("data", "info", "set", "--json").stdout)
    assert (facts["train"]["images"], facts["test"]["images"]) == (2, 0)
    assert "2 images, all decode" in deepres("data", "check", "set", "--workers", 0).stdout
    assert json.loads(deepres("data", "stats", "set", "--crop", 8, "--workers", 0, "--json").stdout)["images"] == 2
    for recipe in (("resnet8",), ("resnet18", "--set", "crop=8", "--set", "sides=8,8")):
        assert "set has no test pictures" in refused("train", *recipe, "--data", "set")


def test_a_test_part_alone_can_be_looked_at_and_not_trained_on(deepres, refused, tmp_path: Path):
    """As a folder, Parquet and shards."""
    images.write_folder(tmp_path / "set" / "val", {"a": 2, "b": 2})
    images.picture(5, (9, 9)).save(tmp_path / "set" / "val" / "a" / "large.png")  # so that it is not resident
    contents = [images.png(images.picture(number)) for number in range(4)]
    images.write_parquet(tmp_path / "rows" / "test.parquet", contents, [0, 1, 0, 1])
    with tarfile.open(tmp_path / "val.tar", "w") as tar:
        tar.add(tmp_path / "set" / "val", arcname=".")
    for data, count in (("set", 5), ("rows", 4), ("wds:val.tar", 5)):
        facts = json.loads(deepres("data", "info", data, "--json").stdout)
        assert (facts["train"]["images"], facts["test"]["images"]) == (0, count)
        assert f"{count} images, all decode" in deepres("data", "check", data, "--workers", 0).stdout
        assert "has no training pictures" in refused("data", "stats", data)
        assert "has no training pictures" in refused("train", "resnet8", "--data", data, "--image-size", 8)


def test_check_names_pictures_that_are_there_twice(deepres, tmp_path: Path):
    """In both parts, in two classes, within one class, each once; empty files are no copies."""
    root = images.write_folder(tmp_path / "set", {f"{part}/{name}": 3 for part in ("train", "test") for name in "ab"})
    for new, old in (
        ("test/a/leak.png", "train/a/000.png"),
        ("train/b/other.png", "train/a/001.png"),
        ("train/a/twin.png", "train/a/002.png"),
    ):
        shutil.copy(root / old, root / new)
    result = deepres("data", "check", root, "--workers", 0)
    assert result.returncode == 0
    lines = result.stdout.splitlines()
    assert lines[:3] == [
        "warning: the same content in both parts: train/a/000.png, test/a/leak.png",
        "warning: the same content in a, b: train/a/001.png, train/b/other.png",
        "warning: the same content: train/a/002.png, train/a/twin.png",
    ]
    assert lines[3].startswith("warning: 1 images are in the training part and in the test part")
    for name in ("train/a/empty.png", "test/b/empty.png"):
        (root / name).write_bytes(b"")
    found = json.loads(deepres("data", "check", root, "--workers", 0, "--json").stdout)
    assert len(found["copies"]) == 3 and len(found["wrong"]) == 2
    assert found["copies"][0] == {"names": ["train/a/000.png", "test/a/leak.png"], "both_parts": True, "classes": ["a"]}
