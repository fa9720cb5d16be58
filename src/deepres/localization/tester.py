"""Localizers on pictures: the boxes of given classes, by an RPN and, where there is one, an R-CNN stage."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import box_iou

from deepres.classification.views import fitted
from deepres.data.augment import normalise
from deepres.localization.crops import warped
from deepres.localization.loss import units_of
from deepres.localization.protocol import Protocol
from deepres.localization.views import views_of
from deepres.models.detection.boxes import clip, decode
from deepres.models.detection.suppression import suppress
from deepres.models.localization.localizer import Localizer, LocalizerOutputs
from deepres.runtime.errors import InputError

AT_ONCE = 64  # regions that go through an R-CNN stage together


class Located(NamedTuple):
    """The boxes (k, 4) of k classes in one picture, in its pixels, and their scores (k,) from 0 to 1."""

    boxes: Tensor
    scores: Tensor


@dataclass(frozen=True)
class Localizers:
    """RPNs, and R-CNN stages that look at what these propose; several of a kind are an ensemble.

    All are in evaluation mode, on one device, and have a mean. Raises `InputError` where no RPN is among them.
    """

    rpns: Sequence[Localizer]
    stages: Sequence[Localizer] = ()

    @classmethod
    def of(cls, nets: Sequence[Localizer]) -> "Localizers":
        """The networks by their stage."""
        rpns, stages = ([net for net in nets if net.plan.stage == own] for own in ("rpn", "rcnn"))
        if not rpns:
            raise InputError("an R-CNN stage looks at what an RPN proposes; give the run of its RPN before it")
        return cls(rpns, stages)

    @torch.no_grad()
    def locate(self, image: Tensor, classes: Tensor, protocol: Protocol) -> Located:
        """The box of each of the `classes`, int64 (k,), in a picture uint8 (3, H, W); on the processor."""
        boxes, scores = candidates(self.rpns, image, classes, protocol)
        found = [best(own, each, protocol.voting) for own, each in zip(boxes, scores, strict=True)]
        if self.stages:
            regions = [proposals(own, each, protocol)[0] for own, each in zip(boxes, scores, strict=True)]
            found = [
                best(*rescored(self.stages, image, own, int(label)), protocol.voting)
                for own, label in zip(regions, classes, strict=True)
            ]
        return Located(torch.stack([box for box, _ in found]), torch.stack([score for _, score in found]))


@torch.no_grad()
def candidates(nets: Sequence[Localizer], image: Tensor, classes: Tensor, protocol: Protocol) -> tuple[Tensor, Tensor]:
    """All boxes (k, n, 4) of the `classes`, int64 (k,), in a picture uint8 (3, H, W), and their scores (k, n).

    Boxes of all views and networks stand side by side, in pixels of the picture, on the processor.
    """
    boxes, scores = list[Tensor](), list[Tensor]()
    for net in nets:
        for view in views_of(image, protocol.views, net.plan.crop):
            found = net(prepared(net, view.image[None]), classes[None].to(_device(net)))
            places, chances = _decoded(found, net)
            boxes.append(view.in_picture(places[0].cpu()))
            scores.append(chances[0].cpu())
    return torch.cat(boxes, 1), torch.cat(scores, 1)


def proposals(boxes: Tensor, scores: Tensor, protocol: Protocol) -> tuple[Tensor, Tensor]:
    """The best boxes (k, 4) of one class, out of (n, 4), after non-maximum suppression, and their scores (k,)."""
    sides = boxes[:, 2:] - boxes[:, :2]
    kept = (sides >= 1).all(1).nonzero().flatten()
    kept = kept if len(kept) else scores.argmax()[None]
    first = kept[scores[kept].topk(min(protocol.before, len(kept))).indices]
    chosen = first[suppress(boxes[first], scores[first], protocol.nms, protocol.proposals)]
    return boxes[chosen], scores[chosen]


@torch.no_grad()
def rescored(nets: Sequence[Localizer], image: Tensor, regions: Tensor, label: int) -> tuple[Tensor, Tensor]:
    """New boxes (R, 4) and scores (R,) of the regions (R, 4) of a class: each is warped and looked at by R-CNN stages.

    Several stages are averaged, their scores and their deltas.
    """
    picture = Image.fromarray(image.movedim(0, -1).numpy())
    total_scores, total_deltas = torch.zeros(len(regions)), torch.zeros(len(regions), 4)
    for net in nets:
        units = regions.new_tensor(units_of("rcnn"))
        for part in torch.arange(len(regions)).split(AT_ONCE):
            views = torch.stack([warped(picture, region, net.plan.crop) for region in regions[part]])
            asked = torch.full((len(part), 1), label, device=_device(net))
            found = net(prepared(net, views), asked)
            total_scores[part] += found.logits[:, 0, 0].sigmoid().cpu() / len(nets)
            total_deltas[part] += found.deltas[:, 0, 0].cpu() * units / len(nets)
    size = (image.shape[1], image.shape[2])
    return clip(decode(total_deltas, regions), size), total_scores


def best(boxes: Tensor, scores: Tensor, voting: float) -> tuple[Tensor, Tensor]:
    """The box (4,) with the highest score out of (n, 4), and its score; averaged with its neighbours by `voting`."""
    place = scores.argmax()
    if not voting:
        return boxes[place], scores[place]
    shares = torch.where(box_iou(boxes[place][None], boxes)[0] >= voting, scores, 0)
    shares[place] = scores[place].clamp(min=torch.finfo(scores.dtype).tiny)
    return (boxes * shares[:, None]).sum(0) / shares.sum(), scores[place]


def prepared(net: Localizer, views: Tensor) -> Tensor:
    """Views uint8 (N, 3, h, w) as the network takes them, on its device, less its mean."""
    if net.mean is None:
        raise InputError(f"{net.name} has no mean, which images lack; set `mean` to that of the training images")
    device = _device(net)
    images = views.to(device).contiguous(memory_format=torch.channels_last)
    return normalise(images, fitted(net.mean, views.shape[-2], views.shape[-1]).to(device))


def _decoded(found: LocalizerOutputs, net: Localizer) -> tuple[Tensor, Tensor]:
    """Boxes (N, k, P, 4) in pixels of the views, and scores (N, k, P)."""
    units = found.deltas.new_tensor(units_of(net.plan.stage))
    shape = found.deltas.shape
    deltas = (found.deltas * units).flatten(0, 1).transpose(0, 1)
    return decode(deltas, found.anchors).transpose(0, 1).reshape(shape), found.logits.sigmoid()


def _device(net: Localizer) -> torch.device:
    return next(net.parameters()).device
