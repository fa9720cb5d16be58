"""Instance segmentation as a task of the training loop: the losses of both passes, mean average precision of masks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from deepres.data.boxes.index import BoxParts
from deepres.detection.cascade.loss import FIGURES, cascade_losses
from deepres.detection.cascade.recipe import PLAN, CascadeConfig, CascadeRecipe
from deepres.detection.cascade.true_masks import TrueMasks
from deepres.detection.form import fast_form
from deepres.detection.mask_figures import region_maps
from deepres.detection.mean_ap.coco import coco_map
from deepres.detection.scenes import Scene
from deepres.detection.task import DetectionTask, Found, detection_task, scores_of
from deepres.models.segmentation.cascade import Cascade
from deepres.models.segmentation.plan import CascadePlan
from deepres.runtime.errors import Say
from deepres.runtime.ranks import Ranks

MEANS = ("mask_map50", "mask_map70", "mask_map")  # mAP^r at the IoU 0.5 and 0.7, and COCO's


@dataclass(frozen=True)
class CascadeTask(DetectionTask):
    """The training batches and the test of a run of instance segmentation, and facts about its pictures."""

    figures: tuple[str, ...] = FIGURES
    plan: CascadePlan = PLAN
    crowded: int = 0  # the most objects that a training picture has

    @property
    def watched(self) -> str | None:
        """The figure of the test that a plateau is seen by."""
        return "mask_map50"

    def rehearse(self, net: nn.Module, images: Tensor) -> Tensor:
        """All outputs, side by side, of as many regions as are sampled in an image at most."""
        height, width = images.shape[2:]

        def whole(count: int) -> list[Tensor]:
            return [images.new_tensor([[0, 0, width, height]]).repeat(count, 1)] * len(images)

        def choose(logits: Tensor, deltas: Tensor, anchors: Tensor) -> list[Tensor]:
            return whole(self.recipe.regions)

        def proceed(boxes: list[Tensor]) -> list[Tensor]:
            return [torch.cat(pair) for pair in zip(boxes, whole(self.crowded), strict=True)]

        found = net(images, None, choose, proceed)
        passes = [part for one in found.passes for part in (one.masks, one.mask_logits, *one.found)]
        return torch.cat([output.flatten().float() for output in (found.objectness, found.anchor_deltas, *passes)])

    def loss(self, net: nn.Module, part: list[Scene]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The sum of all losses, and each of them."""
        objects = [scene.objects.to(self.device) for scene in part]
        sizes = [(scene.image.shape[1], scene.image.shape[2]) for scene in part]
        masks = [TrueMasks.of(own, size) for own, size in zip(objects, sizes, strict=True)]
        recipe = cast(CascadeRecipe, self.recipe)
        losses = cascade_losses(net, self.plan, self.images(part), sizes, objects, masks, recipe)
        return torch.stack([*losses.values()]).sum(), losses

    def evaluate(self, net: nn.Module, last: bool) -> Mapping[str, float]:
        """Mean average precision of the masks (`mask_scores_of`) and of the boxes around them (`map50`, `map`)."""
        found = self.test.detections(fast_form(cast(Cascade, net)), last, self.ranks)
        return mask_scores_of(found, self.classes) | scores_of(found, self.classes)


def mask_scores_of(found: Found, classes: Sequence[str]) -> dict[str, float]:
    """mAP^r at the IoU 0.5 and 0.7, and COCO's mask mAP, in percent; 0 where none counts."""
    truths, detected = [truth for truth, _ in found], [own for _, own in found]
    means = [one.map for one in region_maps(truths, detected, classes)]
    means.append(coco_map(truths, detected, classes, by="masks").map)
    return {name: 100 * (own or 0.0) for name, own in zip(MEANS, means, strict=True)}


def cascade_task(
    config: CascadeConfig, source: BoxParts, ranks: Ranks, say: Say, start_mean: Tensor | None = None
) -> CascadeTask:
    """The task of a configuration, as that of a detector; `source` has masks."""
    made = detection_task(config, source, ranks, say, start_mean)
    ends = source.train.ends
    counts = ends.diff(prepend=ends.new_zeros(1))
    known: dict[str, Any] = vars(made) | {"figures": FIGURES, "plan": config.plan, "crowded": int(counts.max())}
    return CascadeTask(**known)
