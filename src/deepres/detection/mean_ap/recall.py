"""How many objects the proposals of a region proposal network cover."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from deepres.data.boxes.truth import Truth
from deepres.detection.mean_ap.matching import overlaps_of

MOST = (50, 100, 300, 1000)  # proposals a picture


@dataclass(frozen=True)
class ProposalRecall:
    """Recall with at most `most` proposals a picture, from 0 to 1; None where there is no object to count.

    `recall` is that at IoU 0.5, `average` the mean over the IoU 0.5, 0.55, ..., 0.95.
    """

    most: int
    recall: float | None
    average: float | None


def proposal_recall(
    truths: Sequence[Truth], proposals: Sequence[Tensor], most: Sequence[int] = MOST
) -> tuple[ProposalRecall, ...]:
    """The share of the objects that a proposal covers, with each number of proposals a picture.

    `proposals[i]` float (k, 4) are the boxes of the picture of `truths[i]`, by falling score. Classes do not matter. A
    proposal covers one object: pairs are made by falling IoU. Difficult objects and crowd regions are left out.
    Raises `ValueError` where `truths` and `proposals` differ in length.
    """
    levels = torch.arange(50, 100, 5, dtype=torch.float64) / 100
    overlaps: list[list[Tensor]] = [[] for _ in most]
    for truth, boxes in zip(truths, proposals, strict=True):
        pairs = overlaps_of(boxes, truth.boxes[~(truth.difficult | truth.crowd)])
        for own, limit in zip(overlaps, most, strict=True):
            own.append(covered(pairs[:limit]))
    every = [torch.cat([torch.empty(0, dtype=torch.float64), *own]) for own in overlaps]
    shares = [(own[:, None] >= levels).double().mean(0).tolist() if len(own) else None for own in every]
    return tuple(
        ProposalRecall(limit, *((own[0], sum(own) / len(own)) if own else (None, None)))
        for limit, own in zip(most, shares, strict=True)
    )


def covered(overlaps: Tensor) -> Tensor:
    """The IoU at which each of n objects is covered, float64 (n,); `overlaps` (k, n) are those of each proposal.

    The pair with the largest IoU is taken first, then that of what is left; 0 for an object without a proposal.
    """
    if not len(overlaps):
        return overlaps.new_zeros(overlaps.shape[1])
    best, places = overlaps.max(0)
    if len(places.unique()) == len(places):
        return best  # no two objects want the same proposal
    left, covers = overlaps.clone(), torch.zeros_like(best)
    for _ in range(min(left.shape)):
        proposal, taken = divmod(int(left.argmax()), left.shape[1])
        covers[taken] = left[proposal, taken]
        left[proposal], left[:, taken] = -1, -1
    return covers
