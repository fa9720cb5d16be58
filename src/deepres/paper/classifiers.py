"""The common part of the sheets whose networks are classifiers."""

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

from deepres.classification.recipe import ClassificationConfig, ClassificationRecipe
from deepres.classification.source import Source, load_source
from deepres.paper.plan import Plan, Scale, carry_out
from deepres.paper.samples import DataKind
from deepres.paper.sheet import Experiment, Reproduction
from deepres.records import Run

Recipes = Callable[[Scale, str], ClassificationRecipe]  # the recipe of a network at a scale

TEST_IMAGES: dict[Scale, int] = {"smoke": 100, "quick": 1_000, "paper": 0}  # of the tests before the last one; 0: all


@dataclass(frozen=True, kw_only=True)
class Classifiers(Experiment):
    """A sheet of classifiers, with the recipe of each at a scale."""

    kind: ClassVar[DataKind | None] = "photographs"
    takes: ClassVar[str] = "photographs; give --data DIR, a folder with a folder of pictures a class"

    recipes: Recipes

    def measure(self, plan: Plan, source: Source, asked: Reproduction) -> None:
        """Measure finished runs for what their records do not hold; by default nothing."""

    def train(self, plan: Plan, asked: Reproduction) -> None:
        """Train all networks on the same data, then measure."""
        recipe = self.recipes(plan.scale, plan.networks[0])
        base = ClassificationConfig("", plan.data, **asked.fields)
        base = dataclasses.replace(base, data_path=plan.data_path, recipe=recipe)
        source = load_source(base, asked.say)
        carry_out(plan, configs(plan, self.recipes, base), source, asked.watch, asked.log)
        self.measure(plan, source, asked)


def configs(plan: Plan, recipes: Recipes, base: ClassificationConfig) -> Iterable[tuple[ClassificationConfig, Run]]:
    """The plan's runs in order: every network with the first seed, then with the next."""
    for seed in range(plan.seeds):
        for name, own in plan.members(seed):
            recipe, test_images = recipes(plan.scale, name), TEST_IMAGES[plan.scale]
            config = dataclasses.replace(
                base, network=name, data=plan.data, seed=own, recipe=recipe, test_images=test_images
            )
            yield config, plan.run(name, own)
