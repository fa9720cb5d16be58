"""Folders and Parquet files: what is read, how it is divided, and what is refused in one sentence."""

from pathlib import Path

import pytest
import torch
from PIL import Image

import images
from deepres.data import decode
from deepres.data.pictures import pictures_of
from deepres.data.sources import describe_data_set, load_data_set
from deepres.runtime.errors import InputError


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    return images.isolate(monkeypatch, tmp_path)


def pixels(image: Image.Image) -> torch.Tensor:
    return (
        torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8)
        .view(image.height, image.width, 3)
        .permute(2, 0, 1)
    )


def refusal(data: Path | str, **how: object) -> str:
    with pytest.raises(InputError) as caught:
        load_data_set(str(data), **how)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Parquet


def test_parquet_gives_pixels_labels_and_class_names(tmp_path: Path):
    """Images in the order of the rows, names from the Hugging Face metadata."""
    images.write_parquet_set(tmp_path / "set", names=["cat", "dog"])
    data = load_data_set(str(tmp_path / "set"))
    assert data.classes == ("cat", "dog") and data.size == (8, 8) and data.channels == 3
    assert data.train.labels.tolist() == [0, 1] * 5 and len(data.test) == 4
    assert torch.equal(data.train.images[3], pixels(images.picture(3)))


def test_parquet_without_names_numbers_the_classes(tmp_path: Path):
    """Also: columns `image` and `fine_label`, files in data/, several to a split, validation where test is missing."""
    for number in range(2):
        file = tmp_path / "set" / "data" / f"train-{number}.parquet"
        images.write_parquet(file, [images.png(images.picture(number))], [number], image="image", label="fine_label")
    file = tmp_path / "set" / "data" / "validation-0.parquet"
    images.write_parquet(file, [images.png(images.picture(9))], [1], image="image", label="fine_label")
    data = load_data_set(str(tmp_path / "set"))
    assert data.classes == ("0", "1") and data.train.labels.tolist() == [0, 1] and len(data.test) == 1


def test_a_parquet_file_cut_short_is_named(tmp_path: Path):
    """Half a file, as an interrupted download leaves it."""
    file = images.write_parquet_set(tmp_path / "set") / "train.parquet"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert f"{file} is not a whole Parquet file" in refusal(tmp_path / "set")


def test_the_test_pictures_are_found_without_reading_those_of_the_training(tmp_path: Path):
    """Of ImageNet these are 140 GB."""
    pictures = pictures_of(str(images.write_parquet_set(tmp_path / "set")), "test", None, False, print)
    (tmp_path / "set" / "train.parquet").unlink()
    assert [found.name for found in pictures.decoded()] == [f"test.parquet row {row}" for row in range(4)]


def test_a_parquet_file_damaged_inside_is_refused(tmp_path: Path):
    """A whole footer over pages of zeros."""
    file = images.write_parquet_set(tmp_path / "set") / "train.parquet"
    content = file.read_bytes()
    file.write_bytes(content[:4] + bytes(400) + content[404:])
    assert str(file) in refusal(tmp_path / "set")


@pytest.mark.parametrize(("columns", "missing"), [({"image": "photo"}, "img or image"), ({"label": "kind"}, "label")])
def test_a_parquet_file_without_the_columns_says_which_it_has(tmp_path: Path, columns: dict[str, str], missing: str):
    """The sentence names the missing column and those that are there."""
    images.write_parquet_set(tmp_path / "set", **columns)
    message = refusal(tmp_path / "set")
    assert f"no column {missing}" in message and next(iter(columns.values())) in message


@pytest.mark.parametrize("label", [-1, 2, None])
def test_a_label_out_of_range_is_named_by_file_and_row(tmp_path: Path, label: int | None):
    """Negative, as many as there are names, and missing."""
    images.write_parquet_set(tmp_path / "set", names=["cat", "dog"])
    contents = [images.png(images.picture(index)) for index in range(3)]
    images.write_parquet(tmp_path / "set" / "train.parquet", contents, [0, 1, label], names=["cat", "dog"])
    message = refusal(tmp_path / "set", skip_bad=True)
    assert f"train.parquet row 2 has the label {'null' if label is None else f'{label}, not 0 to 1'}; mend" in message


def test_text_labels_are_not_labels(tmp_path: Path):
    """A label column of strings is refused as missing."""
    images.write_parquet(tmp_path / "set" / "train.parquet", [images.png(images.picture())], ["cat"])
    assert "whole numbers" in refusal(tmp_path / "set")


def test_an_image_that_does_not_decode_is_named_and_can_be_skipped(tmp_path: Path):
    """No picture at all, a picture cut short, and a row without bytes."""
    whole = images.png(images.picture(0, (64, 64)))
    contents = [whole, b"no picture", whole[: len(whole) // 2], None, whole]
    for part in ("train", "test"):
        images.write_parquet(tmp_path / "set" / f"{part}.parquet", contents, [0, 0, 0, 0, 1])
    assert "train.parquet row 1 does not decode" in refusal(tmp_path / "set")
    said: list[str] = []
    for _ in range(2):  # decoded, and from the cache
        data = load_data_set(str(tmp_path / "set"), skip_bad=True, progress=said.append)
        assert data.train.labels.tolist() == [0, 1] and len(data.train.images) == 2
        assert data.train.skipped == tuple(f"train.parquet row {row}" for row in (1, 2, 3))
    assert "left out 3" in said[-1]


def test_parquet_of_two_data_sets_or_without_training_files_is_refused(tmp_path: Path):
    """One folder, one data set."""
    images.write_parquet_set(tmp_path / "both" / "a")
    images.write_parquet_set(tmp_path / "both" / "b")
    assert "several data sets" in refusal(tmp_path / "both")
    images.write_parquet(tmp_path / "other" / "part-0.parquet", [images.png(images.picture())], [0])
    assert "none named train" in refusal(tmp_path / "other")


@pytest.mark.parametrize("missing", [-1, None])
def test_a_test_part_without_labels_gives_way_to_the_validation_part(tmp_path: Path, missing: int | None):
    """ImageNet on the Hugging Face hub: the labels of its test part are not public."""
    root = images.write_parquet_set(tmp_path / "set", names=["ant", "bee"])
    (test,) = root.rglob("test*.parquet")
    test.rename(test.with_name("validation-0.parquet"))
    images.write_parquet(test, [images.png(images.picture())] * 3, [missing, -1, missing])
    assert len(load_data_set(str(root)).test) == 4


# image folders


def test_an_image_folder_with_train_and_test_is_read_as_it_stands(tmp_path: Path):
    """Class folders in sorted order; hidden folders and other files are no classes and no pictures."""
    images.write_folder(tmp_path / "set" / "train", {"rose": 2, "daisy": 3})
    images.write_folder(tmp_path / "set" / "val", {"daisy": 1, "rose": 1})
    (tmp_path / "set" / "train" / ".git").mkdir()
    (tmp_path / "set" / "train" / "rose" / "notes.txt").write_text("no picture")
    data = load_data_set(str(tmp_path / "set"))
    assert data.classes == ("daisy", "rose")
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1] and data.test.labels.tolist() == [0, 1]


def test_a_test_folder_without_classes_gives_way_to_the_validation_folder(tmp_path: Path):
    """As ImageNet comes from a contest."""
    images.write_folder(tmp_path / "set" / "train", {"a": 2, "b": 2})
    images.write_folder(tmp_path / "set" / "val", {"a": 1, "b": 1})
    (tmp_path / "set" / "test").mkdir()
    images.picture().save(tmp_path / "set" / "test" / "1.png")
    assert len(load_data_set(str(tmp_path / "set")).test) == 2


def test_parts_may_be_called_training_and_testing_in_any_case(tmp_path: Path):
    for train, test in (("Training", "Testing"), ("TRAIN", "Test")):
        images.write_folder(tmp_path / train / train, {"a": 2, "b": 2})
        images.write_folder(tmp_path / train / test, {"a": 1, "b": 1})
        data = load_data_set(str(tmp_path / train))
        assert data.classes == ("a", "b") and (len(data.train), len(data.test)) == (4, 2)


def test_what_is_not_read_is_told(tmp_path: Path):
    """A validation part beside a test part, and files whose names are not those of pictures."""
    for part in ("train", "val", "test"):
        images.write_folder(tmp_path / "set" / part, {"a": 2, "b": 2})
    for name in ("1.psd", "2.PSD", "notes.txt", ".hidden"):
        (tmp_path / "set" / "train" / "a" / name).write_bytes(b"")
    said: list[str] = []
    load_data_set(str(tmp_path / "set"), progress=said.append)
    assert f"{tmp_path / 'set'}: val/ is not used, since test/ is the test part" in said
    assert f"{tmp_path / 'set'}: not read, by the names of the files: 2 .psd, 1 .txt" in said


def test_an_empty_class_folder_is_named(tmp_path: Path):
    """An unfinished copy is not trained on."""
    images.write_folder(tmp_path / "set", {"a": 5, "b": 0})
    assert f"the class folder {tmp_path / 'set' / 'b'} has no pictures" in refusal(tmp_path / "set")


def test_folders_that_are_no_data_set_are_refused(tmp_path: Path):
    """No classes, classes beside a test part, a test class that is not trained."""
    assert "no class folders" in refusal(tmp_path)
    images.write_folder(tmp_path / "set", {"test/a": 1, "b": 1})
    assert "no train/" in refusal(tmp_path / "set")
    (tmp_path / "set" / "train").mkdir()
    (tmp_path / "set" / "b").rename(tmp_path / "set" / "train" / "b")
    assert "has the class 'a'" in refusal(tmp_path / "set")


def test_pictures_of_different_sizes_need_an_image_size(tmp_path: Path):
    """The sentence suggests the option; with it, the shorter side is resized and the middle kept."""
    images.write_folder(tmp_path / "set", {"a": 5})
    wide = Image.new("RGB", (30, 10), "black")
    wide.paste("white", (7, 0, 23, 10))
    wide.save(tmp_path / "set" / "a" / "000.png")
    assert "--image-size 32" in refusal(tmp_path / "set")
    data = load_data_set(str(tmp_path / "set"), image_size=4)
    assert data.size == (4, 4) and data.train.images[0].min() == 255
    assert "above 0" in refusal(tmp_path / "set", image_size=0)


def test_grayscale_stays_one_channel_only_where_all_are(tmp_path: Path):
    """One colour picture makes all RGB; palettes and transparency become RGB."""
    images.write_folder(tmp_path / "set", {"a": 5}, mode="L")
    assert load_data_set(str(tmp_path / "set")).channels == 1
    colour = images.picture(0)
    colour.putalpha(255)
    colour.save(tmp_path / "set" / "a" / "000.png")
    palette = images.picture(1).quantize(16)
    palette.save(tmp_path / "set" / "a" / "001.png", transparency=bytes(range(16)))
    data = load_data_set(str(tmp_path / "set"))
    assert data.channels == 3
    assert torch.equal(data.train.images[0], pixels(images.picture(0)))
    assert torch.equal(data.train.images[2, 0], data.train.images[2, 2])


def test_sixteen_bits_of_gray_keep_their_upper_eight(tmp_path: Path):
    """Pillow would turn all above 255 to white."""
    images.write_folder(tmp_path / "set", {"a": 5}, mode="L")
    Image.new("I;16", (8, 8), 40_000).save(tmp_path / "set" / "a" / "000.png")
    data = load_data_set(str(tmp_path / "set"))
    assert data.channels == 1 and data.train.images[0].unique().tolist() == [40_000 // 256]


def test_the_exif_orientation_is_applied(tmp_path: Path):
    """A camera held sideways: stored 8x4, seen 4x8, and turned clockwise."""
    stored = images.picture(0, (8, 4))
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "set" / "a").mkdir(parents=True)
    for index in range(5):
        stored.save(tmp_path / "set" / "a" / f"{index}.png", exif=exif)
    data = load_data_set(str(tmp_path / "set"))
    assert data.size == (8, 4)
    assert torch.equal(data.train.images[0], pixels(stored).rot90(-1, (1, 2)))


def test_more_pixels_than_the_limit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Before they are decoded."""
    images.write_folder(tmp_path / "set", {"a": 5})
    monkeypatch.setattr(decode, "LIMIT_BYTES", 100)
    assert "more than the limit" in refusal(tmp_path / "set")


# names


def test_an_unknown_name_suggests_the_nearest_and_a_missing_path_says_so(tmp_path: Path):
    """A typing error, a word that is like no name, a path, and a file."""
    assert "did you mean cifar10?" in refusal("cifra10")
    assert "give cifar10, cifar100, fashion-mnist" in refusal("zebra")
    assert "does not exist" in refusal(tmp_path / "missing")
    (tmp_path / "file").touch()
    assert "is a file" in refusal(tmp_path / "file")


def test_an_empty_name_is_not_the_folder_at_hand():
    """`--data ""`, as a shell variable that is not set gives it."""
    assert "has no name" in refusal("")


def test_names_are_looked_for_in_the_shared_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Known names and others; a shared folder that does not exist is not passed over in silence."""
    images.write_parquet_set(tmp_path / "shared" / "cifar10")
    images.write_folder(tmp_path / "shared" / "flowers", {"a": 5})
    monkeypatch.setenv("DEEPRES_DATA", str(tmp_path / "shared"))
    assert load_data_set("cifar10").source == str(tmp_path / "shared" / "cifar10")
    assert load_data_set("flowers").classes == ("a",)
    monkeypatch.setenv("DEEPRES_DATA", str(tmp_path / "gone"))
    assert "DEEPRES_DATA names" in refusal("cifar10")


def test_describe_tells_counts_size_and_mean_by_channel(tmp_path: Path):
    """Half of the training pictures red, half black: a mean of 0.5 in the first channel."""
    contents = [images.png(Image.new("RGB", (4, 6), colour)) for colour in ("red", "black")]
    for part in ("train", "test"):
        images.write_parquet(tmp_path / "set" / f"{part}.parquet", contents, [0, 1], names=["red", "black"])
    facts = describe_data_set(load_data_set(str(tmp_path / "set")))
    assert facts["mean"] == [0.5, 0, 0] and facts["size"] == [6, 4] and facts["channels"] == 3
    assert facts["train"] == {"images": 2, "per_class": {"red": 1, "black": 1}, "skipped": []}
    assert facts["source"] == str(tmp_path / "set")


def test_a_class_may_be_called_train(tmp_path: Path):
    images.write_folder(tmp_path / "set", {"car": 5, "train": 5})
    assert load_data_set(str(tmp_path / "set")).classes == ("car", "train")
    images.write_folder(tmp_path / "set" / "train", {"steam": 5})
    assert "car/ beside it" in refusal(tmp_path / "set")


def test_a_class_of_hidden_files_alone_is_empty(tmp_path: Path):
    """As archives of a Mac have them."""
    images.write_folder(tmp_path / "set", {"a": 5, "b": 5})
    for file in (tmp_path / "set" / "b").iterdir():
        file.rename(file.with_name(f"._{file.name}"))
    assert "has no pictures" in refusal(tmp_path / "set")


def test_a_label_that_is_an_id_is_refused(tmp_path: Path):
    contents = [images.png(images.picture(index)) for index in range(6)]
    images.write_parquet(tmp_path / "set" / "train.parquet", contents, [1234567890] * 6)
    assert "label 1234567890" in refusal(tmp_path / "set")


def test_postscript_under_the_name_of_a_picture_runs_nothing(tmp_path: Path):
    images.write_folder(tmp_path / "set", {"a": 5, "b": 5})
    (tmp_path / "set" / "a" / "000.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EOF\n")
    assert "it is not a picture" in refusal(tmp_path / "set")
