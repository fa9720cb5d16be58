"""Decoded data sets in the cache folder, so that a set is decoded once."""

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from deepres.cache import cache_folder
from deepres.data.listing import Listing, Say
from deepres.data.sets import Data, ImageSet, fingerprint_of
from deepres.files import replacing

LAYOUT = 3  # raise it when decoding changes its result


def cache_file(listing: Listing, kind: str = "decoded", **parameters: Any) -> Path:
    """Where the decoded form (or another `kind`) of `listing` is kept: a name made of its files and the parameters.

    The files enter with their name, size and time of change, and the folder with its place.
    """
    within = listing.root.as_posix().rstrip("/") + "/"  # of a million paths, `relative_to` takes half a minute
    facts = [(path.as_posix().removeprefix(within), path.stat()) for path in listing.files]
    files = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in facts]
    key = json.dumps([LAYOUT, str(listing.root.resolve()), files, parameters], sort_keys=True)
    return cache_folder() / kind / f"{hashlib.sha256(key.encode()).hexdigest()}.safetensors"


def read(file: Path, name: str, source: str, say: Say) -> Data | None:
    """The data set of a cache file; None where there is none or where its bytes are not those written."""
    if not file.exists():
        return None
    try:
        with safe_open(file, framework="pt") as stored:
            facts = json.loads(stored.metadata()["facts"])
            train, test = (
                ImageSet(
                    stored.get_tensor(f"{part}.images"),
                    stored.get_tensor(f"{part}.labels"),
                    tuple(facts["skipped"][part]),
                )
                for part in ("train", "test")
            )
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        say(f"{name}: the decoded copy {file} is damaged; decoding again")
        return None
    classes = tuple(facts["classes"])
    if fingerprint_of(train, test, classes) != facts["fingerprint"]:
        say(f"{name}: the decoded copy {file} has changed; decoding again")
        return None
    return Data(name, train, test, classes, facts["fingerprint"], source)


def write(file: Path, data: Data, say: Say) -> None:
    """Keep `data` in `file`, atomically; where that fails, say so and go on: the cache only saves time."""
    tensors = {
        f"{part}.{field}": getattr(images, field)
        for part, images in (("train", data.train), ("test", data.test))
        for field in ("images", "labels")
    }
    facts = {
        "classes": data.classes,
        "fingerprint": data.fingerprint,
        "skipped": {"train": data.train.skipped, "test": data.test.skipped},
    }
    try:
        with replacing(file) as partial:
            save_file(tensors, partial, {"facts": json.dumps(facts)})
    except (OSError, SafetensorError) as error:
        say(f"{data.name}: the decoded images are not kept ({error}); the next start decodes again")
