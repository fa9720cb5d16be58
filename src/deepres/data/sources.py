"""Data sets of all kinds: a name, a folder, `hf:owner/name`, or `wds:` and a pattern of tar shards."""

import difflib
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from deepres.data import hub, resident_cache, shards
from deepres.data.decode import Decoding, decode_parts
from deepres.data.division import Division, divided
from deepres.data.folders import image_folder, is_image_folder
from deepres.data.listing import Listing, Picture
from deepres.data.parquet import holds_pictures, parquet_files, parquet_folder
from deepres.data.published import PUBLISHED, fetch_published, fetched_folder, torchvision_folder
from deepres.data.resident import Data, ImageSet, fingerprint_of, hold_out, per_class, tell_lacking
from deepres.data.rgb import max_pixels
from deepres.data.walk import is_hidden, names_of, on_disk
from deepres.runtime.errors import InputError, Say, silent

HUB = "hf:"
RULES: dict[Division, str] = {
    "hash": "about one picture in five is a test picture, by a hash of its name, so that those that come move no other",
    "place": "every fifth picture of each class, by name, is a test picture, as in the run",
}


def load_data_set(
    data: str,
    *,
    split: str | None = None,
    image_size: int | None = None,
    skip_bad: bool = False,
    division: Division = "hash",
    progress: Say = silent,
) -> Data:
    """Find a data set, fetch it if need be, and decode it; `progress` is told what takes time.

    `data` is a name of `PUBLISHED` (looked for in the folder `DEEPRES_DATA` and in the cache folder, else fetched), a
    folder (image Parquet, `class/name.jpg`, or torchvision's layout), `hf:owner/name`, or `wds:` and a pattern. With
    `split`, for example "45k/5k", a held-out part of the training set becomes the test part (Sec. 4.2). `image_size` is
    the number of pixels a side to which images are resized. `skip_bad` leaves out images that do not decode. `division`
    is the rule for data without a test part. A part may be empty. Raises `InputError` for data that cannot be found,
    fetched or decoded.
    """
    say = progress
    if image_size is not None and image_size < 1:
        raise InputError(f"the image size {image_size} is not above 0; give for example --image-size 32")
    try:
        loaded = _decoded(data, find_data_set(data, say, division), image_size, skip_bad, say)
    except OSError as error:
        raise unreadable(data, error) from None
    for part in (loaded.train, loaded.test):
        if part.skipped:
            say(f"{data}: left out {len(part.skipped)} that do not decode, first {part.skipped[0]}")
    loaded = hold_out(loaded, split) if split else loaded
    for labels, kind in ((loaded.train.labels, "training"), (loaded.test.labels, "test")):
        tell_lacking(data, kind, loaded.classes, labels, say)
    return loaded


def unreadable(data: str, error: OSError) -> InputError:
    """The error for data of which a file or a folder cannot be read."""
    return InputError(f"{data} cannot be read ({error}); check its permissions")


def _decoded(data: str, listing: Listing, image_size: int | None, skip_bad: bool, say: Say) -> Data:
    """The decoded data set, from the cache if it was decoded before."""
    root = listing.root
    file = resident_cache.cache_file(listing, image_size=image_size, skip_bad=skip_bad)
    loaded = resident_cache.read_decoded(file, data, str(root), say)
    if loaded is None:
        train, test, classes = decode_parts(Decoding(data, root, image_size, skip_bad, say), *listing.scan())
        loaded = Data(data, train, test, classes, fingerprint_of(train, test, classes), str(root))
        resident_cache.write_decoded(file, loaded, say)
    return loaded


def describe_data_set(data: Data) -> dict[str, Any]:
    """Facts about a data set, ready for JSON. The mean of each channel is in units of 0 to 1.

    It is None without training images.
    """

    def part(images: ImageSet) -> dict[str, Any]:
        by_class = per_class(images.labels, data.classes)
        return {"images": len(images), "per_class": by_class, "skipped": list(images.skipped)}

    return {
        "name": data.name,
        "source": data.source,
        "classes": list(data.classes),
        "channels": data.channels,
        "size": list(data.size),
        "mean": [round(value, 6) for value in data.mean().double().mean((1, 2)).tolist()] if len(data.train) else None,
        "train": part(data.train),
        "test": part(data.test),
        "fingerprint": data.fingerprint,
    }


def find_data_set(data: str, say: Say, division: Division = "hash") -> Listing:
    """The pictures of `data` (as for `load_data_set`), not decoded; `say` is told of the division and what is left out.

    Data without a test part are divided by the rule `division`. Raises `InputError` where the data cannot be found,
    fetched or read.
    """
    max_pixels()  # raises for a wrong DEEPRES_MAX_PIXELS before any picture is read
    try:
        if data.startswith(shards.PREFIX):
            found = shards.shard_listing(data.removeprefix(shards.PREFIX), say)
        else:
            found = _listing(find_folder(data, say))
    except OSError as error:
        raise unreadable(data, error) from None
    for note in found.notes:
        say(f"{data}: {note}")
    if not found.divides:
        return found
    say(f"{data} has no test part: {RULES[division]}")

    def scan() -> tuple[tuple[str, ...] | None, Iterable[Picture]]:
        classes, pictures = found.scan()
        return classes, divided(pictures, division)

    return replace(found, scan=scan, division=division)


def placed(data: str) -> str:
    """`data` with absolute paths, so that it means the same from every working folder.

    Names of published sets and of the hub are not changed, nor are folders that do not exist.
    """
    if data.startswith(shards.PREFIX):
        return shards.PREFIX + str(Path(data.removeprefix(shards.PREFIX)).expanduser().absolute())
    if not data or data in PUBLISHED or data.startswith(HUB):
        return data
    path, shared = Path(data).expanduser(), os.environ.get("DEEPRES_DATA", "")
    places = [path, Path(shared).expanduser() / data] if shared else [path]
    return next((str(place.absolute()) for place in places if place.is_dir()), data)


def still_there(place: str, owner: str) -> str:
    """`place`, where the data of `owner` were. Raises `InputError` where it does not exist any more."""
    if Path(place).is_absolute() and not Path(place).exists():
        raise InputError(f"{place}, the data of {owner}, does not exist; where it was moved, name it with --data")
    return place


def find_folder(data: str, say: Say) -> Path:
    """The folder of `data`, fetched if need be. Raises `InputError` where there is none."""
    if not data:
        raise InputError(f"the data set has no name; give {', '.join(PUBLISHED)}, a folder, or hf:owner/name")
    if data.startswith(HUB):
        return hub.fetch_from_hub(data.removeprefix(HUB), say)
    # A published data set.
    shared = _shared_folder()
    if data in PUBLISHED:
        places = [*([shared / data] if shared else []), fetched_folder(data)]
        if Path(data).is_dir() and Path(data).resolve() not in [place.resolve() for place in places]:
            say(f"{data} is the known set of this name; for the folder here, give ./{data}")
        return next((place for place in places if _has_entries(place)), None) or fetch_published(data, say)
    # A folder, from here or from the shared folder.
    path = on_disk(Path(data).expanduser())
    if path.is_dir():
        return path
    if path.exists():
        raise InputError(f"{path} is a file; give the folder that holds the images or the Parquet files")
    if shared and (place := on_disk(shared / data)).is_dir():
        return place
    if len(path.parts) > 1 or data.startswith((".", "~")):
        raise InputError(f"the data folder {path} does not exist; check the path")
    # Help with a name that is wrong.
    near = difflib.get_close_matches(data, PUBLISHED, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"give {', '.join(PUBLISHED)}, a folder, or hf:owner/name"
    raise InputError(f"there is no data set or folder named {data!r}; {hint}")


def _shared_folder() -> Path | None:
    """The folder `DEEPRES_DATA`, which holds data sets under their names, if it is set."""
    named = os.environ.get("DEEPRES_DATA")
    if not named:
        return None
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise InputError(f"DEEPRES_DATA names {folder}, which is no folder; mend or unset it")
    return folder


def _has_entries(folder: Path) -> bool:
    return folder.is_dir() and any(not is_hidden(entry.name) for entry in folder.iterdir())


def _listing(root: Path) -> Listing:
    """The pictures of a folder, in torchvision's layout, Parquet, or class folders."""
    known = torchvision_folder(root)
    if known is not None:
        return known
    tables = parquet_files(root)
    if not tables:
        return image_folder(root)
    if not is_image_folder(root):
        return parquet_folder(root, tables)
    if any(holds_pictures(table, damaged=False) for table in tables):
        raise InputError(
            f"{root} has Parquet files with pictures and class folders, too; move one of them away, or give the folder "
            "of one"
        )
    left_out = names_of(table.relative_to(root).as_posix() for table in tables)
    return image_folder(root, (f"not read, since they hold no pictures and labels: {left_out}",))
