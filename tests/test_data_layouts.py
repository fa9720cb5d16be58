"""Which folders are read as parts and which as classes, whatever a stranger has called them and put around them."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

import images
from deepres.data.part_names import part_name
from deepres.data.sources import load_data_set
from deepres.runtime.errors import InputError

COUNTS = {"rose": 2, "tulip": 1}


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    return images.isolate(monkeypatch, tmp_path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "set"


def found(root: Path, said: list[str] | None = None) -> tuple[tuple[str, ...], list[int], list[int]]:
    """The classes, and the labels of both parts."""
    data = load_data_set(str(root), progress=(said if said is not None else []).append)
    return data.classes, data.train.labels.tolist(), data.test.labels.tolist()


def refusal(root: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_data_set(str(root))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def notes(root: Path) -> list[str]:
    """What is said of the folder, without the name of it."""
    said: list[str] = []
    load_data_set(str(root), progress=said.append)
    return [line.removeprefix(f"{root}: ") for line in said]


def write(root: Path, folders: Iterable[str], count: int = 1) -> Path:
    return images.write_folder(root, dict.fromkeys(folders, count))


PARTS = [
    ("training_set", "test_set"),
    ("seg_train", "seg_test"),
    ("train_images", "val_images"),
    ("Training Set", "Test Set"),
    ("TrainSet", "ValidationSet"),
    ("train", "eval"),
    ("train", "evaluation"),
    ("train", "holdout"),
    ("train", "hold-out"),
    ("Train", "Hold_Out"),
    ("TRAIN", "VALID"),
    ("trainset", "testset"),
    ("images_train", "images_test"),
    ("train2017", "val2017"),
    ("training", "dev"),
    ("train-data", "validation-data"),
    ("flowers_train", "flowers_test"),
    ("ILSVRC2012_img_train", "ILSVRC2012_img_val"),
]


@pytest.mark.parametrize(("train", "test"), PARTS)
def test_the_usual_names_of_parts_are_known(root: Path, train: str, test: str):
    """In any case, with spaces, dashes, underscores and the words that say nothing."""
    images.write_folder(root / train, COUNTS)
    images.write_folder(root / test, {"rose": 1, "tulip": 1})
    assert found(root) == (("rose", "tulip"), [0, 0, 1], [0, 1])


@pytest.mark.parametrize(
    "name", ["train_station", "steam train", "testimony", "valley", "contest", "pretrained", "latest", "trainer", "a"]
)
def test_a_class_may_have_a_name_with_such_a_word_in_it(root: Path, name: str):
    write(root, [name, "other"], 5)
    assert found(root)[0] == tuple(sorted((name, "other")))
    own = part_name(name)
    assert own is None or not own.is_plain


@pytest.mark.parametrize("within", ["flowers", "flowers/flowers", "archive/My Data/flowers"])
def test_folders_around_a_data_set_are_gone_through(root: Path, within: str):
    """As archives have them, with the parts in them and with classes alone."""
    images.write_folder(root / within / "train", COUNTS)
    images.write_folder(root / within / "test", {"rose": 1, "tulip": 1})
    assert found(root) == (("rose", "tulip"), [0, 0, 1], [0, 1])
    assert f"read from {within}/, the only folder" in notes(root)
    shutil.rmtree(root)
    images.write_folder(root / within, {"rose": 5, "tulip": 5})
    (root / "__MACOSX").mkdir()
    (root / "readme.txt").touch()
    assert found(root)[0] == ("rose", "tulip")


def test_parts_that_are_wrapped_once_more_are_unwrapped(root: Path):
    """Kaggle's Intel set, whose third folder has pictures without classes."""
    images.write_folder(root / "seg_train" / "seg_train", COUNTS)
    images.write_folder(root / "seg_test" / "seg_test", {"rose": 1, "tulip": 1})
    write(root / "seg_pred", ["seg_pred"])
    assert found(root) == (("rose", "tulip"), [0, 0, 1], [0, 1])
    assert "seg_pred/ is not used, since its name is not that of a part" in notes(root)


def test_a_division_within_the_classes_is_read_as_it_is_meant(root: Path):
    write(root, ["rose/Train", "tulip/Train"], 2)
    write(root, ["rose/test"], 1)
    write(root, ["tulip/test"], 3)
    assert found(root) == (("rose", "tulip"), [0, 0, 1, 1], [0, 1, 1, 1])
    write(root, ["tulip/val", "tulip/more"], 1)
    assert {"tulip/val/ is not used", "tulip/more/ is not used"} <= set(notes(root))


@pytest.mark.parametrize("more", [["lily"], ["lily/test"], ["rose"]])
def test_a_division_of_some_classes_is_refused(root: Path, more: list[str]):
    """A class with its pictures as they are, one with a test part alone, and one with pictures beside its parts."""
    write(root, ["rose/train", "rose/test", "tulip/train", "tulip/test"])
    for number, name in enumerate(more):
        (root / name).mkdir(parents=True, exist_ok=True)
        images.picture(number).save(root / name / "more.png")
    message = refusal(root)
    assert "seems to be divided within its classes" in message
    assert f"but {more[0].split('/')[0]}/ has no training part or has pictures beside it" in message


def test_a_class_called_other_is_a_class(root: Path):
    write(root, ["rose", "__other__", "_tulip"], 5)
    assert found(root)[0] == ("__other__", "_tulip", "rose")


def test_pictures_in_folders_of_a_class_are_of_the_class(root: Path):
    """With pictures beside them, with one folder in each class, as Tiny ImageNet has it, and with its two levels."""
    write(root, ["rose", "tulip", "rose/red", "rose/white/large"], 5)
    data = load_data_set(str(root))
    assert (data.train.labels.tolist() + data.test.labels.tolist()).count(0) == 15 and len(data.classes) == 2
    shutil.rmtree(root)
    write(root / "train", ["n01/images", "n02/images"], 3)
    write(root / "val", ["n01/images", "n02/images"], 1)
    assert found(root) == (("n01", "n02"), [0, 0, 0, 1, 1, 1], [0, 1])


def test_parts_whose_pictures_have_no_classes_are_left_out_by_name(root: Path):
    """Tiny ImageNet as it is fetched."""
    write(root / "tiny-imagenet-200" / "train", ["n01/images", "n02/images"], 10)
    write(root / "tiny-imagenet-200", ["val/images", "test/images"])
    assert len(load_data_set(str(root)).train) + len(load_data_set(str(root)).test) == 20
    reason = "is not used, since it has no class folders"
    assert {f"val/ {reason}", f"test/ {reason}"} <= set(notes(root))


def test_what_holds_only_folders_is_not_taken_for_classes(root: Path):
    write(root, ["lot1/rose", "lot1/tulip", "lot2/rose", "lot2/tulip"])
    message = refusal(root)
    assert f"{root} has only folders in its folders (2 (lot1, lot2)), as lot1/rose/" in message
    assert "give the folder that holds the class folders" in message
    shutil.rmtree(root)
    write(root, ["Annotations/rose", "Annotations/tulip", "Data/CLS/train/rose", "Data/CLS/val/rose"])
    assert f"give {root}/Data/CLS, which has parts" in refusal(root)


def test_two_data_sets_or_two_training_parts_are_refused(root: Path):
    write(root, ["train/rose", "training/rose", "test/rose"])
    assert "has 2 training parts (train, training); move all but one away" in refusal(root)
    shutil.rmtree(root)
    write(root, ["train/train/rose", "train/test/rose", "test/rose"])
    assert f"{root}/train is divided into parts by itself (test, train)" in refusal(root)


def test_a_folder_of_pictures_without_classes_is_no_class(root: Path):
    """A name that says nothing, alone."""
    write(root, ["images"], 5)
    assert "has its pictures in images/ alone, which names no class" in refusal(root)


def test_of_several_test_parts_the_first_by_rank_is_used_and_the_others_are_told_of(root: Path):
    write(root, ["train/rose", "val/rose", "eval/rose", "docs"])  # the last with a picture of its own
    write(root, ["Test Set/rose"], 2)
    (root / "holdout").mkdir()
    images.picture().save(root / "holdout" / "1.png")
    assert found(root) == (("rose",), [0], [0, 0])
    assert {
        "val/ is not used, since Test Set/ is the test part",
        "eval/ is not used, since Test Set/ is the test part",
        "holdout/ is not used, since it has no class folders",
        "docs/ is not used, since its name is not that of a part",
    } <= set(notes(root))


def test_an_empty_test_part_is_not_passed_over(root: Path):
    """An unfinished copy."""
    write(root, ["train/rose"], 5)
    (root / "test").mkdir()
    assert f"{root}/test has no class folders" in refusal(root)


def test_what_lies_beside_the_class_folders_is_told_by_name(root: Path):
    """Pictures by name, other files by the end of their names, and what is hidden."""
    write(root / "train", ["rose", "tulip"], 5)
    for name in ("lost.png", "train/stray.png"):
        images.picture().save(root / name)
    for name in ("readme.txt", "train/labels.csv", "train/rose/more.csv", "train/rose/Thumbs.db", ".DS_Store"):
        (root / name).touch()
    assert {
        "not read, since they lie beside the class folders: 2 (lost.png, stray.png)",
        "not read, by the names of the files: 2 .csv, 1 .txt",
        "not read, since hidden or made by a tool: 2 (.DS_Store, Thumbs.db)",
    } <= set(notes(root))


def test_parquet_files_without_pictures_beside_class_folders_are_left_out_by_name(root: Path):
    write(root, ["rose", "tulip"], 5)
    for name in ("embeddings.parquet", "rose/train.parquet"):
        images.write_parquet(root / name, [b""], [0], image="embedding")
    assert found(root)[0] == ("rose", "tulip")
    told = "not read, since they hold no pictures and labels: 2 (embeddings.parquet, rose/train.parquet)"
    assert told in notes(root)


def test_two_whole_data_sets_in_one_folder_are_asked_about(root: Path):
    write(root, ["rose", "tulip"], 5)
    images.write_parquet_set(root / "data")
    assert "has Parquet files with pictures and class folders, too" in refusal(root)


def test_parquet_beside_other_tables_and_a_few_pictures_is_read(root: Path):
    """A data set of the hub with the pictures of its page."""
    images.write_parquet_set(root / "data", names=["ant", "bee"])
    images.write_parquet(root / "data" / "train_embeddings.parquet", [b""], [0], image="embedding")
    images.write_parquet(root / "data" / "extra.parquet", [images.png(images.picture())], [0])
    write(root, ["assets"], 2)
    classes, train, test = found(root)
    assert (classes, len(train), len(test)) == (("ant", "bee"), 10, 4)
    assert {
        "Parquet files that are not read: 2 (data/extra.parquet, data/train_embeddings.parquet)",
        "not read, by the names of the files: 2 .png",
    } <= set(notes(root))
