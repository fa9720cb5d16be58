"""A trained detector exported for other programs, with the pictures that check the file."""

from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from deepres.classification.scorer import with_channels
from deepres.data.decode import pixels_or_fault
from deepres.data.listing import Picture
from deepres.models.detection.detector import Detector
from deepres.models.detection.images import fitted, fitted_size
from deepres.models.segmentation.cascade import Cascade
from deepres.records import Json
from deepres.runtime.errors import InputError, Say
from deepres.serving.export_detector import export_detector
from deepres.serving.forms import Form
from deepres.workflows.predict import pictures_under

SHAPES = ((3, 4), (4, 3), (1, 2))  # height by width of the random pictures for the check
MASKS = (
    "; masks float32 (k, S, S) of 0 to 1, each of its box; for the vote on masks candidates (R, 4), candidate_scores "
    "(R, 1 + K), background first, and candidate_masks (R, S, S)"
)
MOST = 8  # most pictures taken from a folder, evenly spaced


def deploy_detector(net: Detector, out: Path, form: Form, folder: Path | None, say: Say) -> Json:
    """Write `net` to `out` for other programs, check the file against `net`, and return facts about the file.

    The check is on pictures of the `folder`, else on random ones. Raises `InputError` as
    `serving.export_detector.export_detector`, for a network of other images than RGB, and for a folder without
    pictures.
    """
    if net.header["in_channels"] != 3:
        raise InputError(f"{net.name} takes images of {net.header['in_channels']} channels; files are for RGB")
    seen = _random_pictures(net) if folder is None else _pictures_of(folder, net, say)
    facts = _facts(net)
    found = export_detector(net, out, form, [one.permute(1, 2, 0)[None].contiguous() for one in seen], facts)
    return (
        facts
        | {
            "file": str(out),
            "format": form,
            "checked_on": f"{found.images} {'random' if folder is None else 'real'} pictures",
            "detections_checked": found.detections // 2,
            "same_detections": found.same,
            "largest_shift": found.shift,
            "largest_change": found.change,
        }
        | ({} if found.overlap is None else {"mask_overlap": found.overlap})
    )


def _facts(net: Detector) -> Json:
    """The metadata of the file."""
    plan, inside = net.plan, "inside: scaled to 0..1, less the mean color"
    masks = MASKS if isinstance(net, Cascade) else ""
    return {
        "network": net.name,
        "classes": list(net.header.get("classes") or map(str, range(net.num_classes))),
        "detector": {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(plan).items()},
        "precision": "fp32",
        "input": f"uint8 (1, H, W, 3), RGB, resized: shorter side {plan.side}, longer at most {plan.longest}; {inside}",
        "output": "boxes float32 (k, 4) of left, top, right, bottom in pixels of the resized picture; scores float32 "
        f"(k,), falling; labels int64 (k,), places among the classes{masks}; k may be 0",
    } | ({"category_ids": net.header["category_ids"]} if "category_ids" in net.header else {})


def _pictures_of(folder: Path, net: Detector, say: Say) -> list[Tensor]:
    """Pictures of a folder as the network sees them, uint8 (3, h, w)."""
    files, made = pictures_under(folder), list[Tensor]()
    for file in files[:: -(-len(files) // MOST)]:
        pixels = pixels_or_fault(Picture(str(file), 0, "test", file))
        if isinstance(pixels, str):
            say(f"left out {file}: {pixels}")
        else:
            made.append(fitted(with_channels(pixels, 3), net.plan.side, net.plan.longest))
    if not made:
        raise InputError(f"no picture in {folder} decodes; give another --calibrate")
    return made


def _random_pictures(net: Detector) -> list[Tensor]:
    """Random pictures as the network sees them, smooth with some grain like photographs, uint8 (3, h, w)."""
    generator, made = torch.Generator().manual_seed(0), list[Tensor]()
    for height, width in SHAPES:
        size = fitted_size((height * net.plan.side, width * net.plan.side), net.plan.side, net.plan.longest)
        fields = torch.rand(1, 3, 4 * height, 4 * width, generator=generator)
        smooth = F.interpolate(fields, size, mode="bicubic")[0].clamp(0, 1)
        grain = torch.randn(smooth.shape, generator=generator)
        made.append((255 * smooth + 8 * grain).clamp(0, 255).byte())
    return made
