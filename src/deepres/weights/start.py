"""The trained weights that a run starts from; a copy in the run folder lets the run resume without the original."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from deepres.data.classes import Classes, classes_of, head_rows
from deepres.models.catalog import build
from deepres.models.network import Network
from deepres.records import Run
from deepres.runtime.errors import InputError, Say, silent
from deepres.runtime.files import read_bytes, replacing
from deepres.weights.file import serialise
from deepres.weights.find import ready
from deepres.weights.load import STRUCTURE, load_network
from deepres.weights.state import AUXILIARY

FILE = "start.safetensors"


@dataclass(frozen=True)
class Start:
    """A trained network, and the bytes of its weights file in our format."""

    net: Network
    content: bytes

    @property
    def sha256(self) -> str:
        """The checksum of `content`: the same for the same weights, whatever file they came in."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def mean(self) -> Tensor | None:
        """The mean image that the network was trained with, (C, H, W) or (C, 1, 1) in 0..1; new images use it, too."""
        return self.net.mean

    def keep(self, run: Run) -> None:
        """Write the weights into the folder of `run`, if they are not there."""
        if not (run.path / FILE).exists():
            with replacing(run.path / FILE) as partial:
                partial.write_bytes(self.content)

    def begin(self, classes: Sequence[str], channels: int, say: Say = silent) -> Network:
        """A network with these weights for `classes`; for other classes than its own, its head has start values.

        The same names in another order, or in another Unicode form, are the same classes. If the weights or the images
        name no classes, and their numbers are equal, the order decides, and `say` is told. The head is every tensor
        whose shape depends on the number of classes, and the auxiliary classifiers; most trained weights lack these,
        and they get start values. Start values (He et al. for the paper's networks) are drawn from torch's random
        state. Raises `InputError` if the images have another number of channels than the network's input.
        """
        header = self.net.header
        if channels != header["in_channels"]:
            wanted = header["in_channels"]
            raise InputError(f"the weights take images of {wanted} channels, these have {channels}; give other weights")
        # A new network for these classes, with start values.
        structure = {key: header[key] for key in STRUCTURE if key in header}
        net = build(self.net.name, len(classes), channels, **structure)
        state = self.net.state_dict()
        # The head: tensors whose shape changes with the number of classes.
        with torch.device("meta"):
            one, two = (build(self.net.name, count, channels, **structure).state_dict() for count in (1, 2))
        head = [key for key in state if one[key].shape != two[key].shape]
        # The trained tensors: without the head for other classes, with its rows reordered for the same ones.
        known = classes_of("the weights", header.get("classes"), header["num_classes"])
        rows = head_rows(known, Classes("the data", tuple(classes)), say)
        if rows is None:
            state = {key: value for key, value in state.items() if key not in head and not key.startswith(AUXILIARY)}
        else:
            state |= {key: state[key][rows] for key in head}
        net.load_state_dict(net.state_dict() | state)
        return net


def placed(place: str) -> str:
    """`place` as an absolute path, which is the same from every working folder; `hf:owner/name` unchanged."""
    return place if place.startswith("hf:") else str(Path(place).absolute())


def take(place: Path, say: Say, network: str | None = None) -> Start:
    """Read the network at `place` (a run, a weights file or `hf:owner/name`). Raises `InputError` as `ready` does."""
    net = ready(place, say, network)
    return Start(net, serialise(net.state_dict(), net.mean, net.header))


def of_run(run: Run, place: str, say: Say) -> Start:
    """The weights that `run` started from, read from its folder; for a new run, the weights at `place`."""
    file = run.path / FILE
    if not file.exists() or (not run.begun and place not in map(run.config.get, ("start", "start_path"))):
        return take(Path(place), say)
    return Start(load_network(file), read_bytes(file))
