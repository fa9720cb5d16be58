"""Decoded data sets in the cache folder, so that each is decoded only once."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypedDict

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from deepres.data.manifest import Manifest, Strings
from deepres.data.resident import Data, ImageSet, fingerprint_of
from deepres.runtime import archive, untrusted
from deepres.runtime.cache_folder import REMEDY, cache_folder
from deepres.runtime.errors import InputError, Say
from deepres.runtime.files import DAY, replacing, sweep

FORMAT = 5  # of the files; raise it when decoding gives other pixels
FIELDS = ("images", "labels", "text", "ends", "digests")


class _Facts(TypedDict):
    skipped: dict[str, list[str]]
    classes: list[str]
    fingerprint: str
    manifests: list[str]


class _Found(Protocol):
    """A data set that was found: its folder, the files that its content depends on, and the rule that divides it."""

    @property
    def root(self) -> Path: ...
    @property
    def files(self) -> tuple[Path, ...]: ...
    @property
    def division(self) -> str | None: ...


def cache_file(listing: _Found, kind: str = "decoded", **parameters: Any) -> Path:
    """The cache file of the decoded images (or another `kind`) of `listing` made with these parameters.

    Its name is a hash of the parameters, the path of the folder, and the name, size and modification time of each file.
    """
    within = listing.root.as_posix().rstrip("/") + "/"  # of a million paths, `relative_to` takes half a minute
    files = [(path.as_posix().removeprefix(within), *_state(path)) for path in listing.files]
    key = json.dumps([FORMAT, str(listing.root.resolve()), files, listing.division, parameters], sort_keys=True)
    return cache_folder() / kind / f"{hashlib.sha256(key.encode()).hexdigest()}.safetensors"


def _state(file: Path) -> tuple[int, int]:
    """Size and modification time; constants for a dangling link, which is refused when it is read."""
    try:
        found = file.stat()
    except OSError:
        return -1, 0
    return found.st_size, found.st_mtime_ns


def write_kept(file: Path, tensors: dict[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and JSON facts atomically, and remove what killed processes left there.

    Raises `OSError` and `SafetensorError`.
    """
    sweep(file.parent, DAY)
    with replacing(file) as partial:
        save_file(tensors, partial, {"facts": json.dumps(facts)})


def read_decoded(file: Path, name: str, source: str, say: Say) -> Data | None:
    """The data set in a cache file; None where there is no such file, or where it is damaged or changed."""
    if not file.exists():
        return None
    try:
        with archive.opened(file) as stored:
            facts = untrusted.decode(stored.metadata()["facts"], _Facts, str(file), own=True)

            def part(name: str) -> ImageSet:
                images, labels, text, ends, digests = (stored.get_tensor(f"{name}.{field}") for field in FIELDS)
                return ImageSet(images, labels, tuple(facts["skipped"][name]), Manifest(Strings(text, ends), digests))

            train, test = map(part, ("train", "test"))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, InputError):
        say(f"{name}: the decoded copy {file} is damaged; decoding again")
        return None
    classes = tuple(facts["classes"])
    same = [part.manifest.checksum for part in (train, test)] == facts["manifests"]
    if not same or fingerprint_of(train, test, classes) != facts["fingerprint"]:
        say(f"{name}: the decoded copy {file} has changed; decoding again")
        return None
    return Data(name, train, test, classes, facts["fingerprint"], source)


def write_decoded(file: Path, data: Data, say: Say) -> None:
    """Write `data` to `file`, atomically. A failure is told to `say` and no error, since the cache only saves time."""
    tensors: dict[str, Tensor] = {}
    for part, images in (("train", data.train), ("test", data.test)):
        own = images.manifest
        values = (images.images, images.labels, own.names.text, own.names.ends, own.digests)
        tensors |= {f"{part}.{field}": value for field, value in zip(FIELDS, values, strict=True)}
    facts = {
        "classes": data.classes,
        "fingerprint": data.fingerprint,
        "manifests": [part.manifest.checksum for part in (data.train, data.test)],
        "skipped": {"train": data.train.skipped, "test": data.test.skipped},
    }
    try:
        write_kept(file, tensors, facts)
    except (OSError, SafetensorError) as error:
        say(f"{data.name}: the decoded images are not kept ({error}); the next start decodes again, or {REMEDY}")
