"""The common part of the sheets of photographs: recipes with crops, and tests of networks by a protocol."""

import dataclasses
from dataclasses import dataclass

from deepres.classification.recipe import IMAGENET, ClassificationRecipe, rate_for
from deepres.classification.source import Source
from deepres.classification.views import Protocol
from deepres.findings import describe
from deepres.paper import figures
from deepres.paper.claims import Printed
from deepres.paper.classifiers import Classifiers, Recipes
from deepres.paper.evidence import Evaluated, measure_scores
from deepres.paper.plan import Plan, Scale
from deepres.paper.sheet import Reproduction, Shown
from deepres.paper.tables import errors_beside_the_papers, every_run

# The paper's recipe for crops of 64 pixels, with shorter sides in proportion. For 16 images a step, the rate lies
# between the one in proportion to the batch and the one to its root. Drops are fixed, since a plateau takes longer to
# find: see docs/quick-scale.md.
QUICK = dataclasses.replace(
    IMAGENET,
    name="imagenet-quick",
    iterations=300,
    batch_size=16,
    lr=0.02,
    decay="steps",
    milestones=(180, 255),
    warmup="linear",
    warmup_iterations=60,
    crop=64,
    sides=(73, 137),
    bn_average=1_000,
    window=30,
    evaluate_every=100,
)
SMOKE = dataclasses.replace(
    QUICK.scaled(4), name="imagenet-smoke", batch_size=8, crop=32, sides=(37, 69), bn_average=16
)


def recipe_of(scale: Scale, network: str) -> ClassificationRecipe:
    """The recipe of a scale, with the learning rate of `rate_for` for a network."""
    return rate_for(network, {"smoke": SMOKE, "quick": QUICK, "paper": IMAGENET}[scale])


@dataclass(frozen=True, kw_only=True)
class Photographs(Classifiers):
    """A sheet of Sec. 4.1: top-1 and top-5 errors of trained networks by a test protocol.

    `printed` holds the paper's errors in % by network, on the `part` of ImageNet; a figure has none. `others` are the
    errors of other methods, by their own tests.
    """

    recipes: Recipes = recipe_of
    protocol: Protocol
    printed: Printed | None = None
    others: Printed | None = None
    part: str = "validation"

    def measure(self, plan: Plan, source: Source, asked: Reproduction) -> None:
        """Score the test images by every finished run."""
        measure_scores(plan, self.protocol, len(source.test), asked)

    def evaluated(self, plan: Plan) -> Evaluated:
        """The errors of the runs that are tested."""
        return Evaluated(plan, self.protocol)

    def labels(self, tested: Evaluated) -> dict[str, tuple[str, int]]:
        """The rows of the paper's table: label and layers of each network."""
        return {network: describe(network)[:2] for network in tested.runs}

    def show(self, plan: Plan) -> Shown:
        """Results by the protocol, the curves of Fig. 4, the paper's table where it is one, and every run."""
        tested = self.evaluated(plan)
        shown = (every_run(tested),)
        if self.printed is not None:
            labels, others = self.labels(tested), self.others or {}
            shown = (errors_beside_the_papers(self.title, tested, labels, self.printed, others, self.part), *shown)
        return Shown(tested.results(), (figures.photographs(tested.runs),), shown)


BEST_MEMBER = ("best member", "ensemble")


class Ensembles(Photographs):
    """A sheet with the ensemble of all networks of a plan, beside the best of them."""

    def evaluated(self, plan: Plan) -> Evaluated:
        """The errors of the runs, of the best of them, and of their ensemble."""
        tested = super().evaluated(plan)
        tested.networks |= dict(zip(BEST_MEMBER, tested.ensembles(), strict=True))
        return tested

    def labels(self, tested: Evaluated) -> dict[str, tuple[str, int]]:
        """The best member, and the ensemble with the number of its members; neither has a number of layers."""
        best, ensemble = BEST_MEMBER
        return {best: (best, 0), ensemble: (f"ensemble of {len(tested.plan.networks)}", 0)}
