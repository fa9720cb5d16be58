"""The configuration of a run that trains trained weights further on other images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepres.records import Run
from deepres.training.config import Config
from deepres.weights.find import require_mean
from deepres.weights.start import Start
from deepres.workflows import kinds
from deepres.workflows.configure import configure, default_name

RECIPE = "finetune"  # of each kind of task


def finetune_config(start: Start, place: str, run: Path | None, changes: Mapping[str, Any]) -> Config:
    """The configuration of an existing `run`, or that of a new one, each with `changes`.

    What images the weights are trained on follows from how they were trained: see `finetuned` of the kind. `place` is
    where `start` was read from. Raises `InputError` for a field that is wrong.
    """
    begun = {"network": start.net.name, "start": place}
    if run is not None and Run(run).exists:
        return configure([run], None, begun | dict(changes))
    require_mean(start.net, place)
    images = kinds.kind(kinds.task_of(start.net.name)).finetuned(start, changes)
    return configure([], RECIPE, begun | dict(images) | dict(changes))


def default_run(config: Config) -> Path:
    """The default folder of a run."""
    return Path("runs") / f"{default_name(config)}-finetuned"
