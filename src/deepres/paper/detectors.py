"""The common part of the sheets of detectors: which runs they have, how these are trained, and how they are tested."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any, ClassVar

from deepres.classification.scorer import Execution
from deepres.data.boxes.index import BoxParts
from deepres.detection.choose import RANDOM_RATE
from deepres.detection.kind import DETECTION, is_place
from deepres.detection.protocol import VOTING, Protocol, pyramid
from deepres.detection.recipe import FASTER_RCNN, DetectionConfig
from deepres.findings import describe
from deepres.models.catalog import entry
from deepres.models.registry import DETECTOR, backbone_of
from deepres.paper.plan import Plan, Scale, carry_out
from deepres.paper.samples import DataKind
from deepres.paper.sheet import Experiment, Reproduction
from deepres.records import Run
from deepres.runtime.errors import InputError, Say, silent
from deepres.runtime.ranks import ALONE
from deepres.training.kind import Kind
from deepres.weights.start import take
from deepres.workflows import evaluate_detector
from deepres.workflows.configure import configure_kind
from deepres.workflows.open_network import is_detector

FINETUNED = "baseline+++"  # at the paper's scale it starts from a detector that was trained on COCO
# Small pictures, few and small regions, and a short run. All else is chosen for the data, as `deepres train detector`
# does it.
QUICK: dict[str, Any] = {"iterations": 300, "side": 256, "regions": 32, "region_size": 7, "test_images": 100}
SMOKE: dict[str, Any] = {
    "iterations": 8,
    "side": 96,
    "sides": (96,),
    "rpn_channels": 16,
    "regions": 8,
    "evaluate_every": 8,
    "workers": 0,
}
QUICK_PROPOSALS = 100  # of a picture, in the test
STANDING_IN = ("plain8", "resnet8")  # at the smoke scale, for VGG-16 and ResNet-101
MEMBERS: dict[Scale, int] = {"smoke": 2, "quick": 2, "paper": 3}  # of an ensemble


@dataclass(frozen=True)
class Step:
    """A test, with the improvements of Appendix B that it has; an ensemble is of networks that differ in the seed."""

    label: str
    refine: bool = False
    context: bool = False
    scales: bool = False
    ensemble: bool = False

    def protocol(self, side: int) -> Protocol:
        """The test of networks that were trained at this shorter side."""
        scales = pyramid(side) if self.scales else ()
        return Protocol(scales=scales, refine=1, voting=VOTING) if self.refine else Protocol(scales=scales)


BASELINE = Step("baseline")


@dataclass(frozen=True)
class Row:
    """One test of one seed. `key` is the network, of a baseline, or else the label of the step."""

    key: str
    seed: int
    runs: tuple[Run, ...]
    step: Step

    @property
    def finished(self) -> bool:
        """Whether all its runs are."""
        return all(run.done is not None for run in self.runs)

    @property
    def protocol(self) -> Protocol:
        """The test, with sizes in proportion to the one that the first run was trained at."""
        return self.step.protocol(self.runs[0].field("side"))

    def file(self, plan: Plan) -> Path:
        """Where the detections are kept: in the run folder, those of an ensemble in the folder of the plan."""
        kept = evaluate_detector.kept_file(self.runs[0].path, self.protocol)
        return kept if len(self.runs) == 1 else plan.folder / f"ensemble-seed{self.seed}-{kept.name}"


@dataclass(frozen=True, kw_only=True)
class Detectors(Experiment):
    """A sheet of detectors: a baseline of each network, then `steps` of the best residual one.

    `fields` are those of the paper's scale, and `sets` names its image sets in the folders of runs where other sheets
    train on others.
    """

    kind: ClassVar[DataKind | None] = "boxes"
    takes: ClassVar[str] = "pictures with boxes; give --data DIR, a folder as PASCAL VOC, COCO or YOLO lay it out"

    method: ClassVar[str] = DETECTOR  # before the names of backbones
    trains: ClassVar[Kind[Any, BoxParts]] = DETECTION
    recipe: ClassVar[str] = FASTER_RCNN.name  # of the paper's scale
    short: ClassVar[Mapping[Scale, Mapping[str, Any]]] = {"quick": QUICK, "smoke": SMOKE}  # fields of short runs

    fields: Mapping[str, Any]
    steps: tuple[Step, ...] = ()
    sets: str = ""

    def named(self, asked: tuple[str, ...]) -> tuple[tuple[str, ...], Mapping[str, str]]:
        """The networks of backbones, which are named or given as trained weights, and the places of these weights.

        Weights of a detector are those that `FINETUNED` starts from, where the sheet has that row.
        """
        found, starts = list[str](), dict[str, str]()
        for name in asked:
            if not is_place(name):
                found.append(self.method + backbone_of(name))
                continue
            net = take(Path(name), silent).net
            tuned = is_detector(net) and any(step.label == FINETUNED for step in self.steps)
            if tuned and not net.header["detector"]["context"]:
                raise InputError(f"{name} has no context (Appendix B); give a detector that was trained with it")
            network = self.method + backbone_of(net.name)
            starts[FINETUNED if tuned else network] = str(Path(name).resolve())
            found += [] if tuned else [network]
        return tuple(found), starts

    def count(self, scale: Scale) -> int:
        """The baselines, and the members of the ensemble, or else the one network, that have context."""
        members = MEMBERS[scale] if any(step.ensemble for step in self.steps) else 1
        with_context = any(step.context for step in self.steps)
        return super().count(scale) + self.seeds_at(scale) * members * with_context

    def run(self, plan: Plan, network: str, seed: int, context: bool = False) -> Run:
        """The run folder of a network, with or without context."""
        told = {
            "context": context,
            self.sets: plan.scale == "paper",
            "trained": network in plan.starts,
            "tuned": context and FINETUNED in plan.starts,
        }
        return plan.run("-".join([network, *(word for word, holds in told.items() if word and holds)]), seed)

    def runs(self, plan: Plan) -> Mapping[str, Sequence[Run]]:
        """The runs of the baselines by network, and those with context of the improved one, once that is known."""
        found = {name: list[Run]() for name in plan.networks}
        for seed in range(plan.seeds):
            for name, own in plan.members(seed):
                found[name].append(self.run(plan, name, own))
        improved = self.improved(plan, found)
        with_context = [run for row in self._steps(plan, improved) if row.step.context for run in row.runs]
        return found | ({f"{improved} with context": list(dict.fromkeys(with_context))} if with_context else {})

    def improved(self, plan: Plan, runs: Mapping[str, Sequence[Run]] | None = None) -> str | None:
        """The best residual network of the plan by mAP@.5 of its last tests; of no residual one, the best of all.

        None until their runs are finished.
        """
        runs = self.runs(plan) if runs is None else runs
        residual = [name for name in plan.networks if describe(name)[2] == "residual"]
        figures = {name: [run.done for run in runs[name]] for name in residual or plan.networks}
        if not all(all(own) for own in figures.values()):
            return None
        return max(figures, key=lambda name: mean(done["map50"] for done in figures[name] if done))

    def rows(self, plan: Plan) -> list[Row]:
        """The tests of the plan: the baselines, then the steps, as far as the improved network is known."""
        baselines = [
            Row(name, place, (run,), BASELINE)
            for name, its_runs in self.runs(plan).items()
            if name in plan.networks
            for place, run in enumerate(its_runs)
        ]
        return baselines + self._steps(plan, self.improved(plan))

    def _steps(self, plan: Plan, improved: str | None) -> list[Row]:
        """The tests of the improved network."""
        if improved is None:
            return []

        def runs(step: Step, seed: int) -> tuple[Run, ...]:
            seeds = [seed + plan.seeds * place for place in range(MEMBERS[plan.scale] if step.ensemble else 1)]
            return tuple(self.run(plan, improved, own, step.context) for own in seeds)

        return [Row(step.label, seed, runs(step, seed), step) for step in self.steps for seed in range(plan.seeds)]

    def train(self, plan: Plan, asked: Reproduction) -> None:
        """Train and test the baselines, then the improved network with context, which is told by then."""
        self._require(plan, asked)
        jobs = [
            (self.config(plan, name, own, asked), self.run(plan, name, own))
            for seed in range(plan.seeds)
            for name, own in plan.members(seed)
        ]
        source = self.trains.load_source(jobs[0][0], asked.say, ALONE)
        carry_out(plan, jobs, source, asked.watch, asked.log)
        carry_out(plan, self._with_context(plan, asked), source, asked.watch, asked.log)
        # Each test opens the data, and tells what it finds there.
        say = _once(asked.say)
        for row in self.rows(plan):
            _test(plan, row, source, replace(asked, say=say))

    def _with_context(self, plan: Plan, asked: Reproduction) -> Iterator[tuple[DetectionConfig, Run]]:
        improved = self.improved(plan)
        for run in dict.fromkeys(run for row in self._steps(plan, improved) if row.step.context for run in row.runs):
            assert improved is not None
            yield self.config(plan, improved, int(run.path.name.rpartition("seed")[2]), asked, context=True), run

    def config(
        self, plan: Plan, network: str, seed: int, asked: Reproduction, context: bool = False
    ) -> DetectionConfig:
        """The configuration of a run, as `deepres train detector` makes it."""
        paper = plan.scale == "paper"
        changes = {**asked.fields, "data": plan.data, "seed": seed, "context": context}
        start = plan.starts.get(network)
        if context and FINETUNED in plan.starts:
            start = plan.starts[FINETUNED]
            changes |= self.trains.finetuned(take(Path(start), silent), {})
        changes |= self.fields if paper else self.short[plan.scale]
        changes |= {"network": network} if start is None else {"backbone": start}
        if start is None and not entry(network).has_bn:
            changes["lr"] = RANDOM_RATE / 10  # as classifiers without BN have it
        config = configure_kind(self.trains, [], self.recipe if paper else None, changes)
        return config if paper else replace(config, proposals=QUICK_PROPOSALS)

    def _require(self, plan: Plan, asked: Reproduction) -> None:
        """Raise `InputError` for options of classifiers, and where the paper's scale lacks trained weights."""
        for name in ("split", "image_size"):
            if name in asked.fields:
                raise InputError(f"--{name.replace('_', '-')} is for classifiers, and {self.name} trains detectors")
        if plan.scale != "paper":
            return
        if lacking := [backbone_of(name) for name in plan.networks if name not in plan.starts]:
            raise InputError(
                f"{self.name} at the paper's scale starts from weights that were trained on ImageNet; give those of "
                f"{', '.join(lacking)}, as in --networks vgg16.pth,resnet101.pth"
            )
        if any(step.label == FINETUNED for step in self.steps) and FINETUNED not in plan.starts:
            raise InputError(
                f"{FINETUNED} starts from a detector with context that was trained on COCO; give it behind the "
                "backbones, as in --networks vgg16.pth,resnet101.pth,RUN of table9"
            )


def _once(say: Say) -> Say:
    """`say`, but for what was told before."""
    told = set[str]()

    def new(message: str) -> None:
        if message not in told:
            told.add(message)
            say(message)

    return new


def _test(plan: Plan, row: Row, source: BoxParts, asked: Reproduction) -> None:
    """Keep what the runs of a row find in the test pictures; what is kept of the same weights and pictures stays."""
    execution = Execution(**{name: asked.fields[name] for name in ("device", "precision") if name in asked.fields})
    setting = evaluate_detector.Setting(protocol=row.protocol, execution=execution)
    name = " and ".join(run.path.name for run in row.runs)
    with asked.watch(f"{name}, {row.step.label}", len(source.test), 1, ()) as told:
        told.step(0, {})
        evaluate_detector.evaluate(
            [run.path for run in row.runs],
            setting,
            asked.say,
            lambda done, _: told.step(done, {}),
            file=row.file(plan),
        )
