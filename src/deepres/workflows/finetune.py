"""Trained weights that go on on other images: the configuration of such a run."""

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
    """The recorded configuration of an existing `run`, or that of a new one, each with `changes`.

    Networks that were trained on crops of pictures (Sec. 3.4) go on with crops of that size, scale and colour
    augmentation in proportion to the paper's; others, and where `changes` have an `image_size`, with whole images.
    `place` is where `start` came from. Raises `InputError` for a field that is wrong.
    """
    begun = {"network": start.net.name, "start": place}
    if run is not None and Run(run).exists:
        return configure([run], None, begun | dict(changes))
    require_mean(start.net, place)
    crop = crop_of(start.net)
    if "image_size" not in changes and is_cropped(start.net):
        low, high = (round(side * crop / CROP) for side in IMAGENET.sides)
        begun |= {"crop": crop, "sides": (low, high), "colour": IMAGENET.colour}
    else:
        begun |= {"in_channels": start.net.header["in_channels"]}
    return configure([], FINETUNE.name, begun | dict(changes))


def default_run(config: ClassificationConfig) -> Path:
    """The folder of a run that names none."""
    return Path("runs") / f"{default_name(config)}-finetuned"
