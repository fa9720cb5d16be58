"""The data sets with a name that torchvision reads: fetched from a stand-in, as whole images and as a stream."""

import json
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

import images
import standins
from deepres.data import published
from deepres.data.sources import describe_data_set, load_data_set
from deepres.data.stream.index import open_index
from deepres.runtime.errors import InputError

NAMES = tuple(standins.SETS)


@dataclass(frozen=True)
class Facts:
    """Of a set in `standins`: its first two classes and its last, and the labels of its training and test pictures."""

    classes: tuple[str, str, str]
    train: list[int]
    test: list[int]
    channels: int = 3
    in_files: bool = False  # each picture in a file of its own, not all in one


CHURCH, LILY = "church, church building", "blackberry lily"
FACTS = {
    "mnist": Facts(("0 - zero", "1 - one", "9 - nine"), [0, 1, 2, 3], [0, 1], channels=1),
    "svhn": Facts(("0", "1", "9"), [1, 2, 3, 4, 5, 6, 7, 8, 9, 0], [3, 0, 1]),
    "stl10": Facts(("airplane", "bird", "car"), [1, 2, 1], [2, 1]),
    "imagenette": Facts(("tench, Tinca tinca", CHURCH, CHURCH), [0, 0, 0, 1, 1, 1], [0, 1], in_files=True),
    "flowers102": Facts(
        ("pink primrose", "hard-leaved pocket orchid", LILY), [7, 1, 4], [3, 5, 6, 8, 9], in_files=True
    ),
    "oxford-pets": Facts(("Abyssinian", "Basset Hound", "Basset Hound"), [0, 1, 0, 1], [0, 1], in_files=True),
    "food101": Facts(("apple_pie", "waffles", "waffles"), [0, 0, 1, 1], [0, 1], in_files=True),
}


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    return images.isolate(monkeypatch, tmp_path)


@contextmanager
def served(name: str, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """A web server that has the set, where torchvision looks for it."""
    if published.PUBLISHED[name].packages:
        pytest.importorskip("scipy")
    pages: dict[str, bytes] = {}
    with images.web(pages) as address:
        pages.update(standins.pages(standins.SETS[name](patch, address)))
        yield


@pytest.mark.parametrize("name", NAMES)
def test_a_set_is_fetched_once_and_has_torchvisions_parts_labels_and_class_names(
    monkeypatch: pytest.MonkeyPatch, cache: Path, name: str
):
    """Whole images of one size; the second load needs no network; no archive is kept."""
    with served(name, monkeypatch):
        data = load_data_set(name, image_size=16)
    facts = FACTS[name]
    assert (*data.classes[:2], data.classes[-1]) == facts.classes
    assert data.train.labels.tolist() == facts.train and data.test.labels.tolist() == facts.test
    assert data.channels == facts.channels and data.size == (16, 16)
    assert load_data_set(name, image_size=16).fingerprint == data.fingerprint
    shutil.rmtree(cache / "decoded")
    assert load_data_set(name, image_size=16).fingerprint == data.fingerprint
    left = standins.files_below(cache / "datasets" / name)
    assert left and not [file for file in left if file.endswith("gz")]


@pytest.mark.parametrize(("name", "size"), [("mnist", (28, 28)), ("svhn", (32, 32)), ("stl10", (96, 96))])
def test_sets_of_images_of_one_size_need_no_size(monkeypatch: pytest.MonkeyPatch, name: str, size: tuple[int, int]):
    """And their pixels are torchvision's."""
    with served(name, monkeypatch):
        data = load_data_set(name)
    assert data.size == size
    reader = published.PUBLISHED[name].reader(published.fetched_folder(name), "test")
    for image, (pixels, _) in zip(data.test.images, reader, strict=False):
        assert images.png(pixels) == images.png(Image.fromarray(image.movedim(0, 2).squeeze(2).numpy()))
    with pytest.raises(InputError, match="has its pixels in a file of its own"):
        open_index(name, print)


@pytest.mark.parametrize("name", [name for name, facts in FACTS.items() if facts.in_files])
def test_sets_of_pictures_in_files_are_streamed_from_them(monkeypatch: pytest.MonkeyPatch, cache: Path, name: str):
    """The index names the files of torchvision's folder, has their very bytes, and copies none of them."""
    with served(name, monkeypatch):
        parts = open_index(name, lambda message: None)
    root = cache / "datasets" / name
    for index, labels in zip(parts, (FACTS[name].train, FACTS[name].test), strict=True):
        assert index.labels.tolist() == labels
        for place in range(len(index)):
            assert index.encoded(place) == (root / index.names[place]).read_bytes()
    assert not list((cache / "index").glob("*.pictures"))
    with pytest.raises(InputError, match="pictures of different sizes"):
        load_data_set(name)


def test_a_network_of_crops_trains_on_a_set_by_its_name_and_is_tested(
    monkeypatch: pytest.MonkeyPatch, deepres, tmp_path: Path
):
    """From the download on: the run is told the set's own class names."""
    how = ("--set", "crop=16", "--set", "sides=18,24", "--iterations", 2, "--batch-size", 2, "--set", "workers=0")
    with served("oxford-pets", monkeypatch):
        trained = deepres("train", "resnet18", "--data", "oxford-pets", *how, "--run", "run", "--set", "bn_average=0")
    assert trained.returncode == 0, trained.stderr
    assert "4 training and 2 test images of 2 classes (Abyssinian, Basset Hound)" in trained.stderr
    tested = deepres("eval", "run", "--json")
    assert tested.returncode == 0 and json.loads(tested.stdout)["images"] == 2
    checked = deepres("data", "check", "oxford-pets")
    assert checked.returncode == 0 and "6 images, all decode" in checked.stdout
    told = json.loads(deepres("data", "info", "oxford-pets", "--json").stdout)
    assert told["train"]["per_class"] == {"Abyssinian": 2, "Basset Hound": 2}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("svhn", "the 531,131 easier pictures of its part extra are left out"),
        ("stl10", "its 100,000 pictures without a label are left out"),
        ("flowers102", "its 1,020 validation pictures are left out"),
    ],
)
def test_what_of_a_set_is_no_part_is_said(monkeypatch: pytest.MonkeyPatch, name: str, words: str):
    """No picture is left out in silence."""
    said: list[str] = []
    with served(name, monkeypatch):
        load_data_set(name, image_size=8, progress=said.append)
    assert f"{name}: {words}" in said


@pytest.mark.parametrize("name", NAMES)
def test_without_a_network_one_sentence_says_what_to_put_where(
    monkeypatch: pytest.MonkeyPatch, cache: Path, refused, name: str
):
    """The same sentence for every set: its files, and the place."""
    if published.PUBLISHED[name].packages:
        pytest.importorskip("scipy")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        standins.SETS[name](monkeypatch, f"http://127.0.0.1:{free.getsockname()[1]}")
    sentence = refused("data", "info", name)
    layout = published.PUBLISHED[name].layout
    assert f"{name} is not on this machine and could not be fetched (torchvision: " in sentence
    assert sentence.endswith(f"class folders, or {layout} into {cache / 'datasets' / name}")
    assert list((cache / "datasets").iterdir()) == []


@pytest.mark.parametrize("name", ["svhn", "flowers102"])
def test_the_package_that_reads_a_set_is_asked_for_before_gigabytes_come(
    monkeypatch: pytest.MonkeyPatch, cache: Path, name: str
):
    """Two sets are in MATLAB files."""
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(InputError, match=r"is read by the package scipy: pip install -e '\.\[datasets\]'"):
        load_data_set(name)
    assert not (cache / "datasets").exists()


def test_a_copy_that_is_not_whole_is_refused(monkeypatch: pytest.MonkeyPatch, cache: Path):
    """A class that only one part has would move the labels of the others; a list that is cut; a file that is gone."""
    with served("imagenette", monkeypatch):
        open_index("imagenette", lambda message: None)
    shutil.rmtree(cache / "datasets" / "imagenette" / "imagenette2" / "val" / "n01440764")
    with pytest.raises(InputError, match=r"not a whole copy of imagenette \(its two parts have other classes"):
        open_index("imagenette", lambda message: None)
    with served("food101", monkeypatch):
        open_index("food101", lambda message: None)
    root = cache / "datasets" / "food101"
    (root / "food-101/images/waffles/7.jpg").unlink()
    with pytest.raises(InputError, match=r"food-101/images/waffles/7\.jpg does not decode \(no such file"):
        load_data_set("food101", image_size=8)
    (root / "food-101/meta/test.json").write_text("{")
    with pytest.raises(InputError, match=f"{root} is not a whole copy of food101 .*put food-101/meta/ and food-101/im"):
        load_data_set("food101", image_size=8)


def test_names_are_told_where_one_is_not_known(refused):
    """All of them, in the order of their table."""
    assert f"give {', '.join(published.PUBLISHED)}, a folder" in refused("data", "info", "zebra")
    assert "did you mean food101?" in refused("data", "info", "food-101")


def test_a_described_set_has_its_parts(monkeypatch: pytest.MonkeyPatch):
    """28x28 grayscale, as the paper's plain networks saw them, too."""
    with served("mnist", monkeypatch):
        facts = describe_data_set(load_data_set("mnist"))
    assert facts["size"] == [28, 28] and facts["channels"] == 1 and facts["train"]["images"] == 4
