"""Detection as a kind of task: what the verbs that train need of it."""

import dataclasses
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from deepres.data.boxes.index import BoxParts
from deepres.data.boxes.opening import open_boxes
from deepres.data.boxes.parts import NOTHING
from deepres.detection import begin as beginning
from deepres.detection.choose import chosen
from deepres.detection.recipe import AUTO, CHOSEN, RECIPES, DetectionConfig, DetectionRecipe
from deepres.detection.scenes import Augmentation
from deepres.detection.source import load_source, require_boxes
from deepres.detection.task import detection_task
from deepres.models.catalog import build, entry
from deepres.models.detection.anchors import BASE
from deepres.models.detection.detector import Detector
from deepres.models.detection.images import fitted_size
from deepres.models.network import Network
from deepres.models.registry import DETECTOR, backbone_of
from deepres.runtime.errors import InputError, Say, silent
from deepres.runtime.ranks import Ranks
from deepres.training.freeze import freeze
from deepres.training.kind import OF_A_CLASSIFIER, Kind, RunTask, refuse
from deepres.training.recipe import Recipe
from deepres.training.settings import typed
from deepres.weights.start import Start, take


@dataclass(frozen=True)
class Form:
    """What detectors of one form are called, and their configurations."""

    word: str  # in place of a network's name: the backbone is told by an option
    prefix: str  # of the networks' names
    config: type[DetectionConfig]
    masks: bool = False  # whether the data must have masks


BOXES = Form("detector", DETECTOR, DetectionConfig)


def settle(
    settings: Mapping[str, Any], changes: Mapping[str, Any], recipe: str | None, form: Form = BOXES
) -> dict[str, Any]:
    """The changes with the network, and the start weights if the option `backbone` names such; for a new run with the
    image size, rate and length that suit the data.

    Raises `InputError` where neither a run nor an option names a backbone, and where nothing is to be tested on.
    """
    if changes.get("test_set") == NOTHING:
        raise InputError("a run is tested as it is trained; name pictures by --test-set, or leave it out")
    refuse(changes, OF_A_CLASSIFIER, "of a classifier; leave it out")
    settled = {name: value for name, value in changes.items() if name != "backbone"}
    if settled.get("network") == form.word:
        del settled["network"]
    # The backbone: a name of the catalog, or weights.
    backbone = changes.get("backbone")
    if backbone is not None:
        settled |= agreed(settled, _backbone(backbone, form.prefix))
    elif "network" not in settled and "network" not in settings:
        raise InputError(f"a {form.word} needs a backbone; give --backbone, for example resnet18, or trained weights")
    # What suits the data, unless a recipe is asked for or recorded.
    data = settled.get("data", settings.get("data"))
    if "recipe" in settings or recipe not in CHOSEN or data is None:
        return settled
    given = typed({name: value for name, value in settled.items() if value is not None}, form.config)
    index = open_boxes(data, silent, settled.get("train_set"), settled.get("test_set"), masks=form.masks).train
    if not len(index):
        return settled
    require_boxes(data, len(index.objects))
    network = settled.get("network", settings.get("network"))
    with torch.device("meta"):
        fixed = cast(Detector, build(str(network), 1, detector={})).features.region_fixed
    return chosen(index, settled.get("start") is not None, fixed, given) | settled


def _backbone(backbone: str, prefix: str) -> dict[str, Any]:
    """The network, and the start weights, of the option `--backbone`."""
    if not is_place(backbone):
        entry(backbone)
        return {"network": prefix + backbone}
    name = take(Path(backbone), silent).net.name
    return {"network": prefix + backbone_of(name), "start": backbone}


def agreed(named: Mapping[str, Any], own: Mapping[str, Any]) -> Mapping[str, Any]:
    """`own`, the network of a backbone. Raises `InputError` where the command line names another one."""
    if (network := named.get("network", own["network"])) != own["network"]:
        raise InputError(f"the backbone makes {own['network']}, not {network}; leave {network} or --backbone out")
    return own


def is_place(backbone: str) -> bool:
    """Whether a backbone is the place of trained weights, which may be missing, and not a name of the catalog."""
    return Path(backbone).exists() or "/" in backbone or bool(Path(backbone).suffix)


def recipe_of(settings: Mapping[str, Any], name: str | None) -> Recipe:
    """The recipe that is named, or `auto`."""
    return RECIPES[name or AUTO.name]


def check(config: DetectionConfig, source: BoxParts, ranks: Ranks, start: Start | None) -> None:
    """Raise `InputError` for what cannot be trained.

    That is a backbone that cannot be cut for regions, a plan that does not fit it, pictures that are too small for it,
    a part of which nothing is trained, or layers that no loss trains on several ranks, which would wait for their
    gradients.
    """
    net = _structure(config, len(source.train.classes))
    _require_size(net.features, config, source)
    part, frozen = config.recipe.part, config.freeze or ()
    idle: list[str] = {"both": [], "rpn": net.parts()[1], "regions": ["rpn"]}[part]
    if ranks.world > 1 and not {*idle} <= {*frozen}:
        raise InputError(
            f"part={part} leaves {' and '.join(idle)} untrained, which several ranks must freeze; "
            "give --alternating, which does so"
        )
    freeze(net, [*frozen, *idle])


def begin(config: DetectionConfig, task: RunTask[Any], start: Start | None, say: Say) -> Network:
    """The detector with random weights, on a trained backbone, or trained."""
    return beginning.begin(config, task.classes, start, say)


def images(config: DetectionConfig) -> str:
    """What a batch is of, and what was chosen for it."""
    sides = " or ".join(map(str, config.recipe.sides or (config.side,)))
    anchors = ", ".join(f"{BASE * scale:g}" for scale in config.anchor_scales)
    told = [f"shorter side {sides} pixels", f"anchors of {anchors} pixels"]
    if any(isinstance(module, nn.BatchNorm2d) for module in _structure(config, 1).modules()):
        told.append(f"batch normalization {'fixed' if 'bn' in (config.freeze or ()) else 'trained'}")
    return f"pictures ({'; '.join(told)})"


def _require_size(features: Network, config: DetectionConfig, source: BoxParts) -> None:
    """Raise `InputError` where no map of a backbone is left of a picture of the data."""
    if features.smallest == 1:
        return
    how = Augmentation.of(config)
    seen = [(source.train, side, how.longest) for side in how.sides] + [(source.test, config.side, config.longest)]
    sizes = [(own, side, longest) for index, side, longest in seen for own in index.sizes.unique(dim=0).tolist()]
    least = min(min(fitted_size(own, side, longest)) for own, side, longest in sizes)
    if least < features.smallest:
        raise InputError(
            f"{features.name} takes pictures of {features.smallest} pixels a side or more, and some become {least}; "
            "give larger ones (--set side=, sides= and longest=)"
        )


def _structure(config: DetectionConfig, classes: int) -> Detector:
    """The detector without values."""
    with torch.device("meta"):
        return cast(Detector, build(config.network, classes, detector=asdict(config.plan)))


def finetuned(start: Start, changes: Mapping[str, Any], form: Form = BOXES) -> dict[str, Any]:
    """The plan of the trained detector, with which its weights fit."""
    known = {field.name for field in dataclasses.fields(form.config)}
    known -= {field.name for field in dataclasses.fields(DetectionRecipe)}  # its `proposals` are those of training
    return {name: value for name, value in start.net.header["detector"].items() if name in known}


DETECTION: Kind[DetectionConfig, BoxParts] = Kind(
    config=DetectionConfig,
    recipes=RECIPES,
    recipe_of=recipe_of,
    load_source=load_source,
    check=check,
    make_task=detection_task,
    begin=begin,
    images=images,
    finetuned=finetuned,
    settle=settle,
)
