"""Detectors in files of `deepres export`, run as other programs run them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepres.models.detection.boxes import clip
from deepres.models.detection.images import fitted
from deepres.models.detection.outputs import Detections
from deepres.models.detection.plan import DetectorPlan
from deepres.models.network import Network
from deepres.models.registry import CASCADE
from deepres.models.segmentation.plan import CascadePlan
from deepres.models.segmentation.voting import voted
from deepres.runtime import untrusted
from deepres.runtime.errors import InputError, reason_of
from deepres.serving.cascade_graph import voters_in
from deepres.serving.detector_graph import BOXES, LABELS, SCORES
from deepres.serving.forms import ANEW, Facts
from deepres.serving.outputs import Outputs, Runner


class FileDetector(Network):
    """A detector in a file: images uint8 (3, H, W) to detections, computed by the file's runtime."""

    in_file = True
    run: Runner
    plan: DetectorPlan
    num_classes: int

    def forward(self, x: Tensor) -> Outputs:
        """A picture uint8 (1, H, W, 3), already resized, to `boxes`, `scores`, `labels`, and what masks are made of."""
        return self.run(x)

    @torch.no_grad()
    def detect(self, images: Sequence[Tensor]) -> list[Detections]:
        """The detections in images uint8 (3, H, W), in their pixels, as `Detector.detect` gives them."""
        seen = (fitted(image.cpu(), self.plan.side, self.plan.longest) for image in images)
        return [self.detect_fitted(own, one.shape[1:]) for own, one in zip(seen, images, strict=True)]

    def detect_fitted(self, seen: Tensor, size: Sequence[int]) -> Detections:
        """The detections in one image, in pixels of its own `size` (height, width).

        `seen` uint8 (3, h, w) is the image as the network sees it. Raises `InputError` where the file gives anything
        but detections, or its runtime fails.
        """
        plan = self.plan
        try:
            outputs = self(seen.permute(1, 2, 0)[None].contiguous())
            found = Detections(outputs[BOXES], outputs[SCORES], outputs[LABELS].long())
            voters = voters_in(outputs, self.num_classes) if isinstance(plan, CascadePlan) else None
        except Exception as error:  # each runtime raises errors of its own
            raise InputError(f"{self.name} in a file gives no detections ({reason_of(error)}); {ANEW}") from None
        shapes = tuple(tuple(value.shape) for value in (found.boxes, found.scores, found.labels))
        if shapes != ((len(found), 4), (len(found),), (len(found),)):
            raise InputError(f"{self.name} in a file gives boxes, scores and labels of shapes {shapes}; {ANEW}")
        if not ((found.labels >= 0) & (found.labels < self.num_classes)).all():
            raise InputError(f"{self.name} in a file names {self.num_classes} classes, and finds others; {ANEW}")
        scale = torch.tensor([size[1] / seen.shape[2], size[0] / seen.shape[1]]).repeat(2)
        own = (size[0], size[1])
        found = Detections(clip(found.boxes * scale, own), found.scores, found.labels)
        if voters is None or not isinstance(plan, CascadePlan):
            return found
        return voted(found, *voters._replace(boxes=clip(voters.boxes * scale, own)), plan.voting, plan.binarised, own)


def file_detector(file: Path, run: Runner, facts: Facts) -> FileDetector:
    """The detector that `run` computes, with the metadata `facts` of its file.

    It sees one blank picture. Raises `InputError` where the plan is none, or the outputs are not those of a detector.
    """
    plan = plan_of(facts["detector"], file, CascadePlan if facts["network"].startswith(CASCADE) else DetectorPlan)
    net = FileDetector()
    net.name, net.run, net.plan, net.num_classes = facts["network"], run, plan, len(facts["classes"])
    net.header = {"network": net.name, "num_classes": net.num_classes, "in_channels": 3}
    net.header |= {name: facts[name] for name in ("classes", "detector", "precision")} | {"device": "cpu"}
    if "category_ids" in facts:
        net.header["category_ids"] = facts["category_ids"]
    net.mean = torch.zeros(3, 1, 1)  # the file subtracts its own
    net.detect_fitted(torch.zeros(3, 64, 96, dtype=torch.uint8), (64, 96))
    return net


def plan_of(value: Any, file: Path, kind: type[DetectorPlan] = DetectorPlan) -> DetectorPlan:
    """The plan in the metadata of a file. Raises `InputError` where it is none."""
    try:
        return untrusted.convert(value, kind, f"{file}, detector", ANEW)
    except TypeError as error:  # types are not checked without `msgspec`, and the plan compares numbers
        raise InputError(f"{file}, detector: {error}; {ANEW}") from None
