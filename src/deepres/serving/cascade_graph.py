"""A detector with masks as one graph: its detections, and the candidates that vote on their masks."""

from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from deepres.models.detection.detector import located
from deepres.models.segmentation.cascade import Cascade
from deepres.models.segmentation.plan import CascadePlan
from deepres.models.segmentation.voting import Voters
from deepres.serving.detector_graph import BOXES, LABELS, SCORES, DetectorGraph, numbers
from deepres.serving.outputs import Outputs

MASKS = "masks"
VOTERS = ("candidates", "candidate_scores", "candidate_masks")  # as the fields of `Voters`


class CascadeGraph(DetectorGraph):
    """A cascade as a `DetectorGraph`, with further outputs.

    `masks` float32 (k, S, S), in 0..1, are those of the detections, each of its box, before the vote. For the vote,
    `candidates` (R, 4), `candidate_scores` (R, 1 + K), the background first, and `candidate_masks` (R, S, S) are the
    regions of both passes.
    """

    outputs = (BOXES, SCORES, LABELS, MASKS, *VOTERS)

    def forward(self, images: Tensor) -> Outputs:
        """The detections in a picture and the candidates, by name."""
        net, plan, size = cast(Cascade, self.net), cast(CascadePlan, self.plan), (images.shape[1], images.shape[2])
        shared = self.shared(images)
        regions, passes = self.regions(shared, size), list[Voters]()
        for _ in range(plan.stages // 2):
            cut = self._warped(shared, regions)
            masks = net.mask(cut)
            features = net.joined(cut, masks)
            logits, (_, deltas) = net.mask_score(features), net.siblings(features)
            passes.append(Voters(regions[1:], logits[1:].softmax(1), masks[1:].sigmoid()))
            # The next pass begins with the boxes of the likeliest class of each mask.
            labels = logits[:, 1:].argmax(1)[:, None, None].expand(-1, 1, 4)
            regions = located(deltas.gather(1, labels), regions, size)[:, 0]
        boxes, scores, masks = (torch.cat(own) for own in zip(*passes, strict=True))
        found, places = self.best(scores[:, 1:], boxes[:, None].expand(-1, scores.shape[1] - 1, -1))
        return {**found, MASKS: masks[places], **dict(zip(VOTERS, (boxes, scores, masks), strict=True))}

    def _warped(self, shared: Tensor, regions: Tensor) -> Tensor:
        """The regions (R, 4) of the shared map (1, C, h, w), as `models.segmentation.warping` has them.

        Of each 2x2 samples, whose maximum is kept, one at a time is taken of all regions: a quarter of the memory.
        """
        size, stride = cast(CascadePlan, self.plan).warped, self.net.stride
        shares = (torch.arange(size, dtype=regions.dtype) + 0.5) / size
        low, high = regions[:, None, :2], regions[:, None, 2:]
        points = low + (high - low) * shares[None, :, None]  # (R, size, 2): x of the columns, y of the rows
        points = points * (2 / stride / numbers(shared, shared.shape[3], shared.shape[2])) - 1
        maxima: Tensor | None = None
        for row in range(2):
            for column in range(2):
                x = points[:, None, column::2, 0].expand(-1, size // 2, -1)
                y = points[:, row::2, None, 1].expand(-1, -1, size // 2)
                grid = torch.stack([x, y], -1).reshape(1, -1, size // 2, 2)
                samples = F.grid_sample(shared, grid, mode="bilinear", padding_mode="border", align_corners=False)
                maxima = samples if maxima is None else maxima.maximum(samples)
        assert maxima is not None
        return maxima[0].unflatten(1, (-1, size // 2)).transpose(0, 1)


def voters_in(outputs: Outputs, classes: int) -> Voters:
    """The candidates that a file gives. Raises `ValueError` where they are none, `KeyError` where some are missing."""
    voters = Voters(*(outputs[name] for name in VOTERS))
    count, side = len(voters.boxes), voters.masks.shape[-1]
    shapes = [tuple(one.shape) for one in voters]
    if shapes != [(count, 4), (count, 1 + classes), (count, side, side)]:
        raise ValueError(f"candidates of shapes {shapes}")
    if not all(one.isfinite().all() for one in voters):
        raise ValueError("candidates that are not finite")
    return voters
