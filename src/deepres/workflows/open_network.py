"""Open a trained network that the user names."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from safetensors import SafetensorError

from deepres.models.network import Network
from deepres.models.registry import DETECTORS, LOCALIZER
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
    """Whether the weights at `place`, or an exported file, say that they are of a detector. Reads the header alone.

    `network` names what they are of where they do not say so. Raises `InputError` as `open_file` does for an exported
    file.
    """
    return _holds("detector", DETECTORS, place, network)


def holds_localizer(place: Path, network: str | None = None) -> bool:
    """Whether the weights at `place` say that they are of a localizer; else as `holds_detector`."""
    return _holds("localizer", LOCALIZER, place, network)


def _holds(plan: str, prefix: str | tuple[str, ...], place: Path, network: str | None) -> bool:
    """Whether the header of weights has this `plan`; where they are of a `network`, whether its name has the prefix."""
    if network is not None:
        return network.startswith(prefix)
    if place.suffix in SUFFIXES:
        return plan in open_export(place, silent)[1]
    try:
        with archive.opened(find(place, silent)) as stream:
            text = (stream.metadata() or {}).get(HEADER, "{}")
        return plan in untrusted.decode(text, dict[str, Any], str(place), own=True)
    except (OSError, SafetensorError, InputError):
        return False


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
