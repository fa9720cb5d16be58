"""A sheet: one table or figure of the paper, with its claims, its printed numbers, and how it is measured and shown."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deepres.classification.recipe import ClassificationConfig
from deepres.classification.source import Source, load_source
from deepres.data.sources import placed
from deepres.findings import Figure, Findings, Table, Verdict, summary_of
from deepres.models.catalog import depth
from deepres.paper.claims import Claim, Results
from deepres.paper.plan import MOST_RUNS, Plan, Recipes, Scale, Watch, carry_out
from deepres.records import Run
from deepres.runtime.errors import InputError, Say
from deepres.workflows.configure import slug


@dataclass(frozen=True)
class Reproduction:
    """How a sheet is to be reproduced.

    `base` holds the data (empty: the sheet's own), the device and the precision of all runs. `networks` (names with
    commas) replaces the sheet's networks, and `seeds` its number of seeds. Plans and runs lie under `root`. `watch`
    makes a monitor for each run and each test. `log` names the trackers that follow the runs.
    """

    scale: Scale
    base: ClassificationConfig
    root: Path
    networks: str | None
    seeds: int | None
    say: Say
    watch: Watch
    log: Sequence[str] = ()


@dataclass(frozen=True)
class Shown:
    """The results of finished runs: final figures for the claims, figures and tables for the page."""

    results: Results
    figures: tuple[Figure, ...]
    tables: tuple[Table, ...]


@dataclass(frozen=True, kw_only=True)
class Sheet(ABC):
    """A table or figure of the paper, under the `name` that `deepres reproduce` takes."""

    name: str
    title: str

    @abstractmethod
    def reproduce(self, asked: Reproduction) -> tuple[Path, Findings]:
        """Train and measure what is missing; return the folder for the page, and the findings."""

    @abstractmethod
    def findings(self, plan: Plan) -> Findings:
        """The findings of the finished runs of a plan."""


@dataclass(frozen=True, kw_only=True)
class Experiment(Sheet):
    """A sheet whose networks are trained: the networks of each scale, their recipes, and the paper's claims.

    `seeds` is the number of seeds at the paper's scale; it is 1 at the others. `data` names the data where the user
    names none; sheets without it (ImageNet cannot be downloaded) need a name from the user.
    """

    networks: Mapping[Scale, tuple[str, ...]]
    recipes: Recipes
    claims: tuple[Claim, ...]
    seeds: int = 1
    data: str = ""

    @abstractmethod
    def show(self, plan: Plan) -> Shown:
        """The results, figures and tables of a plan."""

    def measure(self, plan: Plan, source: Source, asked: Reproduction) -> None:
        """Measure finished runs for what their records do not hold; by default nothing."""

    def reproduce(self, asked: Reproduction) -> tuple[Path, Findings]:
        """Train and measure what is missing. Raises `InputError` where the sheet has no data of its own."""
        # The runs: those of the paper, or of the user.
        data = asked.base.data or self.data
        if not data:
            raise InputError(
                f"{self.name} takes photographs; give --data DIR, a folder with a folder of pictures a class"
            )
        seeds = asked.seeds if asked.seeds is not None else self.seeds if asked.scale == "paper" else 1
        plan = self.plan(asked.scale, data, asked.root, asked.networks, seeds)
        # Train all of them on the same data, then measure.
        recipe = self.recipes(asked.scale, plan.networks[0])
        base = dataclasses.replace(asked.base, data=data, data_path=plan.data_path, recipe=recipe)
        source = load_source(base, asked.say)
        carry_out(plan, self.recipes, base, source, asked.watch, asked.log)
        self.measure(plan, source, asked)
        return plan.folder, self.findings(plan)

    def plan(self, scale: Scale, data: str, root: Path, networks: str | None, seeds: int) -> Plan:
        """The plan of this sheet. Raises `InputError` for an unknown network, and for too many runs."""
        names = self.networks[scale] if networks is None else tuple(networks.split(","))
        for name in names:
            depth(name)  # raises for an unknown name before anything runs
        if not 1 <= seeds <= MOST_RUNS or len(names) > MOST_RUNS:
            raise InputError(f"--seeds is {seeds} of {len(names)} networks; give from 1 to {MOST_RUNS:,} of each")
        folder = root / f"{self.name}-{scale}-{slug(data)}"
        return Plan(self.name, scale, data, names, seeds, folder, placed(data))

    def findings(self, plan: Plan) -> Findings:
        """Verdicts on the claims, figures, tables and settings of the finished runs of a plan."""
        shown, runs = self.show(plan), plan.runs()
        verdicts = tuple(claim.verdict(shown.results, plan.scale) for claim in self.claims)
        return Findings(
            title=self.title,
            summary=_summary(plan, runs, verdicts),
            verdicts=verdicts,
            figures=shown.figures,
            tables=shown.tables,
            runs=tuple(summary_of(run) for its_runs in runs.values() for run in its_runs if run.exists),
        )


def _summary(plan: Plan, runs: Mapping[str, Sequence[Run]], verdicts: Sequence[Verdict]) -> str:
    """How many claims held, on which data, and how many runs are finished, in two sentences."""
    wanted = plan.seeds * len(plan.networks)
    done = sum(run.done is not None for its_runs in runs.values() for run in its_runs)
    held = sum(verdict.status == "held" for verdict in verdicts)
    tested = sum(verdict.status != "not tested" for verdict in verdicts)
    outcome = f"{held} of the {tested} claims tested held" if tested else "No claim was tested"
    return (
        f"{outcome}. Data: {plan.data}; scale: {plan.scale}; {done} of {wanted} runs "
        f"finished ({len(plan.networks)} networks, {plan.seeds} seed{'s' if plan.seeds > 1 else ''})."
    )
