"""Reads files of tensors that strangers may have written. They may hold tensors and plain values only.

`torch.load(weights_only=True)` runs no code, but it believes the sizes that a file declares. A small file with a
compressed member, or with a tensor that repeats one number a thousand million times, would fill the memory. So a file
is also refused if its tensors are much larger in memory than on disk.
"""

import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from deepres.runtime.errors import InputError
from deepres.runtime.files import require_regular

SWELL = 4  # tensors may take so many times the bytes of the file, since tied weights are stored once
MOST_PICKLE = 2**26  # bytes of the pickle: the names and offsets of the tensors, without their values


def opened(file: Path) -> safe_open:
    """Open a safetensors file, to be used in a `with`.

    Raises `OSError` if it is not a regular file, and `SafetensorError` if it is damaged.
    """
    require_regular(file)
    return safe_open(file, framework="pt")


def load(file: Path, safe: Sequence[Any] = ()) -> Any:
    """The content of a file written by `torch.save`: tensors on the CPU, plain values, and objects of the types `safe`.

    Raises `InputError` if the file cannot be read, is cut short or compressed, holds any other object (loading it could
    run foreign code), or if its tensors take more than `SWELL` times the bytes of the file.
    """
    try:
        require_regular(file)
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}); give another file") from None
    # Refuse files whose size in memory cannot be bounded, then load without running code.
    try:
        size = file.stat().st_size
        if zipfile.is_zipfile(file):
            _refuse_packed(file, size)
        with torch.serialization.safe_globals(list(safe)), warnings.catch_warnings(action="ignore"):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except (InputError, MemoryError):
        raise
    except Exception:  # torch raises many kinds of errors for a foreign, cut or hostile file
        raise InputError(
            f"{file} is refused: it is cut short, or holds something else than tensors and plain values (a foreign "
            "pickle may run code when it is loaded); save its state_dict() with safetensors and give that"
        ) from None
    _refuse_swelling(content, file, size)
    return content


def _refuse_packed(file: Path, size: int) -> None:
    """Raise `InputError` if the members of a zip file are compressed, or declare more bytes than the file has."""
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
    if any("/code/" in own.filename for own in members):  # written by torch.jit.save
        raise InputError(
            f"{file} is TorchScript, a program and not weights alone; save its state dict where it was made: "
            "torch.save(torch.jit.load(FILE).state_dict(), ...)"
        )
    if any(own.compress_type != zipfile.ZIP_STORED for own in members):
        raise InputError(f"{file} is compressed, which torch.save never does: it may be of any size; unpack it")
    if sum(own.file_size for own in members) > size:
        raise InputError(f"{file} declares more bytes than it has; copy it again")
    if any(own.file_size > MOST_PICKLE for own in members if own.filename.endswith(".pkl")):
        raise InputError(f"{file} has more than {MOST_PICKLE:,} bytes of names; save its state_dict() alone")


def _refuse_swelling(content: Any, file: Path, size: int) -> None:
    """Raise `InputError` if the tensors in `content`, or the storages that they view, are too large for `size`."""
    # Visit every value in it, with a stack.
    tensors, storages, seen, stack = 0, dict[int, int](), set[int](), [content]
    while stack:
        value = stack.pop()
        if id(value) in seen:  # a list may contain itself
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            tensors += value.numel() * value.element_size()
            if value.layout is torch.strided and not value.is_meta:
                storage = value.untyped_storage()
                storages[storage.data_ptr()] = storage.nbytes()
        elif isinstance(value, dict):
            stack += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set):
            stack += value
        elif hasattr(value, "__dict__"):
            stack.append(vars(value))
    if tensors > SWELL * size or sum(storages.values()) > size:
        raise InputError(
            f"{file} has {size:,} bytes, and declares tensors of {max(tensors, sum(storages.values())):,}; save "
            "its tensors whole (tensor.clone())"
        )
