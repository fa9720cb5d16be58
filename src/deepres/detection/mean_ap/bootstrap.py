"""How far VOC's mean average precision would move with other test pictures of the same kind."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from deepres.data.boxes.truth import Truth
from deepres.detection.mean_ap.masked import By
from deepres.detection.mean_ap.voc import Judged, Rule, judge
from deepres.models.detection.outputs import Detections

RESAMPLES, SEED = 1000, 0  # of the interval, and the seed of its generator
ENDS = (0.025, 0.975)


def map_interval(
    truths: Sequence[Truth],
    found: Sequence[Detections],
    classes: Sequence[str],
    iou: float = 0.5,
    rule: Rule = "area",
    resamples: int = RESAMPLES,
    seed: int = SEED,
    by: By = "boxes",
) -> tuple[float, float] | None:
    """The bootstrap 95 % interval of `voc_map(...).map`, from 0 to 1; always the same for the same values.

    Each resampling draws as many pictures as there are, with replacement. Its mean is over the classes of which it has
    a counted object. None where there is no counted object at all.
    """
    maps = resampled_maps(judge(truths, found, len(classes), iou, by), _draws(len(truths), resamples, seed), rule)
    maps = maps[~maps.isnan()]
    if not len(maps):
        return None
    low, high = maps.quantile(torch.tensor(ENDS, dtype=torch.float64)).tolist()
    return low, high


def resampled_maps(judged: Judged, draws: Tensor, rule: Rule = "area") -> Tensor:
    """The mean average precision of each of R resamplings, float64 (R,); nan where one has no counted object.

    `draws` float32 (pictures, R) says how often each resampling has each picture. A picture that is drawn twice has its
    detections twice, one behind the other.
    """
    every = [_class_precision(judged, label, draws, rule) for label in range(judged.objects.shape[1])]
    return torch.stack(every).nanmean(0) if every else torch.full((draws.shape[1],), torch.nan, dtype=torch.float64)


def _draws(pictures: int, resamples: int, seed: int) -> Tensor:
    """How often each picture is drawn in each resampling, float32 (pictures, resamples)."""
    counts = torch.zeros(pictures, resamples)
    if pictures:
        drawn = torch.randint(pictures, (pictures, resamples), generator=torch.Generator().manual_seed(seed))
        counts.scatter_add_(0, drawn, torch.ones_like(counts))
    return counts


def _class_precision(judged: Judged, label: int, draws: Tensor, rule: Rule) -> Tensor:
    """The average precision of one class in each resampling, float64 (R,); nan where it has no counted object.

    The curve is followed from hit to hit: the misses in between change neither the recall nor the largest precision.
    """
    own = judged.labels == label
    hits, pictures = judged.hits[own], judged.pictures[own]
    objects, ends = judged.objects[:, label].float() @ draws, hits.nonzero().flatten()
    if not len(ends):
        return torch.where(objects > 0, 0.0, torch.nan).double()
    # How many hits, and how many detections, each resampling has up to each hit and with it.
    new = draws[pictures[ends]]
    found = new.cumsum(0)
    begins = torch.cat((ends.new_zeros(1), ends[:-1] + 1))
    seen = embedding_bag(pictures[: ends[-1] + 1], draws, begins, mode="sum").cumsum(0)
    # Precision that falls: at each recall the largest one at that recall or a higher one.
    falling = (found / seen).nan_to_num(0).flip(0).cummax(0).values.flip(0)
    if rule == "area":
        return (new * falling).double().sum(0) / objects
    precisions = [torch.where(10 * found >= level * objects, falling, 0).amax(0) for level in range(11)]
    return torch.where(objects > 0, torch.stack(precisions).double().mean(0), torch.nan)
