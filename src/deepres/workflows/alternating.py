"""The four steps in which Faster R-CNN is trained in its paper (Sec. 3.2), as four ordinary runs.

1. The RPN, on the backbone. 2. The regions, on the backbone as well, with the proposals of step 1. 3. The RPN on the
shared layers of step 2, which stay as they are from now on. 4. The layers of the regions, with the proposals of step 3.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from deepres.detection.recipe import DetectionConfig
from deepres.models.catalog import build
from deepres.models.detection.detector import Detector
from deepres.records import Run
from deepres.runtime.errors import InputError
from deepres.training.config import Config
from deepres.workflows.configure import with_places

FOLDERS = ("1-rpn", "2-regions", "3-rpn", "4-regions")  # in the folder of all four; the last one is the detector
TITLES = ("the RPN", "the regions", "the RPN on the layers of step 2", "the regions on the same layers")
REGION_SHARE = 0.5  # of the iterations of an RPN's step: 40,000 for 80,000 in the authors' code


@dataclass(frozen=True)
class Step:
    """One of the four runs: what it trains, its folder and its configuration."""

    title: str
    folder: Path
    config: DetectionConfig


def begun(place: Path) -> Path | None:
    """The first of the four runs in the folder `place`, whose configuration tells that of all; None without one."""
    first = place / FOLDERS[0]
    return first if not Run(place).exists and Run(first).exists else None


def require_apart(place: Path) -> None:
    """Raise `InputError` where the folder of the four runs holds a run of its own."""
    if Run(place).exists:
        raise InputError(f"{place} holds a run of its own, beside which no four steps can be; give another --run")


def steps(config: Config, place: Path) -> Iterator[Step]:
    """Each run in turn; the runs before it must be finished.

    `config` is that of the joint training, or of the first step; its iterations are those of an RPN's step. Raises
    `InputError` where it is no detector's.
    """
    made = _configs(config, [place.absolute() / name for name in FOLDERS])
    for number, (title, folder) in enumerate(zip(TITLES, FOLDERS, strict=True), 1):
        yield Step(f"step {number} of {len(FOLDERS)}, {title}", place / folder, next(made))


def _configs(config: Config, folders: list[Path]) -> Iterator[DetectionConfig]:
    """The configuration of each run."""
    if type(config) is not DetectionConfig:
        raise InputError("the four steps are those of a detector of boxes alone; leave --alternating out")
    shared, regions = _stages(config)
    # What stays fixed in all steps; that of a first step names the layers of the regions behind it.
    kept = config.freeze or ()
    if config.recipe.part == "rpn" and [*kept[-len(regions) :]] == regions:
        kept = kept[: -len(regions)]
    first, second, third, _ = folders
    proposing = replace(config.recipe, part="rpn")
    scoring = replace(config.recipe.scaled(max(1, round(config.recipe.iterations * REGION_SHARE))), part="regions")
    on_rpn, on_regions = (*kept, *regions), (*kept, "rpn")
    yield replace(config, recipe=proposing, freeze=on_rpn)
    yield replace(config, recipe=scoring, freeze=on_regions, rpn=str(first))
    yield _started(config, second, recipe=proposing, freeze=(*on_rpn, *shared))
    yield _started(config, third, recipe=scoring, freeze=(*on_regions, *shared), rpn=str(third))


def _started(config: DetectionConfig, start: Path, **changes: object) -> DetectionConfig:
    """`config` with the weights of the run `start`."""
    return with_places(replace(config, start=str(start), start_path=None, **changes))  # pyright: ignore[reportArgumentType]


def _stages(config: DetectionConfig) -> tuple[list[str], list[str]]:
    """The stages with parameters that are shared, and those of the regions alone."""
    with torch.device("meta"):
        net = build(config.network, 1, detector=asdict(config.plan))
    assert isinstance(net, Detector)
    return net.parts()
