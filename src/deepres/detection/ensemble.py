"""Several detectors as one: the union of their proposals, the mean of what they say of each region (Appendix B)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from deepres.data.classes import classes_of, columns
from deepres.detection.protocol import Protocol
from deepres.models.detection.detector import Detector, RegionOutputs
from deepres.models.detection.plan import DetectorPlan
from deepres.models.segmentation.cascade import Cascade
from deepres.runtime.errors import InputError, Say, silent
from deepres.weights.find import require_mean


@dataclass(frozen=True, eq=False)
class Member:
    """A detector of an ensemble: its plan in this test, its mean (C, 1, 1), and the place in its scores of each class.

    The classes are those of the first member, in its order.
    """

    net: Detector
    plan: DetectorPlan
    mean: Tensor
    columns: Tensor


def members_of(
    nets: Sequence[Detector], protocol: Protocol, say: Say = silent, by_place: bool = False
) -> tuple[Member, ...]:
    """The networks as members of one test; one alone is an ensemble, too.

    Classes are matched by name, or with `by_place` by place, as `data.classes` does it. Raises `InputError` for none,
    for networks of other classes or channels, and for one without a mean.
    """
    if not nets:
        raise InputError("there is no detector to test; give one or several")
    if any(isinstance(net, Cascade) for net in nets) and not protocol.gives_masks(len(nets)):
        say("boxes alone: a network has masks where it is tested alone, at one scale, without refinement and voting")
    several = [f"{net.name} (network {number} of {len(nets)})" for number, net in enumerate(nets, 1)]
    names = several if len(nets) > 1 else [nets[0].name]
    classes = [
        classes_of(name, net.header.get("classes"), net.num_classes) for name, net in zip(names, nets, strict=True)
    ]
    members: list[Member] = []
    first = nets[0].header["in_channels"]
    for net, own in zip(nets, classes, strict=True):
        if net.header["in_channels"] != first:
            raise InputError(
                f"{own.whose} takes images of {net.header['in_channels']} channels, and {classes[0].whose} of {first}; "
                "give detectors of the same images"
            )
        device = next(net.parameters()).device
        places = torch.tensor(columns(own, classes[0], by_place, say), device=device)
        members.append(Member(net, protocol.plan(net.plan), require_mean(net, own.whose).to(device), places))
    return tuple(members)


def union(proposals: Sequence[Tensor]) -> Tensor:
    """The proposals (k_i, 4) of all members, in their order, as a set: of equal boxes the first is kept."""
    boxes = torch.cat(list(proposals))
    if len(proposals) == 1:
        return boxes
    _, which = boxes.unique(dim=0, return_inverse=True)
    places = torch.arange(len(boxes), device=boxes.device)
    first = torch.full_like(places, len(boxes)).scatter_reduce(0, which, places, "amin")
    return boxes[first[which] == places]


def averaged(members: Sequence[Member], outputs: Sequence[RegionOutputs]) -> tuple[Tensor, Tensor]:
    """The mean probabilities (R, 1 + K) and mean deltas (R, K, 4) of what each member gives for the same R regions."""
    scores: list[Tensor] = []
    deltas: list[Tensor] = []
    for member, found in zip(members, outputs, strict=True):
        probabilities = found.logits.float().softmax(1)
        scores.append(torch.cat([probabilities[:, :1], probabilities[:, 1 + member.columns]], 1))
        deltas.append(found.deltas.float()[:, member.columns])
    return _mean(scores), _mean(deltas)


def _mean(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack([part.double() for part in parts]).mean(0).float()
