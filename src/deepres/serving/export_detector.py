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
from deepres.runtime.errors import InputError
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
LEAST_SAME = 0.95  # share of the detections that must be the same: where scores tie, rounding decides which are kept


@dataclass(frozen=True)
class DetectorAgreement:
    """How near a file is to its detector, over all pictures and their detections.

    `same` is the share (0 to 1) of the detections of both that the other one has, too. `shift` is the largest
    difference of an edge of these, in pixels of the picture that the network sees, and `change` that of a score.
    """

    images: int
    detections: int
    same: float
    shift: float
    change: float


def agreement(found: Sequence[Detections], expected: Sequence[Detections]) -> DetectorAgreement:
    """How near the detections `found` in each picture are to those `expected` there."""
    paired, count, shift, change = 0, 0, 0.0, 0.0
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
    return DetectorAgreement(len(found), count, paired / count if count else 1.0, shift, change)


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
                found = [_detections(run, picture) for picture in pictures]
                expected = [tested.detect_fitted(_image(picture), picture.shape[1:3], mean) for picture in pictures]
                checks.append(agreement(found, expected))
                _require(checks[-1], out)
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error}); give another --out") from None
    return checks[0]


def _content(net: Detector, mean: Tensor, facts: Mapping[str, Any]) -> Content:
    return Content(
        facts,
        lambda: exported_detector(DetectorGraph(net, mean, suppress_by_group)),
        lambda: program_of(DetectorGraph(net, mean, suppress_apart)),
    )


def _image(picture: Tensor) -> Tensor:
    """A picture (1, H, W, 3) as an image (3, H, W)."""
    return picture[0].permute(2, 0, 1)


def _detections(run: Runner, picture: Tensor) -> Detections:
    with torch.inference_mode():
        outputs = run(picture)
    return Detections(outputs[BOXES], outputs[SCORES], outputs[LABELS])


def _require(found: DetectorAgreement, out: Path) -> None:
    if found.same < LEAST_SAME:
        raise InputError(
            f"only {found.same:.0%} of {found.detections:,} detections of the file and of the network are the same "
            f"({LEAST_SAME:.0%} are needed), so {out} was not kept; give another --format"
        )
