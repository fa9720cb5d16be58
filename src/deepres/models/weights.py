"""Weights on disk: safetensors with a header that says which network they are of."""

import json
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from deepres.errors import InputError

MEAN = "deepres.mean"  # the per-pixel mean image travels with the weights: a net is of no use without it
HEADER = "deepres"
NESTS = ("state_dict", "model")  # where a checkpoint of a training keeps the weights among other things


@dataclass(frozen=True)
class Weights:
    """A state dict, the mean image (C, H, W) in 0..1 that its inputs lack, and the header (both may be absent)."""

    state: dict[str, Tensor]
    mean: Tensor | None
    header: dict[str, Any]


def serialise(state: Mapping[str, Tensor], mean: Tensor | None, header: Mapping[str, Any]) -> bytes:
    """The bytes of a weights file. `header` must be plain JSON."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    if mean is not None:
        tensors[MEAN] = mean.detach().cpu().contiguous()
    return to_bytes(tensors, metadata={HEADER: json.dumps(header)})


def read(file: Path) -> Weights:
    """Read a weights file: safetensors, or a state dict of `torch.save`, alone or in a checkpoint of a training.

    Raises `InputError` for a file that is neither, or is cut short; a pickle that holds anything but tensors is
    refused, since to load it would run whatever code it carries.
    """
    if not file.is_file():
        raise InputError(f"there is no weights file {file}")
    try:
        with safe_open(file, framework="pt") as stream:
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 (not a mapping)
            header = json.loads((stream.metadata() or {}).get(HEADER, "{}"))
    except SafetensorError as error:
        if file.suffix == ".safetensors":
            raise InputError(f"{file} is no whole safetensors file ({error}); copy it again") from None
        tensors, header = _read_pickle(file), {}
    return Weights(tensors, tensors.pop(MEAN, None), header)


def _read_pickle(file: Path) -> dict[str, Tensor]:
    refusal = (
        f"{file} is refused: it is neither safetensors nor a state dict of tensors alone (a foreign pickle may run "
        "code when it is loaded); save its state_dict() with safetensors and give that"
    )
    try:
        with torch.serialization.safe_globals([Namespace]):  # the arguments, in checkpoints of torchvision and timm
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception:  # torch raises a dozen kinds for a foreign, cut or hostile file, and all mean the same here
        raise InputError(refusal) from None
    while isinstance(state, dict) and (nest := next((name for name in NESTS if name in state), None)):
        state = state[nest]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(refusal)
    return dict(state)
