"""Find the state dict in a file of a training: in a checkpoint, with the prefix of a wrapper, beside other heads."""

import re
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from deepres.runtime import archive
from deepres.runtime.errors import InputError, Say, few

# If a checkpoint holds several state dicts, the first of these is taken. Averaged weights come first: they are the ones
# that are tested and published.
PREFERRED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "state_dict", "model_state_dict", "net", "model")
DEEPEST = 3  # levels that are searched: a dictionary may hold itself
# Harmless types beside tensors in checkpoints of others: arguments, and numpy's numbers under the old and the new
# name of its module.
_scalar = cast(Any, np.array(0.0)[()].__reduce__()[0])
SAFE: list[Any] = [
    Namespace,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "?")),
    *((_scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]
# Names of modules and counters that are used in training only, beside a network or within it.
TRAINING = re.compile(
    r"n_averaged|queue(_ptr)?|(criterion|loss\w*|proj(ector|ection\w*)?|predictor|prototypes|\w+_head)\..+"
)


def read_pickle(file: Path, say: Say, take: str | None) -> dict[str, Tensor]:
    """The state dict in a file that `torch.save` wrote: alone, or in the checkpoint of a training.

    `take` names one of several; `say` is told which one is read. Raises `InputError` for a file that is cut short, for
    a pickle of anything but tensors, numbers, text and arguments (loading it could run code), for a file without a
    state dict, and if several could be meant.
    """
    content = archive.load(file, SAFE)
    if _is_state(content):
        if take is not None:
            raise InputError(f"{file} is a state dict alone; leave --take {take} out")
        return dict(content)
    nests = _nests(content) if isinstance(content, dict) else {}
    if not nests:
        raise InputError(
            f"{file} is refused: it is neither safetensors nor a state dict of names and dense tensors alone (a "
            "foreign pickle may run code when it is loaded); save its state_dict() with safetensors and give that"
        )
    name = take or preferred(nests)
    if name not in nests:
        wrong = "" if take is None else f" and no {take}"
        raise InputError(f"{file} holds {few(nests)}{wrong}; say which with deepres convert --take NAME")
    others = [other for other in nests if other != name]
    also = f", which also holds {few(others)} (deepres convert --take NAME for another)" if others else ""
    say(f"{name} is taken of {file}{also}")
    return nests[name]


def bare(state: Mapping[str, Tensor], file: Path, say: Say) -> dict[str, Tensor]:
    """`state` without a prefix that all names share, such as `module.` or `backbone.`, and without training's modules.

    `say` is told what is left out.
    """
    rest, left = dict(state), list[str]()
    while True:
        left += [key for key in rest if TRAINING.fullmatch(key)]
        rest = {key: value for key, value in rest.items() if not TRAINING.fullmatch(key)}
        prefix, dot, _ = next(iter(rest), "").partition(".")
        if not (dot and len(rest) > 1 and all(key.startswith(prefix + dot) for key in rest)):
            break
        rest = {key.removeprefix(prefix + dot): value for key, value in rest.items()}
    if left:
        say(f"left out of {file}, as part of its training: {few(left)}")
    return rest


def _nests(content: Mapping[Any, Any], depth: int = 1) -> dict[str, dict[str, Tensor]]:
    """The state dicts inside `content`, by their keys, joined by dots."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, dict):
            continue
        inner = cast(dict[Any, Any], value)
        if inner and _is_state(inner):
            found[name] = dict(inner)
        elif depth < DEEPEST:
            found |= {f"{name}.{below}": own for below, own in _nests(inner, depth + 1).items()}
    return found


def preferred(nests: Mapping[str, Any]) -> str | None:
    """The name of the state dict to take of several, by `PREFERRED`; None if none of them is there."""
    known = (name for preferred in PREFERRED for name in nests if preferred in name.split("."))
    return next(iter(nests)) if len(nests) == 1 else next(known, None)


def _is_state(content: Any) -> bool:
    return isinstance(content, dict) and all(
        isinstance(key, str) and _is_dense(value) for key, value in cast(dict[Any, Any], content).items()
    )


def _is_dense(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout is torch.strided and not value.is_meta
