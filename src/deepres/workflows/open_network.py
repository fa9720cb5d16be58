"""Open a trained network that the user names."""

from pathlib import Path
from typing import TYPE_CHECKING, cast

from deepres.models.network import Network
from deepres.runtime.errors import InputError, Say
from deepres.serving.file_network import SUFFIXES, open_file
from deepres.weights.find import ready

if TYPE_CHECKING:
    from deepres.models.detection.detector import Detector


def open_network(path: Path, say: Say, network: str | None = None, device: str = "cpu") -> Network:
    """A network from a run folder, a weights file of any kind, `hf:owner/name`, or a file of `deepres export`.

    `network` names the architecture where neither header nor tensors tell it. `device` is where the runtime of an
    exported file computes. Raises `InputError` as `ready` does for
    weights, and as `open_file` does for an exported file.
    """
    return open_file(path, say, device) if path.suffix in SUFFIXES else ready(path, say, network)


def is_detector(net: Network) -> bool:
    """Whether a network finds boxes, rather than the class of a picture. Loads no torchvision."""
    return "detector" in net.header


def classifier(net: Network, place: Path) -> Network:
    """`net`, opened from `place`. Raises `InputError` for a detector."""
    if is_detector(net):
        raise InputError(f"{place} is a detector, {net.name}; deepres detect shows what it finds in pictures")
    return net


def detector(net: Network, place: Path) -> "Detector":
    """`net`, opened from `place`, as a detector. Raises `InputError` for a classifier."""
    if not is_detector(net):
        raise InputError(f"{place} is a classifier, {net.name}; deepres predict gives the classes of pictures")
    return cast("Detector", net)
