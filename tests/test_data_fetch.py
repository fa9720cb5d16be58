"""Named data sets and the Hugging Face hub, fetched from stand-ins on this machine."""

import gzip
import json
import socket
from pathlib import Path

import pytest
from torchvision.datasets import CIFAR10, FashionMNIST

import images
from deepres.data import published
from deepres.data.sources import load_data_set
from deepres.runtime.errors import InputError

SHA = "0123456789012345678901234567890123456789"


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(published.debian, "available", lambda: False)
    return images.isolate(monkeypatch, tmp_path)


@pytest.fixture
def closed() -> str:
    """An address where nobody answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def small_cifar(monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes], archive: bytes, address: str) -> None:
    """Let torchvision expect the small files and look for them at `address`."""
    sums = [[name, images.md5(content)] for name, content in files.items()]
    monkeypatch.setattr(CIFAR10, "url", f"{address}/cifar-10-python.tar.gz")
    monkeypatch.setattr(CIFAR10, "tgz_md5", images.md5(archive))
    monkeypatch.setattr(CIFAR10, "train_list", [entry for entry in sums if entry[0].startswith("data")])
    monkeypatch.setattr(CIFAR10, "test_list", [entry for entry in sums if entry[0].startswith("test")])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": images.md5(files["batches.meta"])}
    monkeypatch.setattr(CIFAR10, "meta", meta)


def small_fashion(monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes], address: str) -> None:
    monkeypatch.setattr(FashionMNIST, "mirrors", [f"{address}/"])
    monkeypatch.setattr(FashionMNIST, "resources", [(name, images.md5(files[name])) for name in files])


def test_cifar10_is_downloaded_once_into_the_cache(monkeypatch: pytest.MonkeyPatch, cache: Path):
    """The second load needs no network; the archive is not kept."""
    files = images.cifar_files()
    archive = images.tar_gz(files, images.CIFAR_FOLDER)
    with images.web({"/cifar-10-python.tar.gz": archive}) as address:
        small_cifar(monkeypatch, files, archive, address)
        data = load_data_set("cifar10")
    assert len(data.train) == 10 and len(data.test) == 2 and data.channels == 3 and data.size == (32, 32)
    assert data.classes[9] == "class9" and data.train.labels.tolist() == [0, 1] * 5
    assert load_data_set("cifar10").fingerprint == data.fingerprint
    assert [path.name for path in (cache / "datasets" / "cifar10").iterdir()] == [images.CIFAR_FOLDER]


def test_an_archive_that_would_write_outside_its_folder_is_refused(monkeypatch: pytest.MonkeyPatch, cache: Path):
    files = images.cifar_files()
    archive = images.tar_gz({"../../../outside": b"here"} | files, images.CIFAR_FOLDER)
    with images.web({"/cifar-10-python.tar.gz": archive}) as address:
        small_cifar(monkeypatch, files, archive, address)
        with pytest.raises(InputError, match="outside"):
            load_data_set("cifar10")
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_torchvisions_layout_is_read_in_a_given_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A copy that someone has from elsewhere; with `image_size` it is resized."""
    files = images.cifar_files()
    small_cifar(monkeypatch, files, b"", "http://nowhere.invalid")
    folder = tmp_path / "mine" / images.CIFAR_FOLDER
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    assert load_data_set(str(tmp_path / "mine"), image_size=16).size == (16, 16)
    (folder / "data_batch_3").write_bytes(b"damaged")
    with pytest.raises(InputError, match="is not a whole copy of cifar10"):
        load_data_set(str(tmp_path / "mine"))


def test_fashion_mnist_is_downloaded_with_one_channel(monkeypatch: pytest.MonkeyPatch):
    """28x28, grayscale, ten classes with their names."""
    files = images.fashion_files()
    with images.web({f"/{name}": content for name, content in files.items()}) as address:
        small_fashion(monkeypatch, files, address)
        data = load_data_set("fashion-mnist")
    assert data.train.images.shape == (4, 1, 28, 28) and data.train.images[3].unique().tolist() == [3]
    assert data.classes[0] == "T-shirt/top" and data.test.labels.tolist() == [0, 1]


def test_a_download_that_is_not_what_was_published_is_refused(monkeypatch: pytest.MonkeyPatch, cache: Path):
    """The check sum differs; nothing half-finished is left to be found the next time."""
    files = images.cifar_files()
    with images.web({"/cifar-10-python.tar.gz": b"something else"}) as address:
        small_cifar(monkeypatch, files, images.tar_gz(files, images.CIFAR_FOLDER), address)
        with pytest.raises(InputError, match="could not be fetched"):
            load_data_set("cifar10")
    assert list((cache / "datasets").iterdir()) == []


def test_a_set_that_another_process_fetched_first_is_left_alone(cache: Path):
    """Two processes fetch the same set; the slower one keeps what lies there."""
    target = cache / "datasets" / "cifar10"

    def fill(root: Path) -> None:
        (root / "mine").touch()
        target.mkdir()
        (target / "theirs").touch()

    published._into(target, fill)
    assert [path.name for path in target.iterdir()] == ["theirs"]
    assert [path.name for path in target.parent.iterdir()] == ["cifar10"]


def test_without_a_network_one_sentence_says_what_to_put_where(
    monkeypatch: pytest.MonkeyPatch, cache: Path, closed: str
):
    """It names the files and the place."""
    small_cifar(monkeypatch, images.cifar_files(), b"", closed)
    with pytest.raises(InputError) as caught:
        load_data_set("cifar10")
    message = str(caught.value)
    assert f"cifar-10-batches-py/ into {cache / 'datasets' / 'cifar10'}" in message and "\n" not in message


def test_a_network_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch):
    """A server that takes the call and is silent; the timeout of the process is put back."""
    monkeypatch.setattr(published, "NETWORK_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        small_cifar(monkeypatch, images.cifar_files(), b"", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(InputError, match="timed out"):
            load_data_set("cifar10")
    assert socket.getdefaulttimeout() is None


APT = """#!/bin/sh
# stands for apt-get: without private lists it knows no package, after `update` it brings one
case "$*" in
  *Dir::State=*update) touch {root}/updated ;;
  *download*) [ -e {root}/updated ] || {{ echo "E: Unable to locate package" >&2; exit 100; }}
    cp {root}/package.tar dataset-fashion-mnist_1_all.deb ;;
esac
"""
DPKG = """#!/bin/sh
# stands for dpkg-deb -x PACKAGE FOLDER
mkdir -p "$3" && tar -xzf "$2" -C "$3"
"""


def debian_machine(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """A machine with apt-get and dpkg-deb that knows a small Fashion-MNIST."""
    files = images.fashion_files()
    (root / "bin").mkdir()
    (root / "package.tar").write_bytes(images.tar_gz(files, "usr/share/datasets/fashion-mnist"))
    for name, script in (("apt-get", APT.format(root=root)), ("dpkg-deb", DPKG)):
        (root / "bin" / name).write_text(script)
        (root / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(root / "bin"), prepend=":")
    monkeypatch.setattr(published.debian, "available", lambda: True)


def test_fashion_mnist_comes_from_debians_package_where_the_download_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, closed: str
):
    """Without root: with package lists of its own where the system has none."""
    small_fashion(monkeypatch, images.fashion_files(), closed)
    debian_machine(monkeypatch, tmp_path)
    said: list[str] = []
    data = load_data_set("fashion-mnist", progress=said.append)
    assert data.train.labels.tolist() == [0, 1, 2, 3] and len(data.test) == 2
    assert any("Debian's package" in message for message in said)


def test_where_debian_fails_too_both_reasons_are_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, closed: str):
    """The package manager's own last words."""
    small_fashion(monkeypatch, images.fashion_files(), closed)
    debian_machine(monkeypatch, tmp_path)
    (tmp_path / "bin" / "apt-get").write_text("#!/bin/sh\necho 'E: no such package' >&2; exit 100\n")
    with pytest.raises(InputError, match=r"torchvision: .*refused.*; Debian.*E: no such package"):
        load_data_set("fashion-mnist")


def test_a_damaged_copy_of_fashion_mnist_is_refused(tmp_path: Path):
    """An image file cut short."""
    folder = tmp_path / "mine" / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for name, content in images.fashion_files().items():
        plain = gzip.decompress(content)
        (folder / name.removesuffix(".gz")).write_bytes(plain[:100] if name.startswith("train-images") else plain)
    with pytest.raises(InputError, match="is not a whole copy of fashion-mnist"):
        load_data_set(str(tmp_path / "mine"))


def hub_pages(folder: Path, names: list[str]) -> dict[str, bytes]:
    """The pages of the hub for the data set me/noise with these files."""
    info = {"id": "me/noise", "sha": SHA, "siblings": [{"rfilename": name} for name in names]}
    tree = [{"type": "file", "path": name, "size": (folder / name).stat().st_size, "oid": SHA} for name in names]
    pages = {f"/datasets/me/noise/resolve/{SHA}/{name}": (folder / name).read_bytes() for name in names}
    return pages | {
        "/api/datasets/me/noise": json.dumps(info).encode(),
        "/api/datasets/me/noise/revision/main": json.dumps(info).encode(),
        f"/api/datasets/me/noise/tree/{SHA}": json.dumps(tree).encode(),
    }


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Let the hub's client look at an address, with a cache of its own."""

    def use(address: str) -> None:
        images.use_hub(monkeypatch, address, tmp_path / "hub")

    return use


def test_a_data_set_of_the_hub_is_fetched_and_then_served_from_its_cache(tmp_path: Path, hub, closed: str):
    """Only the Parquet files; the second load does without a network."""
    folder = images.write_parquet_set(tmp_path / "set", names=["cat", "dog"])
    (folder / "README.md").write_text("not wanted")
    with images.web(
        hub_pages(folder, ["train.parquet", "test.parquet", "README.md"]), {"X-Repo-Commit": SHA}
    ) as address:
        hub(address)
        data = load_data_set("hf:me/noise")
    assert len(data.train) == 10 and data.classes == ("cat", "dog")
    assert list((tmp_path / "hub").rglob("README.md")) == []
    hub(closed)
    assert load_data_set("hf:me/noise").fingerprint == data.fingerprint


def test_what_the_hub_does_not_have_is_refused_in_one_sentence(tmp_path: Path, hub, closed: str):
    """An unknown data set, one without Parquet files, a name that is none, and no network."""
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "README.md").write_text("only words")
    with images.web(hub_pages(tmp_path / "set", ["README.md"]), {"X-Repo-Commit": SHA}) as address:
        hub(address)
        reasons = {"hf:me/noise": "no Parquet files", "hf:me/gone": "could not be fetched", "hf:a b": "could not be"}
        for name, reason in reasons.items():
            with pytest.raises(InputError, match=reason) as caught:
                load_data_set(name)
            assert "\n" not in str(caught.value)
    hub(closed)
    with pytest.raises(InputError, match="could not be fetched"):
        load_data_set("hf:me/other")
