"""A trained detector as a file for other programs: ONNX, torch.export or OpenVINO, for one picture of any size."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.torch_version import TorchVersion

from deepres.models.detection.detector import Detector
from deepres.models.detection.outputs import Detections
from deepres.models.segmentation.cascade import Cascade
from deepres.models.segmentation.voting import Voters, voted
from deepres.runtime.errors import InputError
from deepres.runtime.masks import mask_overlaps
from deepres.serving.cascade_graph import CascadeGraph, voters_in
from deepres.serving.detector_graph import (
    BOXES,
    LABELS,
    SCORES,
    DetectorGraph,
    program_of,
    suppress_apart,
    suppress_by_group,
)
from deepres.serving.detector_onnx import exported_detector
from deepres.serving.export import require_writable
from deepres.serving.forms import FORMS, Content, Form
from deepres.serving.outputs import Runner
from deepres.serving.staging import staging
from deepres.weights.find import require_mean

NEAR = 0.1  # pixels, by which the edges of two boxes differ at most where they are called the same
ALIKE = 1e-3  # by which their scores differ at most
WHOLE_PROGRAMS = TorchVersion(
    "2.14"
)  # PyTorch from which on a program takes pictures of any size: that of 2.11 guards their parity
LEAST_OVERLAP = 0.95  # mean overlap (IoU) of the masks of such detections
LEAST_SAME = 0.95  # share of the detections that must be the same: where scores tie, rounding decides which are kept


@dataclass(frozen=True)
class DetectorAgreement:
    """How near a file is to its detector, over all pictures and their detections.

    `same` is the share (0 to 1) of the detections of both that the other one has, too. `shift` is the largest
    difference of an edge of these, in pixels of the picture that the network sees, and `change` that of a score.
    `overlap` is the mean overlap (IoU) of their masks, None where there are none.
    """

    images: int
    detections: int
    same: float
    shift: float
    change: float
    overlap: float | None = None


def agreement(found: Sequence[Detections], expected: Sequence[Detections]) -> DetectorAgreement:
    """How near the detections `found` in each picture are to those `expected` there."""
    paired, count, shift, change, overlaps = 0, 0, 0.0, 0.0, list[Tensor]()
    for one, other in zip(found, expected, strict=True):
        count += len(one) + len(other)
        if not len(one) or not len(other):
            continue
        # Of each pair of detections of one class, how far they are apart.
        edges = (one.boxes[:, None] - other.boxes[None]).abs().amax(2)
        scores = (one.scores[:, None] - other.scores[None]).abs()
        pairs = (one.labels[:, None] == other.labels[None]) & (edges <= NEAR) & (scores <= ALIKE)
        paired += int(pairs.any(1).sum()) + int(pairs.any(0).sum())
        # Of each that the other has, too, the nearest there.
        nearest = torch.where(pairs, edges, torch.inf).argmin(1)
        have = pairs.any(1).nonzero().flatten()
        shift = max(shift, *edges[have, nearest[have]].tolist(), 0.0)
        change = max(change, *scores[have, nearest[have]].tolist(), 0.0)
        if one.masks is not None and other.masks is not None:
            overlaps.append(mask_overlaps(one.masks, other.masks)[have, nearest[have]])
    overlap = float(torch.cat(overlaps).mean()) if any(map(len, overlaps)) else None
    return DetectorAgreement(len(found), count, paired / count if count else 1.0, shift, change, overlap)


def export_detector(
    net: Detector, out: Path, form: Form, pictures: Sequence[Tensor], facts: Mapping[str, Any]
) -> DetectorAgreement:
    """Write `net` to `out`, after checking what is read back on `pictures`, uint8 (1, H, W, 3) of any sizes.

    They are as the network sees them. A file in which every score is good enough is checked first, since a trained
    detector may find nothing in a picture; what is returned is how near that one is. `facts` (plain JSON) become the
    metadata. Raises `InputError` where a package is missing, the detections differ, nothing can be written, or a file
    of another origin lies where a part of the export goes; files that existed before are then kept.
    """
    require_writable(out, form, False)
    if form == "torch-export" and TorchVersion(torch.__version__) < WHOLE_PROGRAMS:
        raise InputError(
            f"PyTorch {torch.__version__} makes programs for pictures of some sizes alone; write {out.stem}.onnx, or "
            f"take PyTorch {WHOLE_PROGRAMS}"
        )
    net, mean = net.cpu().eval(), require_mean(net, net.name).cpu()
    try:
        with staging(out) as staged:
            checks: list[DetectorAgreement] = []
            for threshold in dict.fromkeys((0.0, net.plan.threshold)):
                tested = copy.copy(net)
                tested.plan = replace(net.plan, threshold=threshold)
                FORMS[form].write(_content(tested, mean, facts), staged)
                # Read back by its own runtime, and compared with the network as it was trained.
                run, _ = FORMS[form].read(staged, "cpu")
                found = [_detections(run, tested, picture) for picture in pictures]
                expected = [_expected(tested, mean, picture) for picture in pictures]
                checks.append(agreement(found, expected))
                _require(checks[-1], out)
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error}); give another --out") from None
    return checks[0]


def _content(net: Detector, mean: Tensor, facts: Mapping[str, Any]) -> Content:
    graph = CascadeGraph if isinstance(net, Cascade) else DetectorGraph
    return Content(
        facts,
        lambda: exported_detector(graph(net, mean, suppress_by_group)),
        lambda: program_of(graph(net, mean, suppress_apart)),
    )


def _detections(run: Runner, net: Detector, picture: Tensor) -> Detections:
    """What a file finds in a picture; of a cascade with the masks that its candidates vote on."""
    with torch.inference_mode():
        outputs = run(picture)
    found = Detections(outputs[BOXES], outputs[SCORES], outputs[LABELS])
    return _masked(found, voters_in(outputs, net.num_classes), net, picture) if isinstance(net, Cascade) else found


def _expected(net: Detector, mean: Tensor, picture: Tensor) -> Detections:
    """What the network finds in a picture."""
    image, size = picture[0].permute(2, 0, 1), picture.shape[1:3]
    if isinstance(net, Cascade):
        return _masked(*net.elected(image, size, mean), net, picture)
    return net.detect_fitted(image, size, mean)


def _masked(found: Detections, voters: Voters, net: Cascade, picture: Tensor) -> Detections:
    """Detections with their masks, and with the boxes from before the vote: those around masks are in whole pixels."""
    height, width = picture.shape[1:3]
    return replace(found, masks=voted(found, *voters, net.plan.voting, net.plan.binarised, (height, width)).masks)


def _require(found: DetectorAgreement, out: Path) -> None:
    if found.same < LEAST_SAME:
        raise InputError(
            f"only {found.same:.0%} of {found.detections:,} detections of the file and of the network are the same "
            f"({LEAST_SAME:.0%} are needed), so {out} was not kept; give another --format"
        )
    if found.overlap is not None and found.overlap < LEAST_OVERLAP:
        raise InputError(
            f"the masks of the file and of the network overlap by {found.overlap:.2f} ({LEAST_OVERLAP} is needed), so "
            f"{out} was not kept; give another --format"
        )
