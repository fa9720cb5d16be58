"""Localization as a kind of task: what the verbs that train need of it."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from deepres.data.boxes.index import BoxParts
from deepres.data.boxes.parts import NOTHING
from deepres.data.stream.loader import Reading
from deepres.detection.kind import agreed, is_place
from deepres.localization import begin as beginning
from deepres.localization.choose import chosen
from deepres.localization.proposed import rpn_of
from deepres.localization.recipe import AUTO, CHOSEN, RECIPES, LocalizationConfig
from deepres.localization.source import load_source, open_pictures
from deepres.localization.task import localization_task
from deepres.models.catalog import build, entry
from deepres.models.localization.localizer import Localizer
from deepres.models.localization.plan import LocalizerPlan
from deepres.models.network import Network
from deepres.models.registry import LOCALIZER
from deepres.runtime.errors import InputError, Say, silent
from deepres.runtime.ranks import Ranks
from deepres.training.freeze import freeze
from deepres.training.kind import OF_A_CLASSIFIER, Kind, RunTask, refuse
from deepres.training.recipe import Recipe
from deepres.training.settings import typed
from deepres.weights.start import Start, take

WORD = "localizer"  # in place of a network's name: the backbone is told by an option


def settle(settings: Mapping[str, Any], changes: Mapping[str, Any], recipe: str | None) -> dict[str, Any]:
    """The changes with the network, and the start weights if the option `backbone` names such; for a new run with the
    rate and length that suit the data.

    Raises `InputError` where neither a run nor an option names a backbone, and where nothing is to be tested on.
    """
    if changes.get("test_set") == NOTHING:
        raise InputError("a run is tested as it is trained; name pictures by --test-set, or leave it out")
    refuse(changes, OF_A_CLASSIFIER, "of a classifier; leave it out")
    settled = {name: value for name, value in changes.items() if name != "backbone"}
    if settled.get("network") == WORD:
        del settled["network"]
    # The backbone: a name of the catalog, or weights.
    backbone = changes.get("backbone")
    if backbone is not None:
        settled |= agreed(settled, _backbone(backbone))
    elif "network" not in settled and "network" not in settings:
        raise InputError("a localizer needs a backbone; give --backbone, for example resnet18, or trained weights")
    # Proposals come from a run, whose place is kept.
    if (run := settled.get("rpn")) is not None:
        rpn_of(str(run), Reading())
        settled["rpn"] = str(Path(str(run)).absolute())
    # What suits the data, unless a recipe is asked for or recorded.
    data = settled.get("data", settings.get("data"))
    if "recipe" in settings or recipe not in CHOSEN or data is None:
        return settled
    given = typed({name: value for name, value in settled.items() if value is not None}, LocalizationConfig)
    pictures = len(open_pictures(data, silent, settled.get("train_set"), settled.get("test_set")).train)
    return chosen(pictures, settled.get("start") is not None, given) | settled


def _backbone(backbone: str) -> dict[str, Any]:
    """The network, and the start weights, of the option `--backbone`."""
    if not is_place(backbone):
        entry(LOCALIZER + backbone)
        return {"network": LOCALIZER + backbone}
    name = take(Path(backbone), silent).net.name
    return {"network": LOCALIZER + name.removeprefix(LOCALIZER), "start": backbone}


def recipe_of(settings: Mapping[str, Any], name: str | None) -> Recipe:
    """The recipe that is named, or `auto`."""
    return RECIPES[name or AUTO.name]


def check(config: LocalizationConfig, source: BoxParts, ranks: Ranks, start: Start | None) -> None:
    """Raise `InputError` for a backbone that cannot be one, a plan that does not fit it, stages that are not there, or
    layers that no loss trains on several ranks, which would wait for their gradients.
    """
    net = structure(config, len(source.train.classes))
    net.features.large_enough(torch.empty(1, 3, config.crop, config.crop, device="meta"))
    frozen, idle = config.freeze or (), net.idle()
    if ranks.world > 1 and not {*idle} <= {*frozen}:
        raise InputError(
            f"an RPN leaves {' and '.join(idle)} untrained, which several ranks must freeze; "
            f"give --freeze {','.join([*frozen, *idle])}"
        )
    freeze(net, [*frozen, *idle])


def structure(config: LocalizationConfig, classes: int) -> Localizer:
    """The localizer without values."""
    with torch.device("meta"):
        return cast(Localizer, build(config.network, classes, localizer=asdict(config.plan)))


def begin(config: LocalizationConfig, task: RunTask[Any], start: Start | None, say: Say) -> Network:
    """The localizer with random weights, on a trained backbone, or trained."""
    return beginning.begin(config, task.classes, start, say)


def images(config: LocalizationConfig) -> str:
    """What a batch is of."""
    what = "crops" if config.rpn is None else "warped regions"
    told = [f"{config.crop} pixels a side"]
    if any(isinstance(module, nn.BatchNorm2d) for module in structure(config, 1).modules()):
        told.append(f"batch normalization {'fixed' if 'bn' in (config.freeze or ()) else 'trained'}")
    return f"{what} ({'; '.join(told)})"


def finetuned(start: Start, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The plan of the trained localizer, with which its weights fit; an R-CNN stage needs its run of proposals again.

    Raises `InputError` for such a stage without `rpn`.
    """
    plan = start.net.header["localizer"]
    if plan.get("stage") == "rcnn" and "rpn" not in changes:
        raise InputError("an R-CNN stage is trained on what an RPN proposes; name its run by --set rpn=RUN")
    own = {field.name for field in fields(LocalizerPlan)} - {"stage"}
    return {name: value for name, value in plan.items() if name in own}


LOCALIZATION: Kind[LocalizationConfig, BoxParts] = Kind(
    config=LocalizationConfig,
    recipes=RECIPES,
    recipe_of=recipe_of,
    load_source=load_source,
    check=check,
    make_task=localization_task,
    begin=begin,
    images=images,
    finetuned=finetuned,
    settle=settle,
)
