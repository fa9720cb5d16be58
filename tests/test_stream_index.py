"""The index: any picture at random, the same in every layout; tar shards, and what is wrong with them."""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch

import images
from deepres.data.patterns import expand
from deepres.data.sources import load_data_set
from deepres.data.stream.index import Parts, Strings, open_index
from deepres.runtime.errors import InputError


def index(data: object) -> Parts:
    return open_index(str(data), lambda message: None)


def refusal(data: object) -> str:
    with pytest.raises(InputError) as caught:
        index(data)
    return str(caught.value)


def content(parts: Parts) -> list[tuple[bytes, int]]:
    return [(part.encoded(place), int(part.labels[place])) for part in parts for place in range(len(part))]


@pytest.fixture
def layouts(tmp_path: Path) -> dict[str, str]:
    """The same ten training and four test pictures as Parquet, as tar shards and as a folder."""
    root = images.write_parquet_set(tmp_path / "parquet", names=["ant", "bee"])
    parts = {"train": range(10), "test": range(1000, 1004)}
    for part, numbers in parts.items():
        ordered = sorted(numbers, key=lambda number: (number % 2, number))
        for place, number in enumerate(ordered):
            file = tmp_path / "folder" / part / ("ant", "bee")[number % 2] / f"{place:03}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            images.picture(number).save(file)
        for half in (0, 1):
            some = list(numbers)[half * len(numbers) // 2 : (half + 1) * len(numbers) // 2]
            images.write_tar(
                tmp_path / "tars" / f"{part}-{half:03}.tar", images.samples(some[0], len(some), ("cls", "json")[half])
            )
    (tmp_path / "tars" / "classnames.txt").write_text("ant\nbee\n")
    return {
        "parquet": str(root),
        "tars": f"wds:{tmp_path}/tars/{{train,test}}-*.tar",
        "folder": str(tmp_path / "folder"),
    }


def test_every_layout_gives_the_same_pictures(layouts: dict[str, str]):
    """Encoded bytes and labels; and where the order agrees, the same fingerprint."""
    parquet, tars, folder = (index(layouts[name]) for name in ("parquet", "tars", "folder"))
    assert [len(parquet.train), len(parquet.test)] == [10, 4]
    assert content(parquet) == content(tars)
    assert [part.fingerprint for part in parquet] == [part.fingerprint for part in tars]
    assert sorted(content(folder)) == sorted(content(tars))
    assert parquet.train.classes == tars.test.classes == folder.train.classes == ("ant", "bee")
    assert tars.train.names[6] == "train-001.tar 0006.jpg" and folder.train.names[0] == "train/ant/000.png"


def test_tar_shards_can_be_resident_too(layouts: dict[str, str]):
    """`load` takes the same pattern, and decodes the same pictures as from Parquet."""
    assert load_data_set(layouts["tars"]).fingerprint == load_data_set(layouts["parquet"]).fingerprint


def test_a_second_opening_reads_no_picture(layouts: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    """Only what changed is looked into again, and then the fingerprint changes."""
    for data in layouts.values():
        first = index(data)
        with monkeypatch.context() as patch:
            patch.setattr("deepres.data.stream.index._make_index", lambda *_: pytest.fail("built again"))
            assert content(index(data)) == content(first)
    before = index(layouts["folder"])
    images.picture(99).save(Path(layouts["folder"]) / "train" / "ant" / "000.png")
    after = index(layouts["folder"])
    assert after.train.fingerprint != before.train.fingerprint and after.test.fingerprint == before.test.fingerprint


def test_lost_unpacked_pictures_and_a_damaged_index_are_made_again(layouts: dict[str, str], tmp_path: Path):
    """What lies in the cache folder may be deleted or cut short at any time."""
    expected = content(index(layouts["parquet"]))
    folder = Path(os.environ["DEEPRES_CACHE"]) / "index"
    (unpacked,) = folder.glob("*.pictures")
    unpacked.write_bytes(b"short")
    assert content(index(layouts["parquet"])) == expected
    for file in folder.glob("*.safetensors"):
        file.write_bytes(b"damaged")
    assert content(index(layouts["parquet"])) == expected


def test_unpacked_pictures_are_found_where_the_cache_folder_is_now(
    layouts: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A relative `DEEPRES_CACHE`, and one that was moved."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEEPRES_CACHE", "here")
    expected = content(index(layouts["parquet"]))
    Path("here").rename("there")
    monkeypatch.setenv("DEEPRES_CACHE", "there")
    monkeypatch.setattr("deepres.data.stream.index._make_index", lambda *_: pytest.fail("built again"))
    assert content(index(layouts["parquet"])) == expected and len(expected) == 14


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="sets a limit of Unix")
def test_a_full_disk_is_told_and_leaves_no_half_of_an_index(layouts: dict[str, str], tmp_path: Path):
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600));"
        "from deepres.cli import main; sys.argv[1:] = ['data', 'check', sys.argv[1]]; main()"
    )
    cache = tmp_path / "small"
    environment = os.environ | {"DEEPRES_CACHE": str(cache)}
    command = [sys.executable, "-c", code, layouts["folder"]]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (result.returncode, "cannot be indexed" in result.stderr) == (2, True), result.stderr
    assert not list(cache.rglob("*.partial")) and not list(cache.rglob("*.safetensors"))


def test_a_pattern_is_expanded_as_in_a_shell():
    """Numbers keep their zeros, lists their order."""
    assert expand("a.tar") == ["a.tar"]
    assert expand("a-{08..10}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar"]
    assert expand("{b,a}{1..2}") == ["b1", "b2", "a1", "a2"]


def test_a_tar_of_class_folders_is_labelled_by_them(tmp_path: Path):
    """As `tar` makes it of an image folder, with its entries for folders; without test shards, some are held out."""
    images.write_folder(tmp_path / "set", {"ant": 5, "bee": 5})
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        tar.add(tmp_path / "set", arcname=".")
    parts = index(f"wds:{tmp_path}/set.tar")
    assert parts.train.classes == ("ant", "bee")
    named = {name: int(label) for part in parts for name, label in zip(part.names, part.labels, strict=True)}
    assert len(named) == 10 and named["set.tar ant/000.png"] == 0 and named["set.tar bee/003.png"] == 1


def test_torchvisions_imagenet_folder_has_its_english_names(tmp_path: Path):
    """`train/` and `val/` with WordNet numbers, and `meta.bin` as torchvision writes it."""
    for part in ("train", "val"):
        images.write_folder(tmp_path / part, {"n01440764": 2, "n01443537": 2})
    names = {"n01440764": ("tench", "Tinca tinca"), "n01443537": ("goldfish", "Carassius auratus")}
    torch.save((names, ["n01440764"] * 2), tmp_path / "meta.bin")
    parts = index(tmp_path)
    assert parts.train.classes == ("tench, Tinca tinca", "goldfish, Carassius auratus")
    assert parts.test.names[0] == "val/n01440764/000.png"
    (tmp_path / "meta.bin").write_bytes(b"damaged")
    assert "meta.bin does not hold" in refusal(tmp_path)


def test_a_damaged_shard_is_named(tmp_path: Path):
    """Cut short inside a picture, after one, overwritten between two, compressed, and no tar at all."""
    whole = images.write_tar(tmp_path / "train.tar", images.samples(0, 10)).read_bytes()
    with tarfile.open(tmp_path / "train.tar") as tar:
        middle = tar.getmembers()[10].offset
    gzip = io.BytesIO()
    with tarfile.open(fileobj=gzip, mode="w:gz") as tar:
        tar.add(tmp_path / "train.tar", arcname="a.jpg")
    damaged = {
        "inside": whole[: middle - 700],
        "between": whole[:middle],
        "overwritten": whole[:middle] + b"x" * 512 + whole[middle + 512 :],
        "compressed": gzip.getvalue(),
        "text": b"no tar",
    }
    for name, content in damaged.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.tar").write_bytes(content)
        message = refusal(f"wds:{tmp_path}/{name}/train.tar")
        assert f"{name}/train.tar" in message and ("not a whole" in message or "damaged" in message), message


def test_shards_without_labels_or_with_wrong_ones_are_refused(tmp_path: Path):
    """Each names the shard and the sample."""
    picture = images.png(images.picture(0))
    wrong = {
        "has no label": {"a.jpg": picture},
        "holds no label": {"a.jpg": picture, "a.cls": b"ant"},
        "two pictures of one sample": {"x/a.1.jpg": picture, "x/a.2.jpg": picture},
        "some only a folder": {"a.jpg": picture, "a.cls": b"0", "ant/b.jpg": picture},
        "has the label -1": {"a.jpg": picture, "a.cls": b"-1"},
    }
    for number, (message, members) in enumerate(wrong.items()):
        images.write_tar(tmp_path / f"{number}.tar", members)
        assert message in refusal(f"wds:{tmp_path}/{number}.tar")


def test_what_else_a_json_says_of_a_picture_does_not_matter_beside_its_cls(tmp_path: Path):
    picture = images.png(images.picture(0))
    members = {}
    for number in range(10):
        members |= {f"{number}.json": b'{"width": 20, "label": 9}', f"{number}.png": picture}
        members |= {
            f"{number}.cls": b"%d" % (number % 2),
            f"x{number}.png": picture,
            f"x{number}.json": b'{"label": 1}',
        }
    images.write_tar(tmp_path / "train.tar", members)
    parts = index(f"wds:{tmp_path}/train.tar")
    assert sorted(label for part in parts for label in part.labels.tolist()) == [0] * 5 + [1] * 15


def test_a_shard_that_does_not_say_its_part_among_others_that_do_is_refused(tmp_path: Path):
    for name in ("train-0", "validate-0", "extra-0"):
        images.write_tar(tmp_path / f"{name}.tar", images.samples(0, 6))
    assert "extra-0.tar does not say which part" in refusal(f"wds:{tmp_path}/*.tar")
    (tmp_path / "extra-0.tar").unlink()
    assert len(index(f"wds:{tmp_path}/*.tar").test) == 6


def test_a_pattern_without_shards_is_refused(tmp_path: Path):
    """A missing number of a range is named."""
    images.write_tar(tmp_path / "val-0.tar", images.samples(0, 2))
    assert "there is no shard" in refusal(f"wds:{tmp_path}/train-*.tar")
    assert f"there is no shard {tmp_path}/val-1.tar" in refusal(f"wds:{tmp_path}/val-{{0..1}}.tar")


def test_a_set_that_is_no_files_of_pictures_is_refused(tmp_path: Path):
    """CIFAR in torchvision's layout holds bare pixels."""
    folder = tmp_path / images.CIFAR_FOLDER
    folder.mkdir()
    for name, data in images.cifar_files().items():
        (folder / name).write_bytes(data)
    assert str(tmp_path) in refusal(tmp_path)


def test_strings_are_what_went_in():
    """Also empty ones, other scripts, and names of files that are no UTF-8."""
    strings = ["", "a", "größe", "", os.fsdecode(b"\xff.jpg")]
    packed = Strings.of(strings)
    assert list(packed) == packed[:] == strings
    assert list(Strings.of([])) == []
    with pytest.raises(IndexError):
        packed[5]


def test_real_photographs_are_found(real_data: Path):
    """Five kinds of flowers."""
    parts = index(real_data / "flowers")
    assert len(parts.train) == 3019 and len(parts.test) == 649 and len(parts.train.classes) == 5
    assert parts.test.encoded(648)[:2] == b"\xff\xd8"


def test_a_picture_that_is_a_link_in_a_shard_is_not_lost_in_silence(tmp_path: Path):
    images.write_folder(tmp_path / "set", {"ant": 5, "bee": 5})
    twin = tmp_path / "set" / "bee" / "005.png"
    twin.hardlink_to(tmp_path / "set" / "bee" / "000.png")
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        tar.add(tmp_path / "set", arcname=".")
    assert "--hard-dereference" in refusal(f"wds:{tmp_path}/set.tar")
