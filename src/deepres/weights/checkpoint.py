"""Checkpoints that survive a kill at any moment.

    RUN/checkpoints/000012000/
      weights.safetensors   parameters and running statistics, mean image, header
      state.pt              velocity, iteration, warm-up, unfinished window, random state
      metrics.jsonl         the rows of the run up to here, and those of timing.jsonl: as its own files may be damaged
      sha256.json           of all these: a cut or flipped byte is noticed

A checkpoint is written beside its place, flushed to the disk, and renamed into it; the last two are kept, so
that a damaged one has a good one before it.
"""

import errno
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Mapping
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
KEEP = 2


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds: weights, the rest of the loop's state (tensors and plain values), rows of the run.

    `records` are the contents of `RECORDS` by name; older checkpoints have none.
    """

    weights: weights_file.Weights
    state: dict[str, Any]
    records: dict[str, bytes] = field(default_factory=dict[str, bytes])


def save(
    folder: Path, iteration: int, weights: bytes, state: Mapping[str, Any], records: Mapping[str, bytes] | None = None
) -> Path:
    """Write the checkpoint of `iteration` under `folder` atomically and drop all but the last two.

    Raises `InputError` where the disk is full; the checkpoints before it stay, nothing half-written does.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    files = {WEIGHTS: weights, STATE: buffer.getvalue(), **(records or {})}
    files[SUMS] = json.dumps({name: _sha256(data) for name, data in files.items()}).encode()
    place, partial = folder / f"{iteration:09d}", folder / f".{iteration:09d}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        for name, data in files.items():
            _write_synced(partial / name, data)
        if place.exists():  # the same iteration again, after a resume: the same bytes
            shutil.rmtree(place)
        partial.rename(place)
        _sync_folder(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise InputError(_disk_trouble(error, folder)) from None
    places = [other for other in _places(folder) if other <= place]
    for other in _places(folder):
        if other not in places[-KEEP:]:  # a later one is damaged, or training would have gone on from it
            shutil.rmtree(other)
    return place


def load_latest(folder: Path, warn: Say, unfit: Callable[[Checkpoint], str] = lambda saved: "") -> Checkpoint | None:
    """The newest whole checkpoint under `folder` that is fit to go on from; None where there is none yet.

    `unfit` says what of one does not fit, "" where all does. A damaged or unfit one is named through `warn` and the one
    before it is used. Raises `InputError` when all are, which says how to train anew.
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
    """The rows that the newest whole checkpoint under `folder` keeps, by file; none where there is no such one."""
    for place in reversed(_places(folder)):
        if _damage(place) is None:
            return _records(place)
    return {}


def latest_weights(folder: Path, warn: Say) -> Path:
    """The weights file of the newest whole checkpoint. Raises `InputError` where there is none."""
    places = _places(folder)
    for place in reversed(places):
        trouble = _damage(place)
        if trouble is None:
            return place / WEIGHTS
        warn(_damaged(place, trouble, "using the one before it" if place != places[0] else ""))
    raise InputError(_anew(folder) if places else f"{folder} holds no checkpoint; {_way(folder, [])}")


def tell_damage(folder: Path, say: Say) -> None:
    """Say of a finished run whose newest checkpoint under `folder` is damaged how it gets its weights again."""
    places = _places(folder)
    trouble = _damage(places[-1]) if places else None
    if trouble is not None:
        whole = any(_damage(place) is None for place in places)
        said = f"remove {folder.parent / DONE}, and the same command trains from the one before it"
        say(_damaged(places[-1], trouble, said if whole else _anew(folder)))


def _damaged(place: Path, trouble: str, then: str) -> str:
    return f"checkpoint {place} is damaged ({trouble})" + (f"; {then}" if then else "")


def _anew(folder: Path) -> str:
    return f"every checkpoint in {folder} is damaged; {_way(folder, [folder])}"


def _way(folder: Path, gone: list[Path]) -> str:
    """How to get a run's weights where those in `gone` are damaged; a finished run is not trained again unasked."""
    run = folder.parent
    gone = [*gone, *([run / DONE] if (run / DONE).exists() else [])]
    removed = f"remove {' and '.join(map(str, gone))}, and " if gone else ""
    return f"{removed}deepres train --run {run} trains it {'anew' if gone else 'first'}"


def newest(folder: Path) -> str:
    """The place of the newest whole checkpoint under `folder`, for a message."""
    whole = (str(place) for place in reversed(_places(folder)) if _damage(place) is None)
    return next(whole, "none was written yet")


def _places(folder: Path) -> list[Path]:
    """Checkpoints, oldest first."""
    return sorted(place for place in folder.glob("[0-9]*") if place.name.isdecimal() and place.is_dir())


def _load(place: Path) -> Checkpoint:
    """The checkpoint in `place`. Raises `InputError` where it is damaged."""
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
    """What is wrong with a checkpoint, or None."""
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
    goes_on = any(_damage(place) is None for place in _places(folder))
    return f"no checkpoint could be written in {folder}: {cause}; make room and run the same command again" + (
        f" (it goes on from {newest(folder)})" if goes_on else ""
    )
