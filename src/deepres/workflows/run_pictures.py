"""The pictures that a run was trained and tested on, recorded in its folder and compared with those of today."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from deepres.data.folders import is_image_folder
from deepres.data.layouts import has_training_part
from deepres.data.manifest import Manifest, Strings
from deepres.data.part_names import part_name
from deepres.data.sources import placed
from deepres.data.walk import is_hidden
from deepres.records import Json, Run
from deepres.runtime.errors import InputError, Say
from deepres.runtime.files import replacing, require_regular
from deepres.training.kind import Source

FILE = "pictures.safetensors"
SHOWN = 3  # names that a sentence shows


@dataclass(frozen=True)
class RunPictures:
    """The pictures of a run. `train`: digests of M training pictures, int64 (M,). `test`: names and digests.

    `start` has the digests of the pictures that the start weights were trained on, int64 (L,). The names of training
    pictures would take megabytes.
    """

    train: Tensor
    test: Manifest
    start: Tensor

    @property
    def seen(self) -> Tensor:
        """The digests of all pictures that the weights are known to have been trained on, int64 (M + L,)."""
        return torch.cat([self.train, self.start])

    def keep(self, run: Run) -> None:
        """Write them to the folder of `run`, atomically."""
        names, digests = self.test
        tensors = {"test": digests, "test.text": names.text, "test.ends": names.ends}
        tensors |= {"train": self.train, "start": self.start}
        with replacing(run.path / FILE) as partial:
            partial.write_bytes(save(tensors))


def kept(run: Path) -> RunPictures | None:
    """The recorded pictures of a run folder; None where there are none. Raises `InputError` for a damaged file."""
    file = run / FILE
    if not file.exists():
        return None
    try:
        require_regular(file)
        found = load_file(file)
        names = Strings(found["test.text"], found["test.ends"])
        return RunPictures(found["train"], Manifest(names, found["test"]), found["start"])
    except (SafetensorError, OSError, KeyError) as error:
        raise InputError(f"{file} is damaged ({error}); restore it, or train the run again") from None


def own_pictures(source: Source, start: str | None = None) -> RunPictures | None:
    """The pictures of loaded data, for a run from the weights at `start`; None where the data have no files."""
    train, test = source.train.manifest, source.test.manifest
    before = kept(Path(start)) if start else None
    seen = torch.empty(0, dtype=torch.int64) if before is None else before.seen
    return RunPictures(train.digests, test, seen) if len(train.names) else None


def test_changes(before: Manifest, now: Manifest) -> str:
    """The changes of the test pictures in words; empty where there are none. A new name for the same content is none.

    Example: "1 added (a.jpg), 2 gone (b.jpg, c.jpg), 1 with other content (d.jpg)".
    """
    old, new = (dict(zip(own.names, own.digests.tolist(), strict=True)) for own in (before, now))
    added, gone = _beyond(new, old), _beyond(old, new)
    other = set(added) & set(gone)
    found = {
        "added": [name for name in added if name not in other],
        "gone": [name for name in gone if name not in other],
        "with other content": [name for name in added if name in other],
    }
    return ", ".join(f"{len(names):,} {what} ({first(names)})" for what, names in found.items() if names)


def train_changes(before: Tensor, now: Manifest) -> str:
    """The changes of training pictures, from digests int64 (M,), in words; empty where there are none."""
    added = (~torch.isin(now.digests, before)).nonzero().flatten().tolist()
    gone = int((~torch.isin(before, now.digests)).sum())
    found = [f"{len(added):,} added ({first([now.names[place] for place in added])})"] * bool(added)
    return ", ".join(found + [f"{gone:,} gone"] * bool(gone))


def changes(before: RunPictures, source: Source) -> str:
    """The changes of both parts in words; where there are none, labels, sizes or order differ."""
    parts = {
        "training": train_changes(before.train, source.train.manifest),
        "test": test_changes(before.test, source.test.manifest),
    }
    found = [f"of the {part} pictures {text}" for part, text in parts.items() if text]
    return ", and ".join(found) or "the same pictures with other labels or classes, in another order, or made otherwise"


def tell_start(place: Path, data: str, source: Source, say: Say) -> None:
    """Say which pictures of the run at `place`, whose weights are trained further, changed or are in another part now.

    `data` is the path that `source` was loaded from. Nothing is said of weights outside of a run folder, and of other
    data without a picture in common.
    """
    before, test = kept(place), source.test.manifest
    is_run = place.is_dir() and Run(place).exists
    if before is None:
        if is_run and placed(Run(place).config["data"]) == data:
            say(f"warning: {place} keeps no list of its pictures, and may have been trained on some of the test part")
        return
    # Test pictures that the run was trained on.
    seen = (torch.isin(test.digests, before.seen) & ~torch.isin(test.digests, before.test.digests)).nonzero().flatten()
    if len(seen):
        names = first([test.names[number] for number in seen.tolist()])
        say(f"warning: {place} was trained on {len(seen):,} of the test pictures ({names}), which it knows by now")
    # Whether these are the data of that run, and what changed in them.
    same_place = is_run and place_of(Run(place).config) == data
    known = torch.cat([before.train, before.test.digests])
    if same_place or torch.isin(known, source.train.manifest.digests).any():
        told = [train_changes(before.train, source.train.manifest), test_changes(before.test, test)]
        if any(told):
            say(f"these are not all the pictures that {place} was trained on: {changes(before, source)}")


def require_outside(data: str, run: Path) -> None:
    """Raise `InputError` where a new run would lie among the class folders of its data, and be read as a class.

    It may lie beside train/, where nothing is read, or in a hidden folder.
    """
    root, folder = Path(data).resolve(), run.resolve()
    if not Path(data).is_absolute() or not folder.is_relative_to(root) or not is_image_folder(root):
        return
    inside = folder.relative_to(root).parts
    beside_parts = has_training_part(root) and inside and part_name(inside[0]) is None
    if not beside_parts and not any(map(is_hidden, inside)):
        raise InputError(f"the run {run} would lie within its data {root}, and be read as a class; name another --run")


def place_of(config: Json) -> str:
    """The path of the data of a recorded configuration, whatever the working folder; else their name."""
    return config.get("data_path") or config["data"]


def first(names: Sequence[str]) -> str:
    """The first `SHOWN` of many names, with dots for the others."""
    return ", ".join([*names[:SHOWN], *["..."] * (len(names) > SHOWN)])


def _beyond(one: Mapping[str, int], other: Mapping[str, int]) -> list[str]:
    """The names in `one` (name to digest) whose content is missing in `other`, or is there fewer times."""
    more = Counter(one.values()) - Counter(other.values())
    found: list[str] = []
    for name, digest in one.items():
        if more[digest] > 0 and other.get(name) != digest:
            more[digest] -= 1
            found.append(name)
    return found
