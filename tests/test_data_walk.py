"""What lies among pictures and is none: what tools leave behind, links, names in two forms, and no regular files."""

import io
import json
import os
import socket
import sys
import tarfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features
from pyarrow import parquet as pq

import images
from deepres.data import heif
from deepres.data.patterns import expand, files_of
from deepres.data.sources import load_data_set
from deepres.data.stream.index import open_index
from deepres.data.walk import Walk
from deepres.models.catalog import build
from deepres.runtime.errors import InputError
from deepres.runtime.files import listed_names, read_text
from deepres.weights.file import serialise

TERA = 2**40
HIDDEN = (".ipynb_checkpoints", ".thumbnails", ".Trash-1000", "@eaDir", "__MACOSX", "lost+found", "$RECYCLE.BIN")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of five pictures."""
    return images.write_folder(tmp_path / "set", {"ant": 5, "bee": 5})


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network for whole images of 8x8 that has learned nothing."""
    torch.manual_seed(0)
    net = build("resnet8", 2)
    file = tmp_path_factory.mktemp("weights") / "net.safetensors"
    file.write_bytes(serialise(net.state_dict(), torch.full((3, 8, 8), 0.4), net.header | {"classes": ["ant", "bee"]}))
    return file


def hide(folder: Path, place: str, content: bytes) -> None:
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    (folder / place).write_bytes(content)


def names(data: object) -> list[str]:
    """The names of all pictures, sorted."""
    return sorted(name for part in open_index(str(data), lambda message: None) for name in part.names)


def refusal(data: object) -> str:
    with pytest.raises(InputError) as caught:
        open_index(str(data), lambda message: None)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def lines(result) -> list[dict[str, object]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


# hidden and tool-made


def test_what_tools_leave_behind_is_no_picture_at_any_depth(deepres, weights, root: Path):
    """In class folders, beside them and deeper, for the reader of data sets and for `predict FOLDER`."""
    (root / "bee" / "deep").mkdir()
    images.picture(50).save(root / "bee" / "deep" / "1.png")
    expected = names(root)
    content = images.png(images.picture(99))
    for folder in HIDDEN:
        for place in (folder, f"ant/{folder}", f"bee/deep/{folder}/more"):
            hide(root, f"{place}/1-checkpoint.png", content)
    for place in ("ant/._000.png", "._lost.png", "bee/deep/.1.png.jpg", "ant/Thumbs.db", "desktop.ini"):
        hide(root, place, content)
    assert names(root) == expected and len(expected) == 11
    predicted = deepres("predict", weights, root, "--format", "jsonl")
    assert [one["picture"] for one in lines(predicted)] == [str(root / name) for name in expected]
    assert predicted.returncode == 0 and f"{root}: not read, since hidden or made by a tool: " in predicted.stderr


def test_what_tools_leave_behind_is_no_parquet(tmp_path: Path):
    root = images.write_parquet_set(tmp_path / "set")
    content = (root / "train.parquet").read_bytes()
    for folder in HIDDEN:
        hide(root, f"{folder}/train-copy.parquet", content)
    hide(root, "._train.parquet", b"a Mac's")
    data = load_data_set(str(root))
    assert (len(data.train), len(data.test)) == (10, 4)


def test_what_tools_leave_behind_is_no_shard_and_no_picture_in_one(tmp_path: Path):
    members = {f"{number:02}.png": images.png(images.picture(number)) for number in range(10)}
    labels = {f"{number:02}.cls": b"%d" % (number % 2) for number in range(10)}
    hidden = {f"{folder}/{name}": content for folder in HIDDEN for name, content in (members | labels).items()}
    images.write_tar(tmp_path / "shards" / "set-0.tar", members | labels | hidden | {"._00.png": b"a Mac's"})
    for name in ("._set-0.tar", ".set-1.tar", "@eaDir/set-2.tar"):
        hide(tmp_path / "shards", name, b"no shard")
    assert names(f"wds:{tmp_path}/shards/*.tar") == [f"set-0.tar {name}" for name in members]
    assert names(f"wds:{tmp_path}/**/*.tar") == [f"set-0.tar {name}" for name in members]


def test_a_folder_with_nothing_but_what_tools_leave_is_no_copy_of_a_known_set(tmp_path: Path, monkeypatch):
    hide(tmp_path, "shared/cifar10/.DS_Store", b"")
    images.write_parquet_set(tmp_path / "cache" / "datasets" / "cifar10")
    monkeypatch.setenv("DEEPRES_DATA", str(tmp_path / "shared"))
    monkeypatch.setenv("DEEPRES_CACHE", str(tmp_path / "cache"))
    assert len(load_data_set("cifar10").train) == 10


# links


def test_links_are_followed_in_every_layout(deepres, weights, root: Path, tmp_path: Path):
    """Of a class folder, of a folder in one and of a picture, in folders, for Parquet, for shards and in `predict`."""
    other = tmp_path / "elsewhere"
    (root / "bee").rename(other)
    (root / "bee").symlink_to(other)
    more = images.write_folder(tmp_path / "store", {"more": 2}) / "more"
    (root / "ant" / "more").symlink_to(more)
    (root / "ant" / "9.png").symlink_to(more / "000.png")
    expected = [*(f"ant/00{number}.png" for number in range(5)), "ant/9.png", "ant/more/000.png", "ant/more/001.png"]
    assert names(root) == [*expected, *(f"bee/00{number}.png" for number in range(5))]
    predicted = lines(deepres("predict", weights, root, "--format", "jsonl"))
    assert [one["picture"] for one in predicted] == [str(root / name) for name in names(root)]
    images.write_parquet_set(tmp_path / "tables")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "data").symlink_to(tmp_path / "tables")
    assert len(load_data_set(str(tmp_path / "linked")).train) == 10
    images.write_tar(
        tmp_path / "shards" / "set.tar", {f"a/{number}.png": images.png(images.picture()) for number in range(5)}
    )
    (tmp_path / "linked" / "shards").symlink_to(tmp_path / "shards")
    for pattern in ("linked/shards/*.tar", "linked/**/*.tar", "lin*/sh*/set.tar"):
        assert len(names(f"wds:{tmp_path}/{pattern}")) == 5


def test_links_in_a_loop_end(deepres, weights, root: Path):
    """A link upwards, one to itself, and folders that lead to each other in a thousand million ways."""
    expected = names(root)
    (root / "up").symlink_to(root)
    (root / "ant" / "top").symlink_to(root.parent)
    store = root.parent / "store"
    for number in range(30):
        (store / str(number)).mkdir(parents=True)
        for way in range(30):
            (store / str(number) / f"to{way}").symlink_to(store / str(way))
    (root / "bee" / "maze").symlink_to(store / "0")
    assert names(root) == expected
    assert len(list(Walk().folders_below(store))) == 31
    predicted = deepres("predict", weights, root, "--format", "jsonl")
    assert (predicted.returncode, len(lines(predicted))) == (0, 10)
    assert "not followed, since they lead to folders that are read already" in predicted.stderr


def test_a_link_to_nothing_is_named(deepres, refused, weights, root: Path):
    """A picture by `data check` and `predict`; what may be a class, or a shard, before anything is read."""
    (root / "ant" / "9.png").symlink_to(root / "gone.png")
    (root / "ant" / "itself.png").symlink_to(root / "ant" / "itself.png")
    checked = deepres("data", "check", root, "--workers", 0)
    assert checked.returncode == 1 and "ant/9.png: no such file or directory" in checked.stdout
    assert "ant/itself.png: too many levels of symbolic links" in checked.stdout
    assert "12 images, 2 do not decode" in checked.stdout
    assert "ant/9.png does not decode (no such file or directory)" in refused("data", "info", root)
    predicted = deepres("predict", weights, root, "--format", "jsonl")
    assert (predicted.returncode, len(lines(predicted))) == (1, 10)
    assert f"{root}/ant/9.png: no such file or directory" in predicted.stderr
    (root / "cow").symlink_to(root / "gone")
    assert f"{root}/cow is a link that leads nowhere" in refused("data", "info", root)
    (root / "0.tar").symlink_to(root / "gone.tar")
    assert f"{root}/0.tar cannot be read (No such file or directory)" in refused("data", "info", f"wds:{root}/*.tar")


# no regular files


@pytest.mark.skipif(sys.platform == "win32", reason="has other files")
def test_pipes_sockets_devices_and_endless_files_are_named(deepres, refused, weights, root: Path, monkeypatch):
    os.mkfifo(root / "ant" / "pipe.png")
    (root / "ant" / "zero.png").symlink_to("/dev/zero")
    with (root / "ant" / "vast.png").open("wb") as sparse:
        sparse.truncate(TERA)
    monkeypatch.chdir(root / "ant")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
    faults = {
        "pipe.png": "a named pipe, not a file",
        "socket.png": "a socket, not a file",
        "vast.png": "1,099,511,627,776 bytes, more than the limit of 536,870,912",
        "zero.png": "a device, not a file",
    }
    checked = deepres("data", "check", root, "--workers", 0)
    assert checked.returncode == 1
    assert {f"ant/{name}: {reason}" for name, reason in faults.items()} <= set(checked.stdout.splitlines())
    assert "14 images, 4 do not decode" in checked.stdout
    predicted = deepres("predict", weights, root, root / "ant" / "pipe.png", "--format", "jsonl")
    assert (predicted.returncode, len(lines(predicted))) == (1, 10)
    for name, reason in faults.items():
        assert f"{root}/ant/{name}: {reason}" in predicted.stderr
    assert "left out: 5 of 15 pictures" in predicted.stderr
    said = refused("data", "info", root)
    assert any(f"ant/{name} does not decode ({reason})" in said for name, reason in faults.items())


@pytest.mark.skipif(sys.platform == "win32", reason="has other files")
def test_tables_shards_and_lists_of_names_that_are_no_files_are_named(root: Path, tmp_path: Path):
    for place in ("tables/train.parquet", "shards/train.tar", "named/classnames.txt"):
        (tmp_path / place).parent.mkdir()
        os.mkfifo(tmp_path / place)
    assert "train.parquet is not a whole Parquet file (a named pipe, not a file)" in refusal(tmp_path / "tables")
    assert "train.tar cannot be read (a named pipe, not a file)" in refusal(f"wds:{tmp_path}/shards/*.tar")
    images.write_tar(tmp_path / "named" / "train.tar", images.samples(0, 10))
    assert "classnames.txt cannot be read (a named pipe, not a file)" in refusal(f"wds:{tmp_path}/named/*.tar")


def test_sparse_files_are_named(tmp_path: Path):
    """A table and shards of nothing, and a shard with a hole in it."""
    for place in ("tables/train.parquet", "shards/train.tar"):
        (tmp_path / place).parent.mkdir()
        with (tmp_path / place).open("wb") as sparse:
            sparse.truncate(TERA)
    assert "train.parquet is not a whole Parquet file" in refusal(tmp_path / "tables")
    assert "train.tar is damaged or cut short" in refusal(f"wds:{tmp_path}/shards/train.tar")
    whole = images.write_tar(tmp_path / "hole" / "train.tar", images.samples(0, 10)).read_bytes()
    (tmp_path / "hole" / "train.tar").write_bytes(whole[:4096] + bytes(4096) + whole[8192:])
    assert "train.tar is damaged or cut short after" in refusal(f"wds:{tmp_path}/hole/train.tar")


def test_a_shard_that_claims_too_much_is_refused_before_it_is_read(tmp_path: Path):
    """A label, a long name and a picture of many GB that are not there; a member that is stored as sparse."""
    vast = 2**40
    for name, kind, said in (
        ("a.cls", tarfile.REGTYPE, "a.cls has 1,099,511,627,776 bytes, too many for a label"),
        ("a.json", tarfile.REGTYPE, "a.json has 1,099,511,627,776 bytes, too many for a label"),
        ("a.png", tarfile.XHDTYPE, "a member is described by 1,099,511,627,776 bytes"),
        ("a.png", tarfile.GNUTYPE_LONGNAME, "a member is described by 1,099,511,627,776 bytes"),
        ("a.png", tarfile.GNUTYPE_SPARSE, "a.png is stored as sparse"),
    ):
        member = tarfile.TarInfo(name)
        member.size, member.type = vast, kind
        file = tmp_path / "train.tar"
        with file.open("wb") as shard:
            shard.write(member.tobuf(tarfile.GNU_FORMAT))
            shard.truncate(vast + 4096)
        assert said in refusal(f"wds:{file}")


@pytest.mark.parametrize(
    ("kind", "said"),
    [(tarfile.SYMTYPE, "a link to gone.png"), (tarfile.LNKTYPE, "a link to gone.png"), (tarfile.FIFOTYPE, "no file")],
)
def test_a_picture_in_a_shard_that_is_no_file_is_named(tmp_path: Path, kind: bytes, said: str):
    file = images.write_tar(tmp_path / "train.tar", images.samples(0, 10))
    with tarfile.open(file, "a") as tar:
        for name in ("ant/.hidden.png", "0009.jpg"):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "gone.png" if "link" in said else ""
            tar.addfile(member)
    assert f"0009.jpg is {said}; make the shard with tar --dereference" in refusal(f"wds:{file}")


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"label": ' * 100_000, b'{"label": [1]}', b"[1]", b"\xff", b""])
def test_a_hostile_json_in_a_shard_is_no_label(tmp_path: Path, text: bytes):
    images.write_tar(tmp_path / "train.tar", {"a.png": images.png(images.picture()), "a.json": text})
    assert "a.png has no label; add a.cls" in refusal(f"wds:{tmp_path}/train.tar")


@pytest.mark.usefixtures("checked_types")
@pytest.mark.parametrize(
    ("known", "said"),
    [
        ('{"info": ' * 100_000, "is nested more than"),
        ("[1]", "expected object, got array"),
        ('{"info": {"features": {"label": {"names": 3}}}}', "expected array, got int"),
    ],
)
def test_hostile_metadata_of_a_table_is_refused(tmp_path: Path, known: str, said: str):
    file = images.write_parquet(tmp_path / "train.parquet", [images.png(images.picture())] * 5, [0] * 5)
    pq.write_table(pq.read_table(file).replace_schema_metadata({"huggingface": known}), file)
    message = refusal(tmp_path)
    assert str(file) in message and said in message


# patterns


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("{0..1000000000}.tar", "makes 1,000,000,001 names"),
        ("{0..999}{0..999}.tar", "makes 1,000,000 names"),
        ("{0..999{0..999}}.tar", None),
        ("{a,{0..99999},b}.tar", "makes 100,002 names"),
        ("{a,b}" * 20_000, "makes 1,000,000,000,000,000 or more names"),
        ("{" * 100_000, "nested more than 20 deep"),
        ("{0.." + "9" * 5000 + "}", None),
    ],
)
def test_a_pattern_is_refused_by_the_number_of_its_names(pattern: str, said: str | None):
    """Counted, not made: each of these answers at once."""
    if said is None:
        assert len(expand(pattern)) <= 1000
        return
    with pytest.raises(InputError) as caught:
        expand(pattern)
    assert said in str(caught.value) and len(str(caught.value)) < 250


def test_braces_are_those_of_a_shell():
    """Within each other, backwards, by steps, and without a partner."""
    assert expand("{a,{b,c}}{1..3..2}") == ["a1", "a3", "b1", "b3", "c1", "c3"]
    assert expand("{03..1}") == ["03", "02", "01"]
    assert expand("a{b") == ["a{b"] and expand("a}b,c") == ["a}b,c"] and expand("x{a,{b}") == ["x{a,b"]


def test_globs_find_files_alone_in_sorted_order(tmp_path: Path):
    for name in ("b/2.tar", "a/1.tar", "a/10.tar", "a/.3.tar", "a/deep/4.tar", "5.tar"):
        hide(tmp_path, name, b"")
    (tmp_path / "a" / "folder.tar").mkdir()

    def found(pattern: str) -> list[str]:
        return [file.relative_to(tmp_path).as_posix() for file in files_of(f"{tmp_path}/{pattern}")]

    assert found("*.tar") == ["5.tar"] and found("?/[12].tar") == ["a/1.tar", "b/2.tar"]
    assert found("**/*.tar") == ["5.tar", "a/1.tar", "a/10.tar", "a/deep/4.tar", "b/2.tar"]
    assert found("a/.3.tar") == ["a/.3.tar"] and found("c/*.tar") == []


# names in two forms, and texts of other systems


def test_names_that_differ_by_their_unicode_form_alone_are_one_class(tmp_path: Path):
    """Folders, members of shards, names in tables; parts from two systems agree."""
    two_forms = [unicodedata.normalize(form, "größe é") for form in ("NFC", "NFD")]
    assert two_forms[0] != two_forms[1]
    images.write_folder(tmp_path / "both", {two_forms[0]: 3, two_forms[1]: 2, "zoo": 5})
    data = load_data_set(str(tmp_path / "both"))
    assert data.classes == (two_forms[0], "zoo")
    assert (data.train.labels.tolist() + data.test.labels.tolist()).count(0) == 5
    for part, name in zip(("train", "test"), reversed(two_forms), strict=True):
        images.write_folder(tmp_path / "parts" / part, {name: 2, "zoo": 1})
    data = load_data_set(str(tmp_path / "parts"))
    assert data.classes == (two_forms[0], "zoo") and data.test.labels.tolist() == [0, 0, 1]
    members = {f"{name}/{number}.png": images.png(images.picture()) for number, name in enumerate(two_forms * 3)}
    images.write_tar(tmp_path / "train.tar", members)
    assert open_index(f"wds:{tmp_path}/train.tar", print).train.classes == (two_forms[0],)
    images.write_parquet_set(tmp_path / "tables", names=[two_forms[1], "zoo"])
    assert load_data_set(str(tmp_path / "tables")).classes == (two_forms[0], "zoo")


def test_a_path_is_found_in_whichever_form_it_is_written(deepres, weights, tmp_path: Path, monkeypatch):
    """As in a list that was made on another system."""
    written, given = (unicodedata.normalize(form, "größe é") for form in ("NFD", "NFC"))
    images.write_folder(tmp_path / written, {"ant": 5, written: 5})
    assert load_data_set(str(tmp_path / given)).classes == ("ant", given)
    listed = f"\ufeff{given}/ant/000.png\r\n\r\n   \r\n{given}/{given}/001.png"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(listed.encode())))
    predicted = deepres("predict", weights, "-", f"{given}/ant/002.png", "--format", "jsonl")
    found = [f"{written}/ant/000.png", f"{written}/{written}/001.png", f"{written}/ant/002.png"]
    assert [one["picture"] for one in lines(predicted)] == found, predicted.stderr


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are Unicode there")
def test_a_class_folder_that_is_not_in_utf8_is_refused_by_name(root: Path):
    os.rename(root / "bee", os.fsencode(root) + b"/caf\xe9")  # noqa: PTH104
    assert r"has a class name that is not UTF-8, 'caf\udce9'; rename it" in refusal(root)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_texts_of_other_systems_are_read_as_they_are_meant(tmp_path: Path, encoding: str, end: str):
    """A byte order mark, the line ends of each system, and blank lines."""
    images.write_tar(tmp_path / "train.tar", images.samples(0, 10))
    text = end.join(("", "ant", "", "grüne bee ", "   ", ""))
    (tmp_path / "classnames.txt").write_bytes(text.encode(encoding))
    assert open_index(f"wds:{tmp_path}/train.tar", print).train.classes == ("ant", "grüne bee")
    assert read_text(tmp_path / "classnames.txt") == text
    assert listed_names(text.encode(encoding)) == ["ant", "grüne bee "]


# HEIC and AVIF


def smooth() -> Image.Image:
    """A picture that survives a lossy codec: from left to right from dark to bright."""
    return Image.fromarray(np.tile(np.arange(0, 256, 4, dtype=np.uint8)[None, :, None], (64, 1, 3)))


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_heic_and_avif_are_decoded(deepres, weights, root: Path, kind: str):
    """In the resident set, by `data check` and by `predict`, whatever the file is called."""
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    elif not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    suffix = {"AVIF": "avif", "HEIF": "HEIC"}[kind]
    smooth().save(root / "ant" / f"9.{suffix}", format=kind, quality=95)
    smooth().save(root / "ant" / "false.jpg", format=kind, quality=95)
    data = load_data_set(str(root), image_size=64)
    assert len(data.train) + len(data.test) == 12
    pixels = torch.cat((data.train.images, data.test.images)).float()
    near = (pixels - torch.arange(0, 256, 4.0)).abs().amax((1, 2, 3)) < 8
    assert near.sum() == 2
    assert "12 images, all decode" in deepres("data", "check", root, "--workers", 0).stdout
    predicted = deepres("predict", weights, root / "ant" / f"9.{suffix}", "--format", "jsonl")
    assert predicted.returncode == 0 and lines(predicted)[0]["picture"].endswith(suffix)


def test_heic_that_cannot_be_decoded_is_named_with_the_extra(deepres, refused, weights, root: Path, monkeypatch):
    pytest.importorskip("pillow_heif").register_heif_opener()
    smooth().save(root / "ant" / "9.heic", format="HEIF")
    monkeypatch.setattr(heif, "_is_read", lambda kind: False)
    reason = "it is HEIC, which Pillow does not read here; pip install 'deepres[heif]'"
    assert f"ant/9.heic does not decode ({reason})" in refused("data", "info", root)
    checked = deepres("data", "check", root, "--workers", 0)
    assert checked.returncode == 1 and f"ant/9.heic: {reason}" in checked.stdout
    predicted = deepres("predict", weights, root, "--format", "jsonl")
    assert (predicted.returncode, len(lines(predicted))) == (1, 10)
    assert f"9.heic: {reason}" in predicted.stderr
