"""Checkpoints that survive a kill at any moment.

    RUN/checkpoints/000012000/
      weights.safetensors   parameters and running statistics, mean image, header
      state.pt              velocity, iteration, warm-up, unfinished window, random state
      sha256.json           of the two files: a cut or flipped byte is noticed

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from deepres.errors import InputError
from deepres.models import weights as weights_file

WEIGHTS, STATE, SUMS = "weights.safetensors", "state.pt", "sha256.json"
KEEP = 2


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds: weights, and the rest of the loop's state (tensors and plain values)."""

    weights: weights_file.Weights
    state: dict[str, Any]


def save(folder: Path, iteration: int, weights: bytes, state: Mapping[str, Any]) -> Path:
    """Write the checkpoint of `iteration` under `folder` atomically and drop all but the last two.

    Raises `InputError` where the disk is full; the checkpoints before it stay, nothing half-written does.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    files = {WEIGHTS: weights, STATE: buffer.getvalue()}
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


def load_latest(folder: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest whole checkpoint under `folder`; None where there is none yet.

    A damaged one is named through `warn` and the one before it is used. Raises `InputError` when all are damaged.
    """
    for leftover in folder.glob(".*.partial"):
        shutil.rmtree(leftover, ignore_errors=True)
    places = _places(folder)
    for place in reversed(places):
        trouble = _damage(place)
        if trouble is None:
            state = torch.load(place / STATE, map_location="cpu", weights_only=True)
            return Checkpoint(weights_file.read(place / WEIGHTS), state)
        warn(f"checkpoint {place} is damaged ({trouble}); going on from the one before it")
    if places:
        raise InputError(f"every checkpoint in {folder} is damaged; delete the run folder to start it anew")
    return None


def latest_weights(folder: Path, warn: Callable[[str], None]) -> Path:
    """The weights file of the newest whole checkpoint. Raises `InputError` where there is none."""
    for place in reversed(_places(folder)):
        trouble = _damage(place)
        if trouble is None:
            return place / WEIGHTS
        warn(f"checkpoint {place} is damaged ({trouble}); using the one before it")
    raise InputError(f"{folder} holds no whole checkpoint; train the run first")


def newest(folder: Path) -> str:
    """How the newest whole checkpoint under `folder` is named to a person."""
    whole = (str(place) for place in reversed(_places(folder)) if _damage(place) is None)
    return next(whole, "none was written yet")


def _places(folder: Path) -> list[Path]:
    """Checkpoints, oldest first."""
    return sorted(place for place in folder.glob("[0-9]*") if place.is_dir())


def _damage(place: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        sums = json.loads((place / SUMS).read_text(encoding="utf-8"))
        for name in (WEIGHTS, STATE):
            if _sha256((place / name).read_bytes()) != sums[name]:
                return f"{name} does not match its checksum"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
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
    return f"no checkpoint could be written in {folder}: {cause}; make room and run the same command again " + (
        f"(it goes on from {newest(folder)})"
    )
