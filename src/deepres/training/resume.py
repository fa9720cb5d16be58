"""Resuming from a checkpoint: check that its state fits the run, and cut the records back to it."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Required, TypedDict

import torch
from torch import Tensor, nn

from deepres.records import DIGEST, METRICS, RECORDS, Count, Run, cut_after, digest
from deepres.runtime import untrusted
from deepres.runtime.errors import Say
from deepres.runtime.files import read_bytes, replacing
from deepres.runtime.untrusted import Meta
from deepres.training.optimizer import SGD
from deepres.weights.checkpoint import STATE, Checkpoint, kept_records, tell_damage
from deepres.weights.state import misfits

# Fields of a checkpoint's state beside those of `Progress`: of the optimizer and the random generators.
OTHERS = {"velocity", "lr", "random", "device_random"}


@dataclass
class Progress:
    """The state of the training loop. A resume needs it, the weights, the velocity and the random state."""

    window: Tensor  # (1 + figures, steps) of the unfinished window: the loss in row 0, then each figure
    iteration: int = 0
    warm: bool = False  # the warm-up by training error is over
    seconds: float = 0.0  # of work so far
    best: float = math.inf  # best test error in percent that counts for the decay `plateau`
    tests: int = 0  # tests since the best one
    drops: int = 0  # drops of the learning rate so far, by the decay `plateau`
    untested: bool = False  # the test that is due at this iteration has not been made
    latest: dict[str, float] = field(default_factory=dict[str, float])  # the newest figures

    def as_state(self) -> dict[str, Any]:
        """The fields by name, as a checkpoint holds them."""
        return {own.name: getattr(self, own.name) for own in fields(self)}

    def take(self, state: Mapping[str, Any]) -> None:
        """Take the fields of `state`, the state of a checkpoint that `unfit` has checked."""
        for name, value in state.items():
            setattr(self, name, value.to(self.window.device) if isinstance(value, Tensor) else value)


def in_todays_form(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state of a checkpoint. In older ones `losses` and `wrong` (shares of 1) become the rows of `window`."""
    found = dict(state)
    losses, wrong = found.get("losses"), found.get("wrong")
    if isinstance(losses, Tensor) and isinstance(wrong, Tensor) and losses.shape == wrong.shape:
        del found["losses"], found["wrong"]
        found["window"] = torch.stack([losses, 100 * wrong])
    return found


class _Plain(TypedDict, total=False):
    """The values of a state that are not tensors; older checkpoints lack some of them."""

    iteration: Required[Count]
    warm: bool
    seconds: Annotated[float, Meta(ge=0)]
    lr: Required[Annotated[float, Meta(ge=0)]]
    best: float
    tests: Count
    drops: Count
    untested: bool
    latest: dict[str, float]


def unfit(saved: Checkpoint, net: nn.Module, optimizer: SGD, progress: Progress) -> str:
    """What in a checkpoint does not fit this run, "" if all fits. Raises `InputError` for another program's state."""
    # The plain values.
    state = in_todays_form(saved.state)
    known = {own.name for own in fields(Progress)} | OTHERS
    if other := sorted(str(name) for name in state if name not in known):
        return f"{STATE} holds {other[0]!r}, which is no part of it"
    plain = {name: value for name, value in state.items() if not isinstance(value, Tensor) and name != "velocity"}
    untrusted.convert(plain, _Plain, STATE, "it is of another program")
    # The tensors: shapes and types are those of the run.
    velocity = state.get("velocity")
    if not isinstance(velocity, list) or len(velocity) != len(optimizer.velocity):
        return f"{STATE} has no velocity of {len(optimizer.velocity)} parameters"
    wanted = {"window": progress.window, "random": torch.get_rng_state()}
    pairs = [(name, state.get(name), own) for name, own in wanted.items()]
    pairs += [("velocity", theirs, own) for theirs, own in zip(velocity, optimizer.velocity, strict=True)]
    return next(_unlike(pairs), "") or misfits(net, saved.weights.state)


def _unlike(pairs: list[tuple[str, Any, Tensor]]) -> Iterator[str]:
    for name, theirs, own in pairs:
        if not isinstance(theirs, Tensor):
            yield f"{STATE} has no {name}"
        elif theirs.shape != own.shape or theirs.dtype != own.dtype:
            yield f"{name} of {STATE} is {theirs.dtype} {tuple(theirs.shape)}, not {own.dtype} {tuple(own.shape)}"


def take_records(run: Run, saved: Checkpoint | None, say: Say) -> None:
    """Restore the rows that the checkpoint `saved` holds, or none; `say` is told of rows that the run did not write."""
    iteration = 0 if saved is None else saved.state["iteration"]
    kept = dict[str, bytes].fromkeys(RECORDS, b"") if saved is None else saved.records
    _take(run, kept, say, finished=False)
    for name in set(RECORDS) - kept.keys():  # older checkpoints hold no rows
        if (run.path / name).exists():
            cut_after(run.path / name, iteration)


def mend_records(run: Run, say: Say) -> None:
    """Restore damaged rows of a finished `run` from its last checkpoint, and say so.

    Where a checkpoint itself is damaged, say how to make it again.
    """
    tell_damage(run.path / "checkpoints", say)
    known = (run.done or {}).get(DIGEST)
    if known is not None and digest(run.path / METRICS) != known:
        _take(run, kept_records(run.path / "checkpoints"), say, finished=True)


def _take(run: Run, kept: Mapping[str, bytes], say: Say, finished: bool) -> None:
    """Write the `kept` rows into the files of `run`. Later rows of an unfinished run are cut in silence."""
    for name, rows in kept.items():
        file = run.path / name
        found = read_bytes(file) if file.exists() else b""
        # Rows after the kept ones are of the same run, unless the file repeats its first row among them.
        twice = rows != b"" and rows[: rows.find(b"\n")] in found[len(rows) :]
        if not found.startswith(rows) or twice or (finished and found != rows):
            say(f"{file} is not what the run wrote; its rows are taken from the checkpoint")
        if found != rows:
            with replacing(file) as partial:
                partial.write_bytes(rows)
