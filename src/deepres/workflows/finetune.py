"""The configuration of a run that trains trained weights further on other images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepres.classification.recipe import FINETUNE, IMAGENET, ClassificationConfig
from deepres.classification.scorer import crop_of, is_cropped
from deepres.classification.views import CROP
from deepres.records import Run
from deepres.weights.find import require_mean
from deepres.weights.start import Start
from deepres.workflows.configure import configure, default_name


def finetune_config(start: Start, place: str, run: Path | None, changes: Mapping[str, Any]) -> ClassificationConfig:
    """The configuration of an existing `run`, or that of a new one, each with `changes`.

    Networks that were trained on crops of pictures (Sec. 3.4) are trained on crops of the same size, with the paper's
    scale augmentation in proportion and its colour augmentation. Other networks, and all where `changes` have an
    `image_size`, are trained on whole images. `place` is where `start` was read from. Raises `InputError` for a
    field that is wrong.
    """
    begun = {"network": start.net.name, "start": place}
    if run is not None and Run(run).exists:
        return configure([run], None, begun | dict(changes))
    require_mean(start.net, place)
    if "image_size" not in changes and is_cropped(start.net):
        crop = crop_of(start.net)
        sides = tuple(round(side * crop / CROP) for side in IMAGENET.sides)
        begun |= {"crop": crop, "sides": sides, "colour": IMAGENET.colour}
    else:
        begun |= {"in_channels": start.net.header["in_channels"]}
    return configure([], FINETUNE.name, begun | dict(changes))


def default_run(config: ClassificationConfig) -> Path:
    """The default folder of a run."""
    return Path("runs") / f"{default_name(config)}-finetuned"
