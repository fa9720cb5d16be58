"""What tests of detectors and of localizers have in common: what they are on, and what decides their results."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from deepres.classification.scorer import AUTO, Execution
from deepres.data.boxes.index import BoxIndex
from deepres.data.division import Division
from deepres.data.sources import still_there
from deepres.records import Json, Run, digest
from deepres.runtime.errors import InputError, silent
from deepres.serving.file_network import SUFFIXES
from deepres.weights.find import find
from deepres.workflows.run_pictures import place_of


@dataclass(frozen=True, kw_only=True)
class BoxTest:
    """What networks are tested on, and where. The default `data` and sets are those of the first run among them.

    `part` is the part of the data that is tested, and `test_set` names the image sets of the test part, as
    `data.boxes.parts` does. `by_place` matches classes of different names by their place.
    """

    data: str | None = None
    test_set: str | None = None
    train_set: str | None = None
    part: str = "test"
    skip_bad: bool = False
    by_place: bool = False
    division: Division = "hash"
    execution: Execution = AUTO

    @property
    def given(self) -> bool:
        """Whether the user named the data."""
        return self.data is not None or self.test_set is not None


B = TypeVar("B", bound=BoxTest)


def is_run(path: Path) -> bool:
    """Whether a path is the folder of a run."""
    return path.is_dir() and Run(path).exists


def with_recorded_data(setting: B, paths: Sequence[Path]) -> B:
    """`setting` with the data and image sets that the first run at `paths` recorded, where no data are given.

    Raises `InputError` where none of them is a run.
    """
    if setting.data is not None:
        return setting
    run = next(filter(is_run, paths), None)
    if run is None:
        raise InputError(f"{paths[0]} does not say which data to test on; give --data")
    config = Run(run).config
    return replace(
        setting,
        data=still_there(place_of(config), str(run)),
        train_set=config.get("train_set"),
        test_set=setting.test_set or config.get("test_set"),
        division=config.get("division", "hash"),
        skip_bad=setting.skip_bad or config.get("skip_bad", False),
    )


def decisive(paths: Sequence[Path], setting: BoxTest, index: BoxIndex, places: Tensor) -> Json:
    """What decides the result of a test, beside its protocol: weights, pictures and device."""
    tested = hashlib.sha256(index.fingerprint.encode() + places.numpy().tobytes()).hexdigest()
    return {
        "weights": [str(path) for path in paths],
        "weights_sha256": [digest(path if path.suffix in SUFFIXES else find(path, silent)) for path in paths],
        "part": setting.part,
        "pictures_sha256": tested,
        "device": setting.execution.device,
        "precision": setting.execution.precision,
    }
