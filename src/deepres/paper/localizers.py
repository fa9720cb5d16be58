"""What the sheets of localization have in common: their runs, and how these are trained and tested."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from deepres.classification.recipe import IMAGENET, ClassificationConfig
from deepres.classification.scorer import Execution
from deepres.classification.views import CROP
from deepres.classification.views import Protocol as Views
from deepres.data.boxes.index import BoxParts
from deepres.data.stream.index import Parts
from deepres.detection.kind import is_place
from deepres.localization.choose import RANDOM_RATE
from deepres.localization.kind import LOCALIZATION
from deepres.localization.located_table import LocatedTable, read_located, write_located
from deepres.localization.protocol import Protocol
from deepres.localization.recipe import LOCALIZER as RECIPE
from deepres.models.registry import LOCALIZER
from deepres.paper.plan import Plan, Scale, carry_out
from deepres.paper.samples import DataKind
from deepres.paper.sheet import Experiment, Reproduction
from deepres.records import Run
from deepres.runtime.errors import InputError, silent
from deepres.runtime.ranks import ALONE
from deepres.training.config import Config
from deepres.weights.start import take
from deepres.workflows import evaluate_localizer
from deepres.workflows.configure import configure_kind

MEMBERS = 2  # of an ensemble, which the paper does not tell; they differ in the seed
# The paper's scale tests on some pictures while it trains, and on all at the end. The short runs begin on weights of a
# short run, whose batch normalization is trained on.
SHORT: dict[str, Any] = {"freeze": (), "lr": RANDOM_RATE}
FIELDS: dict[Scale, dict[str, Any]] = {
    "smoke": SHORT | {"iterations": 4, "crop": 48, "channels": 16, "batch_size": 4, "regions": 4, "workers": 0},
    "quick": SHORT | {"iterations": 600, "crop": 112, "batch_size": 16, "regions": 20, "test_images": 50},
    "paper": {"test_images": 500},
}
PROPOSALS: dict[Scale, int] = {"smoke": 4, "quick": 20, "paper": 200}


@dataclass(frozen=True)
class Step:
    """A test: the views, whether an R-CNN stage follows the RPN, and whether it is of an ensemble."""

    label: str
    dense: bool = True
    rcnn: bool = False
    ensemble: bool = False


ONE_CROP = Step("RPN, 1-crop", dense=False)
DENSE = Step("RPN, dense")
RCNN = Step("RPN+RCNN, dense", rcnn=True)
ENSEMBLE = Step("RPN+RCNN, dense, ensemble", rcnn=True, ensemble=True)


@dataclass(frozen=True, kw_only=True)
class Localizers(Experiment):
    """A sheet of localizers on one backbone: a classifier, an RPN and an R-CNN stage that begin on its weights."""

    kind: ClassVar[DataKind | None] = "objects"
    takes: ClassVar[str] = "pictures with objects of one class each; give --data DIR, with boxes as PASCAL VOC has them"

    steps: tuple[Step, ...]

    def named(self, asked: tuple[str, ...]) -> tuple[tuple[str, ...], Mapping[str, str]]:
        """The localizer on the backbone, which is named or given as the weights of a classifier, and their place."""
        if len(asked) != 1:
            raise InputError(f"{self.name} takes one backbone, not {len(asked)}; give --networks NAME, or its weights")
        [name] = asked
        if not is_place(name):
            return (LOCALIZER + name.removeprefix(LOCALIZER),), {}
        net = take(Path(name), silent).net
        if "localizer" in net.header or "detector" in net.header:
            raise InputError(f"{name} is no classifier, whose weights {self.name} begins with; give one")
        return (LOCALIZER + net.name,), {LOCALIZER + net.name: str(Path(name).resolve())}

    def count(self, scale: Scale) -> int:
        """An RPN and an R-CNN stage of each member; their classifier, too, where its weights need not be given."""
        members = MEMBERS if any(step.ensemble for step in self.steps) else 1
        return members * self.seeds_at(scale) * (2 if scale == "paper" else 3)

    def runs(self, plan: Plan) -> Mapping[str, Sequence[Run]]:
        """The runs of all members: of the classifier, unless its weights are given, of the RPN and of its stage."""
        seeds = self._seeds(plan)
        every = {"classifier": [self.run(plan, "classifier", seed) for seed in seeds]} if not plan.starts else {}
        return every | {part: [self.run(plan, part, seed) for seed in seeds] for part in ("rpn", "rcnn")}

    def run(self, plan: Plan, part: str, seed: int) -> Run:
        """The run folder of a part."""
        [network] = plan.networks
        if part == "classifier":
            return plan.run(f"{network.removeprefix(LOCALIZER)}-of-one-class", seed)
        return plan.run("-".join([network, *["trained"] * bool(plan.starts), *["rcnn"] * (part == "rcnn")]), seed)

    def train(self, plan: Plan, asked: Reproduction) -> None:
        """Train the classifiers, the RPNs on their weights and the R-CNN stages on what these propose; then test."""
        self._require(plan, asked)
        [network] = plan.networks
        # All runs see the same pictures; the first configuration of a localizer tells them.
        base = LOCALIZATION.config(network, plan.data, data_path=plan.data_path)
        source = LOCALIZATION.load_source(base, asked.say, ALONE)
        classes = Parts(source.train.pictures, source.test.pictures)
        if not plan.starts:
            carry_out(plan, self._classifiers(plan, asked), classes, asked.watch, asked.log)
        for part in ("rpn", "rcnn"):
            carry_out(plan, self._localizers(plan, part, asked), source, asked.watch, asked.log)
        for seed in range(plan.seeds):
            for step in self.steps:
                self._test(plan, step, seed, source, asked)

    def tested(self, plan: Plan, step: Step) -> dict[int, LocatedTable]:
        """What was found by a test, by seed; of seeds that are not tested yet nothing."""
        files = {seed: self._file(plan, step, seed) for seed in range(plan.seeds)}
        return {seed: read_located(file) for seed, file in files.items() if file.exists()}

    def _classifiers(self, plan: Plan, asked: Reproduction) -> Iterator[tuple[Config, Run]]:
        """The classifiers of short runs: crops of Sec. 3.4, as large and for as long as those of the localizers."""
        own, crop = FIELDS[plan.scale], FIELDS[plan.scale]["crop"]
        recipe = replace(
            IMAGENET.scaled(own["iterations"]),
            crop=crop,
            sides=tuple(round(side * crop / CROP) for side in IMAGENET.sides),
            batch_size=own["batch_size"],
            lr=RANDOM_RATE,
            decay="linear",
            bn_average=0,
        )
        for seed in self._seeds(plan):
            run = self.run(plan, "classifier", seed)
            network = plan.networks[0].removeprefix(LOCALIZER)
            fields: dict[str, Any] = {**asked.fields, "data_path": plan.data_path, "workers": own.get("workers")}
            yield ClassificationConfig(network, plan.data, seed=seed, recipe=recipe, **fields), run

    def _localizers(self, plan: Plan, part: str, asked: Reproduction) -> Iterator[tuple[Config, Run]]:
        """The RPNs or the R-CNN stages, as `deepres train localizer` makes them."""
        recipe = RECIPE.name if plan.scale == "paper" else None
        for seed in self._seeds(plan):
            backbone = plan.starts.get(plan.networks[0]) or str(self.run(plan, "classifier", seed).path)
            changes = {**asked.fields, **FIELDS[plan.scale], "data": plan.data, "seed": seed, "backbone": backbone}
            if part == "rcnn":
                changes["rpn"] = str(self.run(plan, "rpn", seed).path)
            yield configure_kind(LOCALIZATION, [], recipe, changes), self.run(plan, part, seed)

    def _seeds(self, plan: Plan) -> list[int]:
        """The seeds of all members, an ensemble's as well."""
        count = MEMBERS if any(step.ensemble for step in self.steps) else 1
        return [seed + plan.seeds * member for member in range(count) for seed in range(plan.seeds)]

    def _test(self, plan: Plan, step: Step, seed: int, source: BoxParts, asked: Reproduction) -> None:
        """Keep what a test finds; the run folders keep it, too, so that the same weights are not tested again."""
        members = [seed + plan.seeds * member for member in range(MEMBERS if step.ensemble else 1)]
        parts = ["rpn", *["rcnn"] * step.rcnn, *["classifier"] * (not plan.starts)]
        paths = [self.run(plan, part, own).path for part in parts for own in members]
        paths += [Path(place) for place in plan.starts.values()]
        views = Views("dense") if step.dense else Views("center")
        execution = Execution(**{name: asked.fields[name] for name in ("device", "precision") if name in asked.fields})
        setting = evaluate_localizer.Setting(
            protocol=Protocol(views, proposals=PROPOSALS[plan.scale]),
            skip_bad=asked.fields.get("skip_bad", False),
            execution=execution,
        )
        with asked.watch(f"{step.label}, seed {seed}", len(source.test), 1, ()) as told:
            told.step(0, {})
            table = evaluate_localizer.evaluate(paths, setting, silent, lambda done, _: told.step(done, {}))
        write_located(self._file(plan, step, seed), table)

    def _file(self, plan: Plan, step: Step, seed: int) -> Path:
        return plan.folder / f"located-{step.label.replace(', ', '-').replace('+', '-')}-seed{seed}.json"

    def _require(self, plan: Plan, asked: Reproduction) -> None:
        """Raise `InputError` for options of classifiers, and where the paper's scale lacks trained weights."""
        for name in ("split", "image_size"):
            if name in asked.fields:
                raise InputError(f"--{name.replace('_', '-')} is for classifiers, and {self.name} trains localizers")
        if plan.scale == "paper" and not plan.starts:
            raise InputError(
                f"{self.name} at the paper's scale starts from weights that were trained on ImageNet; give them, as in "
                "--networks resnet101.pth"
            )
