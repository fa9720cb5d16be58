"""Open a trained network that the user names."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from safetensors import SafetensorError

from deepres.models.network import Network
from deepres.models.registry import CASCADE, DETECTORS, LOCALIZER
from deepres.runtime import archive, untrusted
from deepres.runtime.errors import InputError, Say, silent
from deepres.serving.export import open_export
from deepres.serving.file_network import SUFFIXES, open_file
from deepres.weights.file import HEADER
from deepres.weights.find import find, ready

if TYPE_CHECKING:
    from deepres.models.detection.detector import Detector
    from deepres.models.localization.localizer import Localizer


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


def holds_detector(place: Path, network: str | None = None) -> bool:
    """Whether the weights at `place`, or an exported file, say that they are of a detector, with masks or without.

    Reads the header alone. `network` names what they are of where they do not say so. Raises `InputError` as
    `open_file` does for an exported file.
    """
    return _name(place, network).startswith(DETECTORS)


def holds_segmenter(place: Path, network: str | None = None) -> bool:
    """Whether the weights at `place` say that they are of a detector with masks; else as `holds_detector`."""
    return _name(place, network).startswith(CASCADE)


def holds_localizer(place: Path, network: str | None = None) -> bool:
    """Whether the weights at `place` say that they are of a localizer; else as `holds_detector`."""
    return _name(place, network).startswith(LOCALIZER)


def _name(place: Path, network: str | None) -> str:
    """The name of the network that weights are of, by their header; nothing where it does not tell."""
    if network is not None:
        return network
    if place.suffix in SUFFIXES:
        return str(open_export(place, silent)[1].get("network"))
    try:
        with archive.opened(find(place, silent)) as stream:
            text = (stream.metadata() or {}).get(HEADER, "{}")
        return str(untrusted.decode(text, dict[str, Any], str(place), own=True).get("network"))
    except (OSError, SafetensorError, InputError):
        return ""


def classifier(net: Network, place: Path) -> Network:
    """`net`, opened from `place`. Raises `InputError` for a detector or a localizer."""
    if is_detector(net):
        raise InputError(f"{place} is a detector, {net.name}; deepres detect shows what it finds in pictures")
    if "localizer" in net.header:
        raise InputError(
            f"{place} is a localizer, {net.name}, whose classes a classifier tells; deepres eval tests both"
        )
    return net


def localizer(net: Network) -> "Localizer | None":
    """`net` as a localizer; None where it is no localizer."""
    return cast("Localizer", net) if "localizer" in net.header else None


def detector(net: Network, place: Path) -> "Detector":
    """`net`, opened from `place`, as a detector. Raises `InputError` for a classifier or a localizer."""
    if not is_detector(net):
        classifier(net, place)
        raise InputError(f"{place} is a classifier, {net.name}; deepres predict gives the classes of pictures")
    return cast("Detector", net)
