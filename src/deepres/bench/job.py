"""A job to be measured, and a contestant that does it."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from deepres.bench.turns import Turns

OURS = "ours"
Task = Literal["train", "infer", "load", "dense", "memory"]


@dataclass(frozen=True)
class Job:
    """A job that every contestant does. The tasks are:

    train: For a network for 32-pixel images, an epoch over `part` of the training images of `data`, with loading,
    augmentation and metrics, and the test over the same part of the test images; on a GPU, steps on augmented batches
    of `data`, which lies in its memory. For a network for ImageNet, a step on a batch in memory or, where `data` is a
    folder of pictures, steps over `part` of its training pictures.
    infer: Scores of a batch in memory.
    load: The batches of `part` of an epoch, without a network.
    dense: The test of pictures in memory by the dense protocol (Sec. 3.4).
    memory: Two training steps on a batch in memory, in a new process each turn.

    For a detector: train is a step on pictures of 600 x 800 pixels, infer its test of them.
    """

    task: Task
    network: str
    batch_size: int
    data: str = "cifar10"
    part: float = 1.0
    precision: str = "fp32"
    memory_budget: float | None = None  # GiB
    compile: bool = True  # whether the `tuned` rival tries torch.compile
    device: str = "cpu"  # or cuda
    patience: float = 120.0  # seconds that the `tuned` rival may spend on settings that compile, on a GPU


@dataclass(frozen=True)
class Contestant:
    """A contestant that is set up: `turn()` does the job once and returns the number of images.

    `setting` says in a few words what runs; `facts` are further findings for the record. `figures()`, called after
    each turn, returns other figures of that turn, or its own `seconds`. One that cannot stop between its turns has
    `work` instead, which answers all of them.
    """

    turn: Callable[[], int]
    setting: str
    facts: dict[str, float | str] = dataclasses.field(default_factory=dict[str, float | str])
    figures: Callable[[], dict[str, float]] = dict[str, float]
    work: Callable[[Turns], None] | None = None


def is_detector(job: Job) -> bool:
    """Whether the network is a detector, which has contestants of its own."""
    from deepres.models.registry import DETECTOR

    return job.network.startswith(DETECTOR)


def is_epoch(job: Job) -> bool:
    """Whether the job is an epoch of a data set, for a network for 32-pixel images."""
    from deepres.models.catalog import family

    small = family(job.network) == "cifar" and not is_detector(job)
    return job.task in ("train", "load") and job.device == "cpu" and small


def is_resident(job: Job) -> bool:
    """Whether the job trains on a data set that lies in the memory of a GPU, for a network for 32-pixel images."""
    from deepres.models.catalog import family

    return job.task == "train" and job.device != "cpu" and family(job.network) == "cifar"


def is_from_disk(job: Job) -> bool:
    """Whether the job reads pictures on disk, for a network for ImageNet."""
    from deepres.models.catalog import family

    trains = job.task == "train" and job.data != Job.data
    return (trains or job.task == "load") and family(job.network) == "imagenet"
