"""Instance segmentation as a kind of task: that of detectors, on data with masks."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from deepres.data.boxes.index import BoxParts
from deepres.detection import kind as detection
from deepres.detection.cascade.recipe import AUTO, RECIPES, CascadeConfig
from deepres.detection.cascade.task import cascade_task
from deepres.detection.source import load_source
from deepres.models.registry import CASCADE
from deepres.training.kind import Kind
from deepres.training.recipe import Recipe

REGION_SIZE = 7  # positions a side of the regions that the recipe `auto` chooses: maxima of 2x2 of those of masks
FORM = detection.Form("segmenter", CASCADE, CascadeConfig, masks=True)


def settle(settings: Mapping[str, Any], changes: Mapping[str, Any], recipe: str | None) -> dict[str, Any]:
    """As that of detectors, with regions of another size where it chooses one."""
    settled = detection.settle(settings, changes, recipe, FORM)
    if "region_size" not in changes and settled.get("region_size"):
        settled["region_size"] = REGION_SIZE
    return settled


def recipe_of(settings: Mapping[str, Any], name: str | None) -> Recipe:
    """The recipe that is named, or `auto`."""
    return RECIPES[name or AUTO.name]


SEGMENTATION: Kind[CascadeConfig, BoxParts] = Kind(
    config=CascadeConfig,
    recipes=RECIPES,
    recipe_of=recipe_of,
    load_source=partial(load_source, masks=True),
    check=detection.check,
    make_task=cascade_task,
    begin=detection.begin,
    images=detection.images,
    finetuned=partial(detection.finetuned, form=FORM),
    settle=settle,
)
