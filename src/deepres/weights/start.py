"""The trained weights that a run begins with: kept in its folder, so that it goes on wherever they came from."""

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
    """A trained network, and the bytes of its weights file in our form."""

    net: Network
    content: bytes

    @property
    def sha256(self) -> str:
        """Of the content: the same weights give the same one, whatever file they came in."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def mean(self) -> Tensor | None:
        """The mean image of the training, (C, H, W) or (C, 1, 1) in 0..1; it is subtracted from other images, too."""
        return self.net.mean

    def keep(self, run: Run) -> None:
        """Put the weights into the folder of `run`."""
        if not (run.path / FILE).exists():
            with replacing(run.path / FILE) as partial:
                partial.write_bytes(self.content)

    def begin(self, classes: Sequence[str], channels: int, say: Say = silent) -> Network:
        """A network with these weights for `classes`; where these are not its own, its head has start values.

        The same names in another order, or in another Unicode form, are the same classes. Where the weights or the
        images name none, and they are as many, they are taken by their place, which `say` hears. The head is all that
        depends on the number of classes, and auxiliary classifiers. These have start values, too, where the trained
        weights lack them, as most do. Start values (of He et al. for the paper's networks) come from torch's random
        state. Raises `InputError` where the images have other than the network's input channels.
        """
        header = self.net.header
        if channels != header["in_channels"]:
            wanted = header["in_channels"]
            raise InputError(f"the weights take images of {wanted} channels, these have {channels}; give other weights")
        structure = {key: header[key] for key in STRUCTURE}
        net = build(self.net.name, len(classes), channels, **structure)
        state = self.net.state_dict()
        with torch.device("meta"):
            one, two = (build(self.net.name, count, channels, **structure).state_dict() for count in (1, 2))
        head = [key for key in state if one[key].shape != two[key].shape]
        known = classes_of("the weights", header.get("classes"), header["num_classes"])
        rows = head_rows(known, Classes("the data", tuple(classes)), say)
        if rows is None:
            state = {key: value for key, value in state.items() if key not in head and not key.startswith(AUXILIARY)}
        else:
            state |= {key: state[key][rows] for key in head}
        net.load_state_dict(net.state_dict() | state)
        return net


def placed(place: str) -> str:
    """`place` so that it is the same one from every working folder."""
    return place if place.startswith("hf:") else str(Path(place).absolute())


def take(place: Path, say: Say, network: str | None = None) -> Start:
    """The network of a run, a weights file or `hf:owner/name`, to begin with. Raises `InputError` as `ready` does."""
    net = ready(place, say, network)
    return Start(net, serialise(net.state_dict(), net.mean, net.header))


def of_run(run: Run, place: str, say: Say) -> Start:
    """What `run` began with, from its folder; of a new run, the weights at `place`."""
    file = run.path / FILE
    if not file.exists() or (not run.begun and place not in map(run.config.get, ("start", "start_path"))):
        return take(Path(place), say)
    return Start(load_network(file), read_bytes(file))
