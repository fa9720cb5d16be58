"""What is left out of folders, shards and tables is told, and what cannot be meant so is refused."""

import json
import shutil
import zlib
from pathlib import Path

import pytest

import images
from deepres.data.patterns import missing
from deepres.data.sources import load_data_set
from deepres.data.stream.index import open_index
from deepres.data.walk import is_hidden
from deepres.runtime.errors import InputError

CLASSES = ("cat", "dog")
SHORT = ("--iterations", 2, "--batch-size", 8)


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    return images.isolate(monkeypatch, tmp_path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "set"


def notes(data: object) -> list[str]:
    """What is said of data when they are read, without their name."""
    said: list[str] = []
    load_data_set(str(data), progress=said.append)
    return [line.removeprefix(f"{data}: ") for line in said]


def refusal(data: object) -> str:
    with pytest.raises(InputError) as caught:
        load_data_set(str(data))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def labels(data: object) -> dict[str, str]:
    """The class of each picture by its name."""
    parts = open_index(str(data), lambda message: None)
    return {
        name: part.classes[int(label)] for part in parts for name, label in zip(part.names, part.labels, strict=True)
    }


def write(root: Path, folders: list[str], count: int = 3) -> Path:
    return images.write_folder(root, dict.fromkeys(folders, count))


def add(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        images.picture(zlib.crc32(file.name.encode()) % 1000).save(file, format="PNG")


def pictures(*names: str) -> dict[str, bytes]:
    """Members of a tar, each with a content of its own."""
    return {name: images.png(images.picture(number)) for number, name in enumerate(names)}


# levels


@pytest.mark.parametrize(
    ("outer", "parts"),
    [
        (("fold1", "fold2"), ("train/", "val/")),
        (("siteA", "siteB", "siteC"), ("train/", "test/")),
        (("2019", "2020", "2021"), ("",)),
        (("google", "bing"), ("",)),
    ],
)
def test_folds_years_and_sources_around_classes_are_no_classes(root: Path, outer: tuple[str, ...], parts):
    """Divided within, and with a cover picture in some or in each, without which they would hold only folders."""
    write(root, [f"{one}/{part}{name}" for one in outer for part in parts for name in CLASSES])
    if parts == ("",):
        add(root / outer[0] / "cover.jpg")
    found = f"its classes one level further down. It has the folders {len(outer)} ({', '.join(sorted(outer))})"
    message = refusal(root)
    assert found in message and "in most of which are the same folders: 2 (cat, dog)" in message
    assert f"give one of them, as {root}/{min(outer)}, or" in message
    if parts == ("",):
        add(*(root / one / "cover.jpg" for one in outer))
        add(root / outer[0] / "fish" / "1.png")
        assert found in refusal(root)
        assert labels(root / outer[0])["dog/000.png"] == "dog"


def test_pictures_beside_the_same_folders_of_each_class_are_read_aloud(root: Path):
    """Originals beside what was made of them."""
    write(root, [f"{name}/{kind}" for name in CLASSES for kind in ("flipped", "turned")], 2)
    add(*(root / name / f"{number}.png" for name in CLASSES for number in range(3)))
    assert labels(root)["dog/turned/000.png"] == "dog"
    both = "2 (cat, dog), in most of which are the same folders: 2 (flipped, turned)"
    assert f"read as the classes: {both}, whose pictures are of the class around them" in notes(root)


@pytest.mark.parametrize("subs", [(("a", "b"), ("c", "d")), (("images",), ("images",)), (("a",), ())])
def test_folders_of_a_class_that_others_lack_are_of_the_class(root: Path, subs):
    for name, own in zip(CLASSES, subs, strict=True):
        add(*(root / name / f"{number}.png" for number in range(5)))
        write(root / name, list(own), 5)
    found = labels(root)
    assert set(found.values()) == set(CLASSES) and len(found) == 10 + 5 * sum(map(len, subs))
    assert not any("same folders" in note for note in notes(root))


# what is beside, hidden, or of another kind


def test_every_end_of_a_name_that_is_not_read_is_counted(root: Path):
    write(root, list(CLASSES), 5)
    for number in range(15):
        (root / "cat" / f"1.x{number:02}").touch()
    for name in ("a.TXT", "b.txt", "nosuffix"):
        (root / "dog" / name).touch()
    add(root / "dog" / "photo.jpe")
    kinds = ["2 .txt", *(f"1 .x{number:02}" for number in range(11))]
    assert f"not read, by the names of the files: {', '.join(kinds)}, and 5 more of 5 other kinds" in notes(root)
    assert labels(root)["dog/photo.jpe"] == "dog"


def test_files_around_the_class_folders_of_a_part_are_told(root: Path):
    write(root / "zip" / "train" / "train", list(CLASSES))
    write(root / "zip" / "test", list(CLASSES))
    add(root / "zip" / "train" / "sample.png")
    (root / "zip" / "labels.csv").touch()
    (root / "top.md").touch()
    found = notes(root)
    assert "not read, since they lie beside the class folders: 1 (sample.png)" in found
    assert any(note.startswith("not read, by the names of the files: 1 .") and ".csv" in note for note in found)


def test_what_well_known_tools_leave_is_known_and_classes_with_such_words_are_not(root: Path):
    junk = ["Network Trash Folder", "Temporary Items", "FOUND.000", "found.012", "_gsdata_", "@SynoResource", "@tmp"]
    junk += ["_thumbs", "Thumbnails", "CaptureOne", "_vti_cnf"]
    write(root, [*CLASSES, *junk, *(f"cat/{name}" for name in junk)], 5)
    assert set(labels(root).values()) == set(CLASSES) and len(labels(root)) == 10
    for name in ("thumb", "found", "found.object", "trash", "temporary", "network", "recycling", "gsdata", "thumbs_up"):
        assert not is_hidden(name)


def test_a_file_that_is_no_parquet_beside_class_folders_is_left_out_by_name(root: Path):
    write(root, list(CLASSES), 5)
    (root / "cat" / "emb.parquet").write_text("version https://git-lfs.github.com/spec/v1")
    assert "not read, since they hold no pictures and labels: 1 (cat/emb.parquet)" in notes(root)


def test_the_known_set_of_a_name_goes_before_a_folder_here_aloud(tmp_path: Path, monkeypatch):
    images.write_parquet_set(tmp_path / "cache" / "datasets" / "cifar10")
    write(tmp_path / "here" / "cifar10", list(CLASSES), 5)
    monkeypatch.chdir(tmp_path / "here")
    assert "cifar10 is the known set of this name; for the folder here, give ./cifar10" in notes("cifar10")
    assert len(labels("./cifar10")) == 10
    monkeypatch.chdir(tmp_path / "cache" / "datasets")
    assert not any("known set" in note for note in notes("cifar10"))


# shards


def test_folders_in_shards_are_classes_as_on_disk(tmp_path: Path):
    """Folders in class folders are of the class, over all shards, wrapped or not."""
    cats, dogs = ([f"pets/{name}/{number}.jpg" for number in range(5)] for name in CLASSES)
    images.write_tar(tmp_path / "a-0.tar", pictures(*(f"./{name}" for name in cats), "./pets/cat/sub/8.jpg"))
    images.write_tar(tmp_path / "a-1.tar", pictures(*dogs, "pets/dog/up/../9.jpg"))
    found = labels(f"wds:{tmp_path}/a-*.tar")
    assert found["a-0.tar pets/cat/sub/8.jpg"] == "cat" and found["a-1.tar pets/dog/9.jpg"] == "dog"
    assert sorted(found.values()) == ["cat"] * 6 + ["dog"] * 6
    shutil.rmtree(tmp_path / "cache")
    images.write_tar(tmp_path / "b.tar", pictures(*(f"train/n{n % 2}/images/{n}.jpg" for n in range(6))))
    assert sorted(labels(f"wds:{tmp_path}/b.tar").values()) == ["n0"] * 3 + ["n1"] * 3


@pytest.mark.parametrize(
    "names",
    [
        [f"data/{part}/{name}/{number}.jpg" for part in ("train", "test") for name in CLASSES for number in (0, 1)],
        [f"{name}/{part}/{number}.jpg" for part in ("train", "test") for name in CLASSES for number in (0, 1)],
        [f"val/{name}/{number}.jpg" for name in CLASSES for number in (0, 1)],
    ],
)
@pytest.mark.parametrize("file", ["all.tar", "train-0.tar"])
def test_another_part_within_shards_is_refused(tmp_path: Path, names: list[str], file: str):
    images.write_tar(tmp_path / file, pictures(*names))
    message = refusal(f"wds:{tmp_path}/{file}")
    assert f"{file} has a part of its own in " in message and "make a tar of each part" in message


def test_a_part_within_shards_with_numbers_is_refused_and_in_its_own_shard_read(tmp_path: Path):
    members = pictures(*(f"{part}/{number}.png" for part in ("train", "test") for number in range(2)))
    members |= {name.replace(".png", ".cls"): b"%d" % (number % 2) for number, name in enumerate(members)}
    images.write_tar(tmp_path / "all.tar", members)
    assert "has a part of its own in test/" in refusal(f"wds:{tmp_path}/all.tar")
    for part in ("train", "test"):
        own = {name: content for name, content in members.items() if name.startswith(part)}
        images.write_tar(tmp_path / f"x-{part}.tar", own)
    data = load_data_set(f"wds:{tmp_path}/x-*.tar")
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([0, 1], [0, 1])


def test_sources_around_classes_in_shards_are_refused(tmp_path: Path):
    names = [f"{one}/{name}/{number}.jpg" for one in ("bing", "google") for name in CLASSES for number in range(2)]
    images.write_tar(tmp_path / "a.tar", pictures(*names))
    assert "has only folders in its folders (2 (bing, google))" in refusal(f"wds:{tmp_path}/a.tar")
    images.write_tar(tmp_path / "a.tar", pictures(*names, "bing/cover.jpg"))
    assert "seems to have its classes one level further down" in refusal(f"wds:{tmp_path}/a.tar")


def test_what_is_left_out_of_shards_is_told_by_name_and_count(tmp_path: Path):
    kept = pictures(*(f"train/{name}/{number}.jpg" for name in CLASSES for number in range(5)), "train/lost.png")
    others = ["cat/._0.jpg", ".hidden.jpg", "cat/x.tga", "noext", "dog/a.txt", "dog/b.txt"]
    members = dict.fromkeys((*(f"train/{name}" for name in others), "__MACOSX/train/1.jpg", "../out.jpg"), b"")
    images.write_tar(tmp_path / "a.tar", kept | members)
    data = f"wds:{tmp_path}/a.tar"
    assert {
        "not read, since they lie beside the class folders: 1 (lost.png)",
        "not read, by the names of the files: 2 .txt, 1 .tga, 1 without a suffix",
        "not read, since hidden or made by a tool: 4 (._0.jpg, .hidden.jpg, 1.jpg, out.jpg)",
    } <= set(notes(data))
    assert len(labels(data)) == 10


# series and labels


def test_one_of_a_series_that_is_missing_is_named(root: Path, tmp_path: Path):
    content = [images.png(images.picture(number)) for number in range(5)]
    for number in (0, 2):
        images.write_parquet(root / f"train-{number:05}-of-00004-{number}f.parquet", content, [0, 1, 0, 1, 0])
    wanted = f"{root} lacks 2 (train-00001-of-00004.parquet, train-00003-of-00004.parquet) of the files that its names"
    assert wanted in refusal(root)
    for number in (0, 1):
        images.write_tar(tmp_path / f"s-{number}-of-3.tar", pictures(*(f"{name}/{number}.png" for name in CLASSES)))
    for pattern in ("*.tar", "s-*-of-3.tar", "{s-0,s-?}-of-3.tar", "**/s-*.tar"):
        assert "lacks 1 (s-2-of-3.tar) of the shards" in refusal(f"wds:{tmp_path}/{pattern}")
    assert len(labels(f"wds:{tmp_path}/s-{{0,1}}-of-3.tar")) == 4  # as was asked


def test_a_series_counts_from_0_or_from_1():
    def lost(*names: str) -> list[str]:
        return [path.name for path in missing(map(Path, names))]

    assert lost("a-0-of-3.x", "a-2-of-3.x") == ["a-1-of-3.x"]
    assert lost("a-1-of-3.x", "a-3-of-3.x") == ["a-2-of-3.x"]
    assert lost("a-00000-of-00001.x", "b-00000-of-00002.x") == ["b-00001-of-00002.x"]
    assert lost("1-of-us.x", "train-0.x", "f/a-0-of-1.x") == []


def test_a_class_without_pictures_of_a_part_is_named_by_every_verb(deepres, root: Path):
    write(root, [*(f"train/{name}" for name in ("cat", "cow", "dog")), "test/cow"], 4)
    wanted = "has no test picture of 2 (cat, dog) of the 3 classes"
    trained = deepres("train", "resnet8", "--data", root, *SHORT, "--run", "run")
    assert trained.returncode == 0 and trained.stderr.count(wanted) == 1
    assert deepres("data", "info", root).stderr.count(wanted) == 1
    assert deepres("data", "check", root, "--workers", 0).stderr.count(wanted) == 1
    tested = deepres("eval", "run")
    assert tested.returncode == 0 and tested.stderr.count(wanted) == 1
    assert "no training picture of" not in trained.stderr


def test_a_class_without_training_pictures_is_named(tmp_path: Path):
    content = [images.png(images.picture(number)) for number in range(4)]
    for part, own in (("train", [0, 0, 2, 2]), ("test", [0, 1, 2, 2])):
        images.write_parquet(tmp_path / "set" / f"{part}.parquet", content, own, names=["ant", "bee", "cow"])
    data = tmp_path / "set"
    assert f"warning: {data} has no training picture of 1 (bee) of the 3 classes" in notes(data)


def test_finetuning_on_data_that_changed_all_is_told(deepres, root: Path):
    write(root, [f"{part}/{name}" for part in ("train", "test") for name in CLASSES], 4)
    assert deepres("train", "resnet8", "--data", root, *SHORT, "--run", "run").returncode == 0
    for number, file in enumerate(sorted(root.rglob("*.png"))):
        images.picture(5000 + number).save(file)
    done = deepres("finetune", "run", "--data", root, *SHORT, "--run", "next")
    assert done.returncode == 0, done.stderr
    told = f"these are not all the pictures that {root.parent / 'run'} was trained on: of the training pictures 8 added"
    assert told in done.stderr and "8 gone, and of the test pictures 8 with other content" in done.stderr
    tested = deepres("eval", "run", "--data", root, "--json")
    assert tested.returncode == 0 and json.loads(tested.stdout)["images"] == 8
    assert "was tested on when it was trained: 8 with other content" in tested.stderr
    other = write(root.parent / "other", [f"{part}/{name}" for part in ("train", "test") for name in CLASSES], 2)
    for number, file in enumerate(sorted(other.rglob("*.png"))):
        images.picture(7000 + number).save(file)
    assert "not all the pictures" not in deepres("finetune", "run", "--data", other, *SHORT, "--run", "third").stderr


def test_a_new_run_among_class_folders_is_refused_and_leaves_nothing(deepres, refused, root: Path, monkeypatch):
    """Else it would be a class of its own data; beside train/ and hidden it may lie."""
    write(root / "flat", list(CLASSES), 5)
    write(root / "parted", [f"{part}/{name}" for part in ("train", "test") for name in CLASSES], 4)
    wanted = "would lie within its data"
    for run in ("flat/runs/mine", "flat/cat/mine", "flat"):
        assert wanted in refused("train", "resnet8", "--data", root / "flat", *SHORT, "--run", root / run)
    assert not (root / "flat" / "runs").exists() and len(labels(root / "flat")) == 10
    assert wanted in refused("train", "resnet8", "--data", root / "parted", *SHORT, "--run", root / "parted/train/mine")
    for data, run in (("flat", "flat/.runs/mine"), ("parted", "parted/runs/mine")):
        assert deepres("train", "resnet8", "--data", root / data, *SHORT, "--run", root / run).returncode == 0
        assert deepres("eval", root / run).returncode == 0
