"""The decoded copy in the cache folder: used while nothing changed, rebuilt where it is damaged."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import images
from deepres.data.resident import Data
from deepres.data.sources import load_data_set


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    return images.isolate(monkeypatch, tmp_path)


def decodings(load_again: Callable[[], Data], said: list[str]) -> int:
    said.clear()
    load_again()
    return sum("decoding" in message and "images of" in message for message in said)


def test_a_set_is_decoded_once_until_a_file_or_a_parameter_changes(tmp_path: Path):
    """The same content from the cache; another size, or another file, decodes anew."""
    root, said = images.write_folder(tmp_path / "set", {"a": 5}), list[str]()
    first = load_data_set(str(root))
    second = load_data_set(str(root), progress=said.append)
    assert (
        not any("decoding" in message for message in said)
        and second.fingerprint == first.fingerprint
        and second.classes == first.classes
    )
    assert torch.equal(second.train.images, first.train.images)
    assert decodings(lambda: load_data_set(str(root), image_size=4, progress=said.append), said) == 1
    images.picture(77).save(root / "a" / "000.png")
    assert decodings(lambda: load_data_set(str(root), progress=said.append), said) == 1
    assert load_data_set(str(root)).fingerprint != first.fingerprint


@pytest.mark.parametrize("damage", [lambda b: b[:-40], lambda b: b[:-1] + bytes([b[-1] ^ 1]), lambda b: b""])
def test_a_damaged_copy_is_decoded_again(tmp_path: Path, cache: Path, damage: Callable[[bytes], bytes]):
    """Cut short, one bit turned, empty."""
    root, said = images.write_folder(tmp_path / "set", {"a": 5}), list[str]()
    expected = load_data_set(str(root))
    (file,) = (cache / "decoded").iterdir()
    file.write_bytes(damage(file.read_bytes()))
    assert load_data_set(str(root), progress=said.append).fingerprint == expected.fingerprint
    assert any("decoding again" in message for message in said)
    assert decodings(lambda: load_data_set(str(root), progress=said.append), said) == 0


def test_a_cache_that_cannot_be_written_only_costs_time(tmp_path: Path, cache: Path):
    """The folder's place is taken by a file."""
    cache.mkdir()
    (cache / "decoded").touch()
    said: list[str] = []
    data = load_data_set(str(images.write_folder(tmp_path / "set", {"a": 5})), progress=said.append)
    assert len(data.train) == 4 and "not kept" in said[-1]


def test_the_same_pictures_elsewhere_have_the_same_fingerprint(tmp_path: Path):
    """It is made of the content, not of the place."""
    prints = {load_data_set(str(images.write_folder(tmp_path / name, {"a": 5}))).fingerprint for name in ("one", "two")}
    assert len(prints) == 1
