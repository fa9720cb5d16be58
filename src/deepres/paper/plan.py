"""A plan: the runs of a sheet at one scale. Carried out again, it resumes where it stopped."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, NotRequired, TypedDict

from deepres.models.catalog import depth
from deepres.records import Run, write_json
from deepres.runtime import untrusted
from deepres.runtime.errors import InputError
from deepres.runtime.figures import Figure
from deepres.runtime.files import missing, remove_empty
from deepres.runtime.untrusted import Meta
from deepres.training.config import Config
from deepres.training.kind import Source
from deepres.training.tracking import Tracked
from deepres.training.trainer import Monitor
from deepres.workflows.configure import slug
from deepres.workflows.train import train_run

Scale = Literal["smoke", "quick", "paper"]
SCALES: tuple[Scale, ...] = ("smoke", "quick", "paper")
MOST_RUNS = 1_000  # networks, or seeds, of a plan
# Takes a label, the steps, the images of a step, and the figures that are shown.
Watch = Callable[[str, int, int, Sequence[Figure]], AbstractContextManager[Monitor]]


@dataclass(frozen=True)
class Plan:
    """A sheet (`experiment` is its name) at one scale on one data set, in a folder.

    Runs lie beside the plans. All sheets of the same scale and data share them, so that none is trained twice:
    ROOT/cifar10-quick/plain20-seed0 serves ROOT/fig6-quick-cifar10 and ROOT/fig7-quick-cifar10. `starts` are the
    places of trained weights, by network, from which its runs start.
    """

    experiment: str
    scale: Scale
    data: str
    networks: tuple[str, ...]
    seeds: int
    folder: Path
    data_path: str | None = None  # the absolute path of `data`
    starts: Mapping[str, str] = field(default_factory=dict[str, str])

    def run(self, network: str, seed: int) -> Run:
        """The run folder of one network and seed; of a variant, the name has more than the network's."""
        return Run(self.folder.parent / f"{slug(self.data)}-{self.scale}" / f"{network}-seed{seed}")

    def members(self, seed: int) -> list[tuple[str, int]]:
        """Every network with its seed: `seed`, or another seed for a network that the plan names again."""
        names = self.networks
        return [(name, seed + self.seeds * names[:place].count(name)) for place, name in enumerate(names)]

    def runs(self) -> dict[str, list[Run]]:
        """The runs of each network, by seed."""
        found: dict[str, list[Run]] = {}
        for seed in range(self.seeds):
            for name, own in self.members(seed):
                found.setdefault(name, []).append(self.run(name, own))
        return found

    def save(self) -> None:
        """Write `plan.json`, from which `deepres report` finds the runs again."""
        record = {name: value for name, value in dataclasses.asdict(self).items() if name != "folder"}
        write_json(self.folder / "plan.json", record)


class _Record(TypedDict):
    experiment: str
    scale: Scale
    data: Annotated[str, Meta(min_length=1)]
    networks: Annotated[tuple[str, ...], Meta(min_length=1, max_length=MOST_RUNS)]
    seeds: Annotated[int, Meta(ge=1, le=MOST_RUNS)]
    data_path: NotRequired[str | None]
    starts: NotRequired[dict[str, str]]


def read_plan(folder: Path) -> Plan:
    """The plan that `reproduce` wrote in `folder`. Raises `InputError` where there is none, or a damaged one."""
    file, hint = folder / "plan.json", "is it a plan folder of `deepres reproduce`?"
    record = untrusted.read(file, _Record, "carry the plan out again", hint=hint, own=True)
    for name in record["networks"]:
        depth(name)  # refuse unknown names: they become names of folders
    return dataclasses.replace(Plan(**record, folder=folder), networks=tuple(record["networks"]))


def carry_out(
    plan: Plan,
    configs: Iterable[tuple[Config, Run]],
    data: Source,
    watch: Watch,
    log: Sequence[str] = (),
) -> None:
    """Train the runs of `configs` that are not finished, and keep the plan.

    `watch` makes a monitor for each of them, and `log` names its trackers. If the first run is refused, the plan's
    folder is removed again.
    """
    made, begun = missing(plan.folder / "plan.json"), list[Run]()
    plan.save()
    try:
        for config, run in configs:
            begun.append(run)
            recipe, main = config.recipe, config.reported.main
            label = run.path.name.replace("-seed", " seed ")
            with watch(label, recipe.iterations, recipe.batch_size, main) as shown, Tracked(shown, run, log) as told:
                train_run(config, run, data, told)
    except InputError:
        if not any(run.path.exists() for run in begun):
            remove_empty(made)
        raise
