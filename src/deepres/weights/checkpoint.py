"""Checkpoints that survive a kill at any moment.

    RUN/checkpoints/000012000/
      weights.safetensors   parameters and running statistics, mean image, header
      state.pt              velocity, iteration, warm-up, unfinished window, random state
      metrics.jsonl         a copy of the run's rows up to here, as is timing.jsonl: the run's own may be damaged
      sha256.json           checksums of all these files, by which damage is noticed

A checkpoint is written into a temporary folder, flushed to the disk, and renamed. The last two are kept: if the newest
is damaged, the one before it is used.
"""

import errno
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from deepres.records import DONE, RECORDS
from deepres.runtime import archive, untrusted
from deepres.runtime.errors import InputError, Say
from deepres.runtime.files import read_bytes
from deepres.weights import file as weights_file

WEIGHTS, STATE, SUMS = "weights.safetensors", "state.pt", "sha256.json"
KEEP = 2  # checkpoints


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint: weights, the other state of training (tensors and plain values), and records.

    `records` has the content of the run's record files (`RECORDS`) by name; old checkpoints have none.
    """

    weights: weights_file.Weights
    state: dict[str, Any]
    records: dict[str, bytes] = field(default_factory=dict[str, bytes])


def save(
    folder: Path, iteration: int, weights: bytes, state: Mapping[str, Any], records: Mapping[str, bytes] | None = None
) -> Path:
    """Write the checkpoint of `iteration` under `folder` atomically, and remove all but the last two.

    Raises `InputError` if the disk is full; then the earlier checkpoints stay, and nothing half-written does.
    """
    # The bytes of each file, and their checksums.
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    files = {WEIGHTS: weights, STATE: buffer.getvalue(), **(records or {})}
    files[SUMS] = json.dumps({name: _sha256(data) for name, data in files.items()}).encode()
    # Write into a temporary folder and rename it.
    place, partial = folder / f"{iteration:09d}", folder / f".{iteration:09d}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        for name, data in files.items():
            _write_synced(partial / name, data)
        if place.exists():  # a resumed run reached this iteration again, with the same bytes
            shutil.rmtree(place)
        partial.rename(place)
        _sync_folder(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise InputError(_disk_trouble(error, folder)) from None
    # Keep the last two up to this one. Later ones are damaged: otherwise the run would have resumed from them.
    places = [other for other in _places(folder) if other <= place]
    for other in _places(folder):
        if other not in places[-KEEP:]:
            shutil.rmtree(other)
    return place


def load_latest(folder: Path, warn: Say, unfit: Callable[[Checkpoint], str] = lambda saved: "") -> Checkpoint | None:
    """The newest checkpoint under `folder` that is whole and fits the run; None where there is no checkpoint yet.

    `unfit` returns why training cannot go on from a checkpoint, "" if it can. `warn` is told of each checkpoint that is
    damaged or unfit, and the one before it is tried. Raises `InputError`, with the way to train anew, if all are.
    """
    for leftover in folder.glob(".*.partial"):
        shutil.rmtree(leftover, ignore_errors=True)
    places = _places(folder)
    for place in reversed(places):
        try:
            saved = _load(place)
            trouble = unfit(saved)
        except InputError as error:
            trouble = str(error)
        else:
            if not trouble:
                return saved
        warn(_damaged(place, trouble, "going on from the one before it" if place != places[0] else ""))
    if places:
        raise InputError(_anew(folder))
    return None


def kept_records(folder: Path) -> dict[str, bytes]:
    """The record files in the newest whole checkpoint under `folder`, by name; empty if there is no such checkpoint."""
    return next((_records(place) for place in _whole(folder)), {})


def latest_weights(folder: Path, warn: Say) -> Path:
    """The weights file of the newest whole checkpoint; `warn` is told of damaged ones. Raises `InputError` if none."""
    places = _places(folder)
    for place in reversed(places):
        trouble = _damage(place)
        if trouble is None:
            return place / WEIGHTS
        warn(_damaged(place, trouble, "using the one before it" if place != places[0] else ""))
    raise InputError(_anew(folder) if places else f"{folder} holds no checkpoint; {_way(folder, [])}")


def tell_damage(folder: Path, say: Say) -> None:
    """If the newest checkpoint of a finished run is damaged, say how to get its weights again."""
    places = _places(folder)
    trouble = _damage(places[-1]) if places else None
    if trouble is not None:
        said = f"remove {folder.parent / DONE}, and the same command trains from the one before it"
        say(_damaged(places[-1], trouble, said if any(_whole(folder)) else _anew(folder)))


def _damaged(place: Path, trouble: str, then: str) -> str:
    return f"checkpoint {place} is damaged ({trouble})" + (f"; {then}" if then else "")


def _anew(folder: Path) -> str:
    return f"every checkpoint in {folder} is damaged; {_way(folder, [folder])}"


def _way(folder: Path, gone: list[Path]) -> str:
    """How to train the run of `folder` (again) after removing `gone`; a finished run's record is removed, too."""
    run = folder.parent
    gone = [*gone, *([run / DONE] if (run / DONE).exists() else [])]
    removed = f"remove {' and '.join(map(str, gone))}, and " if gone else ""
    return f"{removed}deepres train --run {run} trains it {'anew' if gone else 'first'}"


def newest(folder: Path) -> str:
    """The path of the newest whole checkpoint under `folder`, for a message."""
    return next(map(str, _whole(folder)), "none was written yet")


def _whole(folder: Path) -> Iterator[Path]:
    """The checkpoints that are not damaged, newest first."""
    return (place for place in reversed(_places(folder)) if _damage(place) is None)


def _places(folder: Path) -> list[Path]:
    """The folders of all checkpoints, oldest first."""
    return sorted(place for place in folder.glob("[0-9]*") if place.name.isdecimal() and place.is_dir())


def _load(place: Path) -> Checkpoint:
    """The checkpoint in `place`. Raises `InputError` if it is damaged."""
    trouble = _damage(place)
    if trouble is not None:
        raise InputError(trouble)
    state = archive.load(place / STATE)
    if not isinstance(state, dict) or state.get("iteration") != int(place.name):
        raise InputError(f"{STATE} is not of iteration {int(place.name)}")
    return Checkpoint(weights_file.read_file(place / WEIGHTS), state, _records(place))


def _records(place: Path) -> dict[str, bytes]:
    return {name: read_bytes(place / name) for name in RECORDS if (place / name).exists()}


def _damage(place: Path) -> str | None:
    """Why a checkpoint is damaged; None if it is whole."""
    try:
        sums = untrusted.read(place / SUMS, dict[str, str])
        kept = [name for name in RECORDS if name in sums or (place / name).exists()]
        for name in (WEIGHTS, STATE, *kept):
            if _sha256(read_bytes(place / name)) != sums[name]:
                return f"{name} does not match its checksum"
    except (OSError, KeyError) as error:
        return f"{type(error).__name__}: {error}"
    except InputError as error:
        return str(error)
    return None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write_synced(file: Path, data: bytes) -> None:
    with file.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _disk_trouble(error: OSError, folder: Path) -> str:
    cause = "the disk is full" if error.errno == errno.ENOSPC else str(error)
    goes_on = f" (it goes on from {newest(folder)})" if any(_whole(folder)) else ""
    return f"no checkpoint could be written in {folder}: {cause}; make room and run the same command again{goes_on}"
