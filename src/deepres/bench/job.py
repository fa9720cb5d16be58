"""A job that is measured, and a contestant that does it."""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self

OURS = "ours"
Task = Literal["train", "infer", "load", "dense", "memory"]


@dataclass(frozen=True)
class Job:
    """A job that every contestant does.

    train: for a network for 32-pixel images a whole epoch over `part` of the training images of `data` (loading,
    augmentation, metrics, and the test over the same part of the test images), for one of Table 1 a step on a batch
    in memory or, where `data` is a folder of pictures, steps over `part` of its training pictures. infer: scores of a
    batch in memory. load: the batches of `part` of an epoch, without a network. dense: the test of pictures in memory
    by the dense protocol. memory: two training steps on a batch in memory, in a new process each turn.
    """

    task: Task
    network: str
    batch_size: int
    data: str = "cifar10"
    part: float = 1.0
    precision: str = "fp32"
    memory_budget: float | None = None  # GiB
    compile: bool = True  # whether the `tuned` rival tries torch.compile

    def as_text(self) -> str:
        """For the command line of a contestant's process."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """What `as_text` wrote."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Contestant:
    """Someone ready to work: `turn()` does the work once and returns how many images that were.

    `setting` says in a few words what runs; `facts` are further findings for the record. `figures`, called after
    each turn, gives what else was measured in it.
    """

    turn: Callable[[], int]
    setting: str
    facts: dict[str, float | str] = dataclasses.field(default_factory=dict[str, float | str])
    figures: Callable[[], dict[str, float]] = dict[str, float]


def is_epoch(job: Job) -> bool:
    """Whether the job is an epoch of a data set rather than a step on a batch in memory."""
    from deepres.models.catalog import family

    return job.task in ("train", "load") and family(job.network) == "cifar"


def is_from_disk(job: Job) -> bool:
    """Whether the job reads pictures on disk, as networks for ImageNet do, rather than a resident set."""
    from deepres.models.catalog import family

    trains = job.task == "train" and job.data != Job.data
    return (trains or job.task == "load") and family(job.network) == "imagenet"
