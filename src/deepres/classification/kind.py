"""Classification as a kind of task: what the verbs that train need of it."""

from collections.abc import Mapping
from typing import Any

from deepres.classification.batch import require_statistics
from deepres.classification.recipe import IMAGENET, RECIPES, ClassificationConfig, paper_recipe, rate_for
from deepres.classification.source import Source, load_source
from deepres.classification.task import classification_task
from deepres.classification.views import CROP
from deepres.models.catalog import build, depth, entry, family
from deepres.models.network import Network
from deepres.runtime.errors import InputError, Say
from deepres.training.kind import Kind, RunTask, refuse
from deepres.training.recipe import Recipe
from deepres.weights.start import Start

OF_A_DETECTOR = ("backbone", "train_set", "test_set")  # options of `deepres train`


def recipe_of(settings: Mapping[str, Any], name: str | None) -> Recipe:
    """The recipe that is named, or the paper's for the network; see `rate_for`."""
    network = settings["network"]
    cropped = not settings.get("image_size") and family(network) == "imagenet"  # one size for all leaves no crops
    return rate_for(network, RECIPES[name] if name else paper_recipe(depth(network), cropped))


def begin(config: ClassificationConfig, task: RunTask[Any], start: Start | None, say: Say) -> Network:
    """The network with random weights, or with trained ones and a head for these classes."""
    if start is not None:
        return start.begin(task.classes, task.channels, say)
    return build(config.network, len(task.classes), task.channels)


def images(config: ClassificationConfig) -> str:
    """What a batch is of."""
    return f"crops of {config.recipe.crop} pixels" if config.recipe.crop else "whole images"


def finetuned(start: Start, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Which images trained weights are trained further on.

    Networks that were trained on crops of pictures (Sec. 3.4) are trained on crops of the same size, with the paper's
    scale augmentation in proportion and its colour augmentation. Other networks, and all where `changes` have an
    `image_size`, are trained on whole images.
    """
    from deepres.classification.scorer import crop_of, is_cropped  # loads what only a test needs

    if "image_size" in changes or not is_cropped(start.net):
        return {"in_channels": start.net.header["in_channels"]}
    crop = crop_of(start.net)
    sides = tuple(round(side * crop / CROP) for side in IMAGENET.sides)
    return {"crop": crop, "sides": sides, "colour": IMAGENET.colour}


def settle(settings: Mapping[str, Any], changes: Mapping[str, Any], recipe: str | None) -> Mapping[str, Any]:
    """The changes as they are. Raises `InputError` for options of a detector."""
    refuse(changes, OF_A_DETECTOR, "of a detector; give `detector` in place of the network's name, or leave it out")
    return changes


def require_optimizer(config: ClassificationConfig) -> None:
    """Raise `InputError` for Muon where it would keep lengths that the network is to learn."""
    if config.recipe.optimizer == "muon" and entry(config.network).learns_lengths:
        raise InputError(
            f"muon keeps the lengths of kernels, which {config.network} learns where it has no batch normalization; "
            "give --set optimizer=sgd, or another recipe than fast"
        )


CLASSIFICATION: Kind[ClassificationConfig, Source] = Kind(
    config=ClassificationConfig,
    recipes=RECIPES,
    recipe_of=recipe_of,
    load_source=load_source,
    check=require_statistics,
    make_task=classification_task,
    begin=begin,
    images=images,
    finetuned=finetuned,
    settle=settle,
    class_folders=True,
    require=require_optimizer,
)
