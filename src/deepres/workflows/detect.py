"""The objects that a trained detector finds in pictures without annotations."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from deepres.classification.scorer import Execution, with_channels
from deepres.data.decode import pixels_or_fault
from deepres.data.listing import Picture
from deepres.data.pictures import ahead
from deepres.detection.ensemble import members_of
from deepres.detection.form import fast_form
from deepres.detection.protocol import Protocol
from deepres.detection.tester import NONE, detected
from deepres.models.detection.detector import Detector
from deepres.models.detection.outputs import Detections
from deepres.models.network import Network
from deepres.runtime.device import autocast
from deepres.runtime.errors import InputError, Say

if TYPE_CHECKING:
    from deepres.serving.file_detector import FileDetector

LONGEST_ID = 18  # digits: ids are below 2^63
KEPT = (".jpg", ".jpeg", ".png")  # a drawn picture keeps the name of a picture with such a suffix


@dataclass(frozen=True, eq=False)
class Sighting:
    """What is found in a picture, `size` (height, width) upright; or the `fault` for which nothing is.

    `pixels` uint8 (C, H, W) are the picture itself, and labels are places among the `classes`.
    """

    name: str
    size: tuple[int, int] = (0, 0)
    found: Detections = NONE
    fault: str | None = None
    pixels: Tensor | None = None
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Spotter:
    """A trained detector, or an ensemble of several, from picture files to detections.

    `category_ids` are COCO's of the classes: those of the training data where they are known, else 1, 2, 3, ...
    """

    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    detect: Callable[[Tensor], Detections]

    def predict(self, files: Iterable[Path]) -> Iterator[Sighting]:
        """One sighting for each file, in order; for a file that cannot be read, decoded or looked at it has a fault."""

        def decode(file: Path) -> Tensor | str:
            return pixels_or_fault(Picture(str(file), 0, "test", file))

        for file, image in ahead(files, decode):
            if isinstance(image, str):
                yield Sighting(str(file), fault=image)
                continue
            try:
                found = self.detect(image)
            except InputError as error:
                yield Sighting(str(file), fault=str(error))
            else:
                yield Sighting(str(file), (image.shape[1], image.shape[2]), found, pixels=image, classes=self.classes)


def spotter(nets: Sequence[Detector], protocol: Protocol, execution: Execution, say: Say) -> Spotter:
    """A detector, or several as an ensemble, ready to look at pictures under a protocol.

    The classes are those of the first. Raises `InputError` for networks that do not go together, without a mean, or
    with weights that are not finite; and for what the file of an exported detector cannot do.
    """
    if any(net.in_file for net in nets):
        return _in_file(nets, protocol, say)
    execution = execution.resolved()
    for net in nets:
        if not all(value.isfinite().all() for value in net.state_dict().values()):
            raise InputError(
                f"the weights of {net.name} hold values that are not finite; they are damaged, give others"
            )
    made = [on_device(net, execution.device) for net in nets]
    members_of(made, protocol, say)  # tells once what is matched, and refuses what does not go together
    channels = int(nets[0].header["in_channels"])

    def detect(image: Tensor) -> Detections:
        with autocast(execution.precision, execution.device):
            return detected(made, protocol, [with_channels(image, channels)])[0]

    return Spotter(*classes_and_ids(nets[0]), detect)


def _in_file(nets: Sequence[Network], protocol: Protocol, say: Say) -> Spotter:
    """A detector in a file of `deepres export`, whose protocol is fixed: fewer detections can be asked for, not others.

    `say` is told where more are asked for than the file gives.
    """
    net = next(cast("FileDetector", net) for net in nets if net.in_file)
    plan = net.plan
    least = plan.threshold if protocol.threshold is None else protocol.threshold
    most = plan.most if protocol.most is None else protocol.most
    if len(nets) > 1 or replace(protocol, threshold=None, most=None) != Protocol():
        raise InputError(
            f"{net.name} in a file is tested as it was exported, alone; leave all but --threshold and --most out, or "
            "give the weights"
        )
    if least < plan.threshold or most > plan.most:
        say(f"{net.name} in a file gives up to {plan.most} detections of a picture, with scores above {plan.threshold}")

    def detect(image: Tensor) -> Detections:
        (found,) = net.detect([with_channels(image, 3)])
        count = min(int((found.scores > least).sum()), most)  # scores fall
        return found.first(count)

    return Spotter(*classes_and_ids(net), detect)


def on_device(net: Detector, device: str) -> Detector:
    """The network in evaluation mode on a device, in the form that is fast there."""
    return fast_form(net.eval().to(device=torch.device(device), memory_format=torch.channels_last))  # pyright: ignore[reportCallIssue]


def classes_and_ids(net: "Detector | FileDetector") -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The names of the classes that a detector knows, and their ids as COCO writes them."""
    classes = net.header.get("classes") or [str(label) for label in range(net.num_classes)]
    ids: Any = net.header.get("category_ids")
    known = isinstance(ids, list) and [type(own) for own in cast(list[Any], ids)] == [int] * len(classes)
    known = known and len({*ids}) == len(classes)
    return tuple(classes), tuple(ids if known else range(1, len(classes) + 1))


def places_of(weights: str) -> list[Path]:
    """The weights of an ensemble, whose places have commas between them; a place that exists is one."""
    if Path(weights).exists() or "," not in weights:
        return [Path(weights)]
    parts = weights.split(",")
    if not all(part.strip() for part in parts):
        raise InputError(f"{weights} names an empty place; give weights with one comma between")
    return [Path(part) for part in parts]


def image_ids(files: Sequence[Path]) -> list[int]:
    """The ids by which COCO knows the pictures: the numbers that their names are, or else 1, 2, 3, ...

    COCO's pictures are called 000000000139.jpg. Names that are not all numbers, or not all different ones, have no
    such meaning.
    """
    stems = [file.stem for file in files]
    numbers = [int(stem) for stem in stems if stem.isascii() and stem.isdigit() and len(stem) <= LONGEST_ID]
    usable = len(numbers) == len(files) == len(set(numbers))
    return numbers if usable else list(range(1, len(files) + 1))


def drawing_places(files: Sequence[Path], folder: Path, given: Sequence[str] = ()) -> list[Path]:
    """Where the drawn picture of each file goes: its name, and the folders below the one that all files are in.

    `given` are the arguments that the files come from. Raises `InputError` where one of the files would be overwritten,
    and where drawn pictures would be found as pictures the next time.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--draw {folder} is a file; name a folder")
    real = Path(os.path.realpath(folder))
    if inside := [name for name in given if Path(name).is_dir() and real.is_relative_to(os.path.realpath(name))]:
        raise InputError(f"--draw {folder} lies in {inside[0]}, whose pictures are looked at; give another folder")
    whole = [file.parent.resolve() / file.name for file in files]
    parents = {str(file.parent) for file in whole}
    common = os.path.commonpath(parents) if parents else ""
    places = [folder / file.relative_to(common) for file in whole]
    places = [one if one.suffix.lower() in KEPT else one.with_name(f"{one.name}.png") for one in places]
    inputs = {os.path.realpath(file) for file in whole}
    if any(os.path.realpath(place) in inputs for place in places):
        raise InputError(f"--draw {folder} is the folder of the pictures, which would be lost; give another")
    return places
