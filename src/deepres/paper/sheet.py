"""A sheet: one table or figure of the paper, with its claims, its printed numbers, and how it is measured and shown."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from deepres.data.sources import placed
from deepres.findings import Figure, Findings, Table, Verdict, summary_of
from deepres.models.catalog import depth
from deepres.paper.claims import Claim, Results
from deepres.paper.plan import MOST_RUNS, Plan, Scale, Watch
from deepres.paper.samples import DataKind
from deepres.records import Run
from deepres.runtime.errors import InputError, Say
from deepres.workflows.configure import slug


@dataclass(frozen=True)
class Reproduction:
    """How a sheet is to be reproduced.

    `data` is the data set (None: the sheet's own), and `fields` are those of the configuration of all runs, such as
    device and precision. `networks` (names with commas) replaces the sheet's networks, and `seeds` its number of seeds.
    Plans and runs lie under `root`. `watch` makes a monitor for each run and each test. `log` names the trackers that
    follow the runs.
    """

    scale: Scale
    data: str | None
    fields: Mapping[str, Any]
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
    """A table or figure of the paper, under the `name` that `deepres reproduce` takes.

    `kind` is that of the data that it takes, None for a sheet without data. `costs` says what it costs at each scale.
    """

    kind: ClassVar[DataKind | None] = None

    name: str
    title: str
    costs: Mapping[Scale, str] = field(default_factory=dict[Scale, str])

    def cost(self, scale: Scale) -> str:
        """What it costs at a scale, for readers."""
        return self.costs.get(scale, "")

    @abstractmethod
    def reproduce(self, asked: Reproduction) -> tuple[Path, Findings]:
        """Train and measure what is missing; return the folder for the page, and the findings."""

    @abstractmethod
    def findings(self, plan: Plan) -> Findings:
        """The findings of the finished runs of a plan."""


@dataclass(frozen=True, kw_only=True)
class Experiment(Sheet):
    """A sheet whose networks are trained: the networks of each scale, and the paper's claims.

    `seeds` is the number of seeds at the paper's scale; it is 1 at the others. `data` names the data where the user
    names none; sheets without it (ImageNet cannot be downloaded) need a name from the user.
    """

    takes: ClassVar[str] = "data; give --data DIR"  # what the user must name where the sheet has no data of its own

    networks: Mapping[Scale, tuple[str, ...]]
    claims: tuple[Claim, ...]
    seeds: int = 1
    data: str = ""

    @abstractmethod
    def train(self, plan: Plan, asked: Reproduction) -> None:
        """Train the runs of a plan that are not finished, and measure what their records do not hold."""

    @abstractmethod
    def show(self, plan: Plan) -> Shown:
        """The results, figures and tables of a plan."""

    def cost(self, scale: Scale) -> str:
        """How many runs it has at a scale, and what they cost."""
        count = self.count(scale)
        return ", ".join(filter(None, [_counted(count, "run"), super().cost(scale)]))

    def count(self, scale: Scale) -> int:
        """How many runs it has at a scale, where nothing else is asked for."""
        return len(self.networks[scale]) * self.seeds_at(scale)

    def seeds_at(self, scale: Scale) -> int:
        """The number of seeds at a scale."""
        return self.seeds if scale == "paper" else 1

    def runs(self, plan: Plan) -> Mapping[str, Sequence[Run]]:
        """All runs of a plan, finished or not, by a name for each network or variant of one."""
        return plan.runs()

    def reproduce(self, asked: Reproduction) -> tuple[Path, Findings]:
        """Train and measure what is missing. Raises `InputError` where the sheet has no data of its own."""
        data = asked.data or self.data
        if not data:
            raise InputError(f"{self.name} takes {self.takes}")
        seeds = self.seeds_at(asked.scale) if asked.seeds is None else asked.seeds
        plan = self.plan(asked.scale, data, asked.root, asked.networks, seeds)
        self.train(plan, asked)
        return plan.folder, self.findings(plan)

    def plan(self, scale: Scale, data: str, root: Path, networks: str | None, seeds: int) -> Plan:
        """The plan of this sheet. Raises `InputError` for an unknown network, and for too many runs."""
        names, starts = self.named(self.networks[scale] if networks is None else tuple(networks.split(",")))
        for name in names:
            depth(name)  # raises for an unknown name before anything runs
        if not 1 <= seeds <= MOST_RUNS or len(names) > MOST_RUNS:
            raise InputError(f"--seeds is {seeds} of {len(names)} networks; give from 1 to {MOST_RUNS:,} of each")
        folder = root / f"{self.name}-{scale}-{slug(data)}"
        return Plan(self.name, scale, data, names, seeds, folder, placed(data), starts)

    def named(self, asked: tuple[str, ...]) -> tuple[tuple[str, ...], Mapping[str, str]]:
        """The networks that are asked for, and the places of trained weights that some of them start from."""
        return asked, {}

    def findings(self, plan: Plan) -> Findings:
        """Verdicts on the claims, figures, tables and settings of the finished runs of a plan."""
        shown, runs = self.show(plan), self.runs(plan)
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
    every = [run for its_runs in runs.values() for run in its_runs]
    done = sum(run.done is not None for run in every)
    held = sum(verdict.status == "held" for verdict in verdicts)
    tested = sum(verdict.status != "not tested" for verdict in verdicts)
    outcome = f"{held} of the {tested} claims tested held" if tested else "No claim was tested"
    return (
        f"{outcome}. Data: {plan.data}; scale: {plan.scale}; {done} of {len(every)} runs "
        f"finished ({_counted(len(plan.networks), 'network')}, {_counted(plan.seeds, 'seed')})."
    )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count > 1 else ''}"
