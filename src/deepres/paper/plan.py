"""A plan: one of the paper's tables or figures at one scale, as a list of runs that goes on where it stopped."""

import dataclasses
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NotRequired, TypedDict

from msgspec import Meta

from deepres.classification.recipe import ClassificationConfig, ClassificationRecipe, paper_recipe
from deepres.classification.source import Source
from deepres.classification.views import Protocol
from deepres.data.sources import placed
from deepres.models.catalog import depth
from deepres.records import Run, write_json
from deepres.runtime import untrusted
from deepres.runtime.errors import InputError
from deepres.runtime.files import missing, remove_empty
from deepres.training.trainer import Monitor
from deepres.workflows.configure import slug
from deepres.workflows.train import train_run

Scale = Literal["smoke", "quick", "paper"]
SCALES: tuple[Scale, ...] = ("smoke", "quick", "paper")
MOST_RUNS = 1_000  # of a plan: networks, or seeds
Watch = Callable[[str, int, int], AbstractContextManager[Monitor]]  # of a label, so many steps, images a step

# Small batches give a slow machine enough steps, the warm-up lets 56 layers start: see docs/quick-scale.md.
QUICK = ClassificationRecipe(
    name="cifar-quick",
    iterations=400,
    batch_size=32,
    lr=0.05,
    milestones=(240, 340),
    warmup="linear",
    warmup_iterations=80,
    window=40,
    evaluate_every=100,
)
SMOKE = QUICK.scaled(6)
TEST_IMAGES: dict[Scale, int] = {"smoke": 100, "quick": 1_000, "paper": 0}


def recipe_of(scale: Scale, network: str) -> ClassificationRecipe:
    """The recipe of a scale: the same for all nets, but for the paper's own warm-up from 110 layers on."""
    return {"smoke": SMOKE, "quick": QUICK, "paper": paper_recipe(depth(network))}[scale]


@dataclass(frozen=True)
class Experiment:
    """A lab sheet: what is run at each scale. `seeds` is how many seeds the paper's scale asks for.

    `recipe` is that of a network at a scale, `protocol` what trained networks are tested by afterwards, and `data` what
    is taken where none are named; None: they must be named.
    """

    name: str
    title: str
    networks: dict[Scale, tuple[str, ...]]
    seeds: int = 1
    recipe: Callable[[Scale, str], ClassificationRecipe] = recipe_of
    protocol: Protocol | None = None
    data: str | None = "cifar10"


@dataclass(frozen=True)
class Plan:
    """An experiment at one scale on one data set, bound to a folder.

    Runs lie beside the plans, shared by all experiments of the same scale and data, so that none runs twice:
    ROOT/cifar10-quick/plain20-seed0 serves ROOT/fig6-quick-cifar10 and ROOT/fig7-quick-cifar10.
    """

    experiment: str
    scale: Scale
    data: str
    networks: tuple[str, ...]
    seeds: int
    folder: Path
    data_path: str | None = None  # where `data` was found, from whichever folder

    def run(self, network: str, seed: int) -> Run:
        """The run folder of one network and seed."""
        return Run(self.folder.parent / f"{slug(self.data)}-{self.scale}" / f"{network}-seed{seed}")

    def members(self, seed: int) -> list[tuple[str, int]]:
        """Every network with its seed, which is `seed`, but another one where a network is named again."""
        names = self.networks
        return [(name, seed + self.seeds * names[:place].count(name)) for place, name in enumerate(names)]

    def runs(self) -> dict[str, list[Run]]:
        """The runs of each network, by seed."""
        found: dict[str, list[Run]] = {}
        for seed in range(self.seeds):
            for name, own in self.members(seed):
                found.setdefault(name, []).append(self.run(name, own))
        return found

    def configs(self, sheet: Experiment, base: ClassificationConfig) -> Iterable[tuple[ClassificationConfig, Run]]:
        """The plan's runs in order: every network with the first seed, then with the next."""
        for seed in range(self.seeds):
            for name, own in self.members(seed):
                recipe, test_images = sheet.recipe(self.scale, name), TEST_IMAGES[self.scale]
                config = dataclasses.replace(
                    base, network=name, data=self.data, seed=own, recipe=recipe, test_images=test_images
                )
                yield config, self.run(name, own)

    def save(self) -> None:
        """Write `plan.json`, from which `deepres report` finds the runs again."""
        record = dataclasses.asdict(self)
        del record["folder"]
        write_json(self.folder / "plan.json", record)


def make_plan(experiment: Experiment, scale: Scale, data: str, root: Path, networks: str | None, seeds: int) -> Plan:
    """The plan of an experiment; `networks` (names with commas) replaces the sheet's own list."""
    names = experiment.networks[scale] if networks is None else tuple(networks.split(","))
    for name in names:
        depth(name)  # an unknown name is said before anything runs
    if not 1 <= seeds <= MOST_RUNS or len(names) > MOST_RUNS:
        raise InputError(f"--seeds is {seeds} of {len(names)} networks; give from 1 to {MOST_RUNS:,} of each")
    folder = root / f"{experiment.name}-{scale}-{slug(data)}"
    return Plan(experiment.name, scale, data, names, seeds, folder, placed(data))


class _Record(TypedDict):
    experiment: str
    scale: Scale
    data: Annotated[str, Meta(min_length=1)]
    networks: Annotated[tuple[str, ...], Meta(min_length=1, max_length=MOST_RUNS)]
    seeds: Annotated[int, Meta(ge=1, le=MOST_RUNS)]
    data_path: NotRequired[str | None]


def read_plan(folder: Path) -> Plan:
    """The plan that `reproduce` wrote in `folder`. Raises `InputError` where there is none, or a damaged one."""
    file, hint = folder / "plan.json", "is it a plan folder of `deepres reproduce`?"
    record = untrusted.read(file, _Record, "carry the plan out again", hint=hint, own=True)
    for name in record["networks"]:
        depth(name)  # which are names of folders, too
    return Plan(**record, folder=folder)


def carry_out(plan: Plan, sheet: Experiment, base: ClassificationConfig, data: Source, watch: Watch) -> None:
    """Run what is not done yet, told to what `watch` gives. Nothing stays of a plan whose first run is refused."""
    made = missing(plan.folder / "plan.json")
    plan.save()
    try:
        for config, run in plan.configs(sheet, base):
            recipe = config.recipe
            with watch(f"{config.network} seed {config.seed}", recipe.iterations, recipe.batch_size) as told:
                train_run(config, run, data, told)
    except InputError:
        if not any(run.path.exists() for runs in plan.runs().values() for run in runs):
            remove_empty(made)
        raise
