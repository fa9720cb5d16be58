"""`deepres data stats` and `deepres data check` on folders of pictures."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import images
from deepres.data.crops import center_crop
from deepres.data.stream.index import open_index
from deepres.data.stream.loader import Reading
from deepres.data.stream.statistics import statistics

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than processors


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Forty training pictures in two classes, of different sizes, and four test pictures of another look."""
    for part, count in (("train", 40), ("test", 4)):
        for number in range(count):
            file = tmp_path / "set" / part / ("ant", "bee")[number % 2] / f"{number:02}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            image = images.picture(number, (20 + number, 25)) if part == "train" else Image.new("RGB", (20, 20), "red")
            image.save(file)
    return tmp_path / "set"


def test_stats_are_those_of_the_centre_crops_of_the_training_images(deepres, root):
    """Against NumPy, over 40 images: the mean image, and the covariance of all pixels."""
    facts = json.loads(deepres("data", "stats", root, "--crop", 14, "--workers", 2, "--json").stdout)
    files = sorted((root / "train").rglob("*.png"))
    crops = np.stack([center_crop(file.read_bytes(), crop=14, side=16).numpy() for file in files]) / 255
    pixels = crops.transpose(1, 0, 2, 3).reshape(3, -1)
    covariance = np.cov(pixels, bias=True)
    assert facts["images"] == 40 and facts["mean_image"] == [3, 14, 14] and facts["shorter_side"] == 16
    assert np.allclose(facts["channel_mean"], pixels.mean(1))
    assert facts["eigenvalues"] == sorted(facts["eigenvalues"], reverse=True)
    vectors = np.array(facts["eigenvectors"]).T
    assert np.allclose(vectors @ np.diag(facts["eigenvalues"]) @ vectors.T, covariance)
    assert np.allclose(vectors.T @ vectors, np.eye(3))
    found = statistics(open_index(str(root), print).train, crop=14, side=16, reading=Reading())
    assert torch.allclose(found.mean, torch.from_numpy(crops.mean(0)).float())


def test_stats_are_kept_beside_the_data_and_belong_to_its_content(deepres, root, monkeypatch):
    """A second call decodes nothing; a changed picture does, also where its size and name are the same."""
    first = deepres("data", "stats", root, "--crop", 8)
    assert ".deepres" in first.stderr and len(list((root / ".deepres").iterdir())) == 1
    again = deepres("data", "stats", root, "--crop", 8)
    assert again.stdout == first.stdout and "kept" not in again.stderr
    file = root / "train" / "ant" / "00.png"
    images.picture(7, (20, 25)).save(file)
    changed = deepres("data", "stats", root, "--crop", 8)
    assert changed.stdout != first.stdout and len(list((root / ".deepres").iterdir())) == 2
    facts = json.loads(deepres("data", root, "--image-size", 8, "--json").stdout)
    assert facts["classes"] == ["ant", "bee"], "the folder of the statistics is no class"


def test_stats_go_to_the_cache_where_the_data_cannot_be_written_to(deepres, root):
    """A file in the place of the folder stands for a read-only disk, which root would write to."""
    (root / ".deepres").write_text("")
    first = deepres("data", "stats", root, "--crop", 8)
    assert first.returncode == 0 and os.environ["DEEPRES_CACHE"] in first.stderr
    assert "kept" not in deepres("data", "stats", root, "--crop", 8).stderr


def test_a_damaged_file_of_statistics_is_made_again(deepres, root):
    """As is one that was cut short."""
    first = deepres("data", "stats", root, "--crop", 8).stdout
    (file,) = (root / ".deepres").iterdir()
    file.write_bytes(file.read_bytes()[:-10])
    assert deepres("data", "stats", root, "--crop", 8).stdout == first


def test_stats_refuse_a_bad_picture_unless_it_is_skipped(deepres, refused, root):
    """The picture is named in both cases."""
    (root / "train" / "bee" / "03.png").write_bytes(b"nothing")
    sentence = refused("data", "stats", root, "--crop", 8)
    assert "train/bee/03.png does not decode (it is not a picture)" in sentence and "--skip-bad" in sentence
    facts = json.loads(deepres("data", "stats", root, "--crop", 8, "--skip-bad", "--json").stdout)
    assert facts["images"] == 39 and facts["skipped"] == ["train/bee/03.png"]
    assert "does not fit" in refused("data", "stats", root, "--crop", 8, "--side", 7)


def test_check_of_a_sound_set_says_so(deepres, root):
    """All 44 images, of both parts."""
    result = deepres("data", "check", root)
    assert result.returncode == 0 and "44 images, all decode" in result.stdout


def test_photographs_of_all_sizes_are_described_and_their_classes_counted(deepres, root):
    facts = json.loads(deepres("data", root, "--json").stdout)
    assert facts["classes"] == ["ant", "bee"] and facts["train"] == {"images": 40, "per_class": {"ant": 20, "bee": 20}}
    assert facts["test"]["images"] == 4
    (root / "train" / "ant" / "notes.txt").write_text("")
    assert deepres("data", root).stderr.count("not read, by the names of the files: 1 .txt") == 1
    result = deepres("data", "check", root)
    assert "40 training and 4 test images of 2 classes (ant, bee)" in result.stderr


def test_check_names_everything_that_is_wrong(deepres, refused, root, monkeypatch):
    """Exit code 1; in training and test pictures; the limit of pixels can be set."""
    (root / "test" / "ant" / "00.png").write_bytes(b"nothing")
    file = root / "train" / "bee" / "05.png"
    file.write_bytes(file.read_bytes()[:-200])
    result = deepres("data", "check", root, "--workers", 2)
    assert result.returncode == 1
    assert "test/ant/00.png: it is not a picture" in result.stdout
    assert "train/bee/05.png: " in result.stdout and "44 images, 2 do not decode" in result.stdout
    monkeypatch.setenv("DEEPRES_MAX_PIXELS", "1449")
    found = json.loads(deepres("data", "check", root, "--json").stdout)
    assert found["images"] == 44 and len(found["wrong"]) == 4
    assert "train/ant/38.png" in [fault["name"] for fault in found["wrong"]]
    monkeypatch.setenv("DEEPRES_MAX_PIXELS", "many")
    assert "DEEPRES_MAX_PIXELS is 'many'" in refused("data", "check", root)


def test_bad_input_is_one_sentence(refused, tmp_path):
    """A folder that is not there, and shards that are not."""
    assert "does not exist" in refused("data", "check", tmp_path / "missing")
    assert "there is no shard" in refused("data", "stats", f"wds:{tmp_path}/train-{{0..3}}.tar")
    assert "there is no shard" in refused("data", f"wds:{tmp_path}/x.tar")
    assert "shards are read from disk" in refused("data", "wds:https://example.org/{train,test}.tar")


def test_stats_of_class_folders_alone_add_no_folder_to_them(deepres, tmp_path):
    """Others would take it for a class."""
    images.write_folder(tmp_path / "set", {"a": 5, "b": 5})
    result = deepres("data", "stats", "set", "--crop", 16)
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == ["a", "b"]
