"""A trained network exported for other programs, with the pictures that check and calibrate the file."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from deepres.classification.scorer import channels_and_classes, crop_of, with_channels
from deepres.classification.views import Protocol, fitted
from deepres.data.augment import normalise
from deepres.data.decode import pixels_or_fault
from deepres.data.listing import Picture
from deepres.models.network import Network
from deepres.records import Json
from deepres.runtime.errors import InputError, Say
from deepres.serving.export import Inputs, export
from deepres.serving.forms import Form
from deepres.weights.find import require_mean
from deepres.workflows.evaluate import usual_protocol
from deepres.workflows.open_network import is_detector
from deepres.workflows.predict import pictures_under

if TYPE_CHECKING:
    from deepres.models.detection.detector import Detector

RANDOM = 9  # random pictures for the check where no folder is given
MOST = 320  # most pictures taken from a folder, evenly spaced
CHECK_EVERY = 5  # every fifth picture is for the check, the others are for the ranges of int8
BATCH = 16


@dataclass(frozen=True)
class ExportOptions:
    """How a network is written: the form of the file, its input, and whether it is quantized.

    With `preprocess` the input is uint8 pictures of the training crop, else the input of the network. `calibrate` is a
    folder of pictures for the check and for the ranges of `int8`.
    """

    form: Form
    preprocess: bool = False
    int8: bool = False
    calibrate: Path | None = None


def deploy(net: Network, out: Path, options: ExportOptions, say: Say) -> Json:
    """Write `net` to `out` for other programs, check the file against `net`, and return facts about the file.

    The check is on centre crops of the pictures in the folder `calibrate`, else on random pictures; int8 takes its
    ranges from other pictures of the folder. Raises `InputError` as `serving.export.export`, for a localizer, and for a
    folder without pictures.
    """
    if is_detector(net):
        from deepres.workflows.export_detector import deploy_detector  # loads torchvision, which takes seconds

        if options.int8:
            raise InputError(f"{net.name} is a detector, which is written in fp32 alone; leave --int8 out")
        return deploy_detector(cast("Detector", net), out, options.form, options.calibrate, say)
    if "localizer" in net.header:
        raise InputError(f"{net.name} is a localizer, which no file of export holds; deepres eval takes its weights")
    channels = channels_and_classes(net)[0]
    if options.int8 and options.calibrate is None:
        raise InputError("--int8 takes its ranges from pictures: give a folder of a few hundred with --calibrate")
    if options.preprocess and channels != 3:
        raise InputError("--preprocess is for networks of colour images; leave it out")
    own_mean, crop, folder = require_mean(net, net.name), crop_of(net), options.calibrate
    # Pictures to check the file with, and others for the ranges of int8.
    pictures = _random_pictures(crop, channels) if folder is None else _center_crops(folder, crop, channels, say)
    every = CHECK_EVERY if folder is not None and len(pictures) >= CHECK_EVERY else 1
    checked = pictures[::every]
    learned = pictures[[image for image in range(len(pictures)) if every == 1 or image % every]]
    # Both in the form that the file takes.
    mean = fitted(own_mean, crop, crop)

    def ready(images: Tensor) -> Tensor:
        return images.permute(0, 2, 3, 1).contiguous() if options.preprocess else normalise(images, mean)

    inputs = Inputs(
        [ready(images) for images in (checked[:1], *checked[1:].split(BATCH)) if len(images)],
        mean if options.preprocess else None,
        [ready(images) for images in learned.split(BATCH)] if options.int8 else None,
    )
    # Write the file, and report on it.
    facts = _facts(net, options)
    # Without `preprocess`, users subtract the mean themselves; a std of the training is folded into conv1.
    told = (
        {}
        if options.preprocess
        else {"mean": _shortest(own_mean if own_mean.shape[-1] == 1 else mean), "std": [1.0] * channels}
    )
    found = export(net, out, options.form, inputs, facts | told)
    return facts | {
        "file": str(out),
        "format": options.form,
        "checked_on": f"{found.images} {'random' if folder is None else 'real'} pictures",
        "largest_change": found.change,
        "same_top1": found.same,
    }


def _facts(net: Network, options: ExportOptions) -> Json:
    """The metadata of the file."""
    (channels, classes), crop = channels_and_classes(net), crop_of(net)
    colours = "RGB" if channels == 3 else "gray"
    return {
        "network": net.name,
        "crop": crop,
        "classes": list(net.header.get("classes") or map(str, range(classes))),
        "precision": "int8" if options.int8 else "fp32",
        "protocol": usual_protocol([net]).name,
        "input": f"uint8 (N, {crop}, {crop}, {channels}), RGB; inside: scaled to 0..1, less the mean image"
        if options.preprocess
        else f"float32 (N, {channels}, {crop}, {crop}), {colours} in 0..1 less the mean, which the file only tells",
        "output": f"float32 (N, {classes}), scores before softmax",
    }


def _shortest(mean: Tensor) -> list[Any]:
    """The mean as nested lists (C) or (C, H, W), each number in the fewest digits that give the same float32."""
    numbers = mean.flatten() if mean.shape[-2:] == (1, 1) else mean
    return numbers.numpy().astype(str).astype(float).tolist()


def _center_crops(folder: Path, crop: int, channels: int, say: Say) -> Tensor:
    """The centre crops of the pictures in a folder that decode, uint8 (N, channels, crop, crop)."""
    files = pictures_under(folder)
    files = files[:: -(-len(files) // MOST)]
    view, made = Protocol("center").views(crop), list[Tensor]()
    for file in files:
        pixels = pixels_or_fault(Picture(str(file), 0, "test", file))
        if isinstance(pixels, str):
            say(f"left out {file}: {pixels}")
        else:
            made.append(with_channels(view(pixels)[0], channels))
    if not made:
        raise InputError(f"no picture in {folder} decodes; give another --calibrate")
    return torch.stack(made)


def _random_pictures(crop: int, channels: int) -> Tensor:
    """Random pictures, smooth with some grain like photographs, uint8 (RANDOM, channels, crop, crop)."""
    generator = torch.Generator().manual_seed(0)
    fields = torch.rand(RANDOM, channels, 5, 5, generator=generator)
    smooth = F.interpolate(fields, (crop, crop), mode="bicubic").clamp(0, 1)
    grain = torch.randn(smooth.shape, generator=generator)
    return (255 * smooth + 8 * grain).clamp(0, 255).byte()
