"""Sec. 4.2 on CIFAR-10 (or any small images): Figures 1, 6 and 7 and Table 6.

The commands are `deepres reproduce fig1|fig6|fig7|table6 --scale quick --data cifar10`. What they cost stands in each
sheet: that of the quick scale is on two slow cores without bf16, and a desktop or a GPU is many times faster. A run of
the paper's scale takes hours to days on two cores.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from deepres.classification.recipe import ClassificationRecipe, paper_recipe
from deepres.classification.source import Source
from deepres.data.resident import Data
from deepres.findings import Figure, Table
from deepres.models.catalog import depth
from deepres.paper import figures
from deepres.paper.claims import Claim, beyond, higher, not_higher
from deepres.paper.classifiers import Classifiers, Recipes
from deepres.paper.evidence import Runs, final_figures, measure_responses
from deepres.paper.plan import Plan, Scale
from deepres.paper.samples import DataKind
from deepres.paper.sheet import Reproduction, Shown
from deepres.paper.tables import Table6Row, final_errors, table6

# Small batches give a slow machine enough steps; the warm-up lets 56 layers start to learn: see docs/quick-scale.md.
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


def recipe_of(scale: Scale, network: str) -> ClassificationRecipe:
    """The recipe of a scale, the same for all networks; the paper's has a warm-up from 110 layers on."""
    return {"smoke": SMOKE, "quick": QUICK, "paper": paper_recipe(depth(network))}[scale]


# Table 6 of the paper: name, parameters in millions, best error, mean and standard deviation over runs.
PRINTED: dict[str, Table6Row] = {
    "highway19": (2.3, 7.54, 7.72, 0.16),
    "highway32": (1.25, 8.80, None, None),
    "resnet20": (0.27, 8.75, None, None),
    "resnet32": (0.46, 7.51, None, None),
    "resnet44": (0.66, 7.17, None, None),
    "resnet56": (0.85, 6.97, None, None),
    "resnet110": (1.7, 6.43, 6.61, 0.16),
    "resnet1202": (19.4, 7.93, None, None),
}
OTHERS = {"Maxout": 9.38, "NIN": 8.81, "DSN": 8.22, "FitNet (19 layers, 2.5M)": 8.39}
FINAL_ERRORS = partial(final_errors, printed=PRINTED)


@dataclass(frozen=True, kw_only=True)
class SmallImages(Classifiers):
    """A sheet of Sec. 4.2: errors of networks on whole images, as a table and, if it has one, as a figure."""

    kind: ClassVar[DataKind | None] = "images"

    recipes: Recipes = recipe_of
    data: str = "cifar10"
    figure: Callable[[Runs], Figure] | None = None
    table: Callable[[Runs], Table] = FINAL_ERRORS

    def show(self, plan: Plan) -> Shown:
        """Results, figure and table from the records of the runs."""
        runs = plan.runs()
        results = {network: final_figures(its_runs) for network, its_runs in runs.items()}
        return Shown(results, (self.figure(runs),) if self.figure else (), (self.table(runs),))


class LayerResponses(SmallImages):
    """Fig. 7: the layer responses of finished runs to test images."""

    def measure(self, plan: Plan, source: Source, asked: Reproduction) -> None:
        """Measure the layer responses of finished runs."""
        assert isinstance(source, Data)  # recipes of whole images have them in memory
        measure_responses(plan, source, asked.say)


DEGRADATION = (
    Claim(
        "The deeper plain network has the higher training error.",
        "Sec. 1 and 4.2, Fig. 1 left and Fig. 6 left",
        ("plain56", "plain20"),
        higher("train_error", "plain56", "plain20", margin=1.0),
    ),
    Claim(
        "It has the higher test error, too.",
        "Sec. 1, Fig. 1 right",
        ("plain56", "plain20"),
        higher("test_error", "plain56", "plain20", margin=1.0),
    ),
)
TEST_ERRORS = tuple(
    Claim(text, place, pair, higher("test_error", *pair, margin=0.0), scales=("paper",))
    for text, place, pair in (
        (
            "Residual networks gain test accuracy from depth: 56 layers are better than 20.",
            "Sec. 4.2, Fig. 6 middle, Table 6",
            ("resnet20", "resnet56"),
        ),
        ("110 layers are better still than 56.", "Sec. 4.2, Table 6", ("resnet56", "resnet110")),
        (
            "1202 layers test worse than 110 (overfitting).",
            "Sec. 4.2, Fig. 6 right, Table 6",
            ("resnet1202", "resnet110"),
        ),
    )
)
CURE = (
    Claim(
        "With shortcuts, 56 layers train far better than without.",
        "Sec. 4.2, Fig. 6 left and middle",
        ("plain56", "resnet56"),
        higher("train_error", "plain56", "resnet56", margin=5.0),
    ),
    Claim(
        "The residual networks overcome the degradation: 56 layers train no worse than 20 (5 points allowed).",
        "Sec. 4.2, Fig. 6 middle",
        ("resnet56", "resnet20"),
        not_higher("train_error", "resnet56", "resnet20", margin=5.0),
    ),
    *TEST_ERRORS[:2],
    Claim(
        "A plain network of 110 layers stays above 60 % error.",
        "Fig. 6, caption",
        ("plain110",),
        beyond("train_error", "plain110", 60.0, below=False),
        scales=("paper",),
    ),
    Claim(
        "1202 layers train without difficulty: training error below 0.1 %.",
        "Sec. 4.2, Fig. 6 right",
        ("resnet1202",),
        beyond("train_error", "resnet1202", 0.1, below=True),
        scales=("paper",),
    ),
    TEST_ERRORS[2],
)
RESPONSES = tuple(
    Claim(text, "Sec. 4.2, Fig. 7", pair, higher("response", *pair, margin=0.0))
    for text, pair in {
        "Residual networks have smaller responses than plain ones: 20 layers.": ("plain20", "resnet20"),
        "Residual networks have smaller responses than plain ones: 56 layers.": ("plain56", "resnet56"),
        "The deeper residual network has the smaller responses: 56 layers against 20.": ("resnet20", "resnet56"),
        "The deeper residual network has the smaller responses: 110 layers against 56.": ("resnet56", "resnet110"),
    }.items()
)

COSTS: dict[Scale, str] = {"smoke": "seconds", "paper": "64,000 iterations each"}
SMOKE_NETS = ("plain8", "plain14", "resnet8", "resnet14")
PLAIN = ("plain20", "plain32", "plain44", "plain56")
RESIDUAL = ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110")
FOUR = ("plain20", "plain56", "resnet20", "resnet56")

FIG1 = SmallImages(
    name="fig1",
    title="Figure 1: degradation of plain networks",
    costs={**COSTS, "quick": "6 min, 1 GiB"},
    networks={"smoke": ("plain8", "plain14"), "quick": ("plain20", "plain56"), "paper": ("plain20", "plain56")},
    claims=DEGRADATION,
    figure=figures.degradation,
)
FIG6 = SmallImages(
    name="fig6",
    title="Figure 6: plain and residual networks",
    costs={**COSTS, "quick": "13 min, 1 GiB"},
    networks={"smoke": SMOKE_NETS, "quick": FOUR, "paper": (*PLAIN, "plain110", *RESIDUAL, "resnet1202")},
    claims=DEGRADATION + CURE,
    figure=figures.small_images,
)
FIG7 = LayerResponses(
    name="fig7",
    title="Figure 7: standard deviation of layer responses",
    costs={**COSTS, "quick": "22 min, 2 GiB"},
    networks={"smoke": SMOKE_NETS, "quick": (*FOUR, "resnet110"), "paper": (*FOUR, "resnet110")},
    claims=RESPONSES,
    figure=figures.responses,
)
TABLE6 = SmallImages(
    name="table6",
    title="Table 6: classification error on CIFAR-10",
    costs={**COSTS, "quick": "40 min, 2 GiB"},
    networks={
        "smoke": ("resnet8", "resnet14", "highway19"),
        "quick": ("highway19", "highway32", "resnet20", "resnet32", "resnet44", "resnet56"),
        "paper": ("highway19", "highway32", *RESIDUAL, "resnet1202"),
    },
    seeds=5,  # the paper's, for 110 layers; it does not say how often the others were trained
    claims=TEST_ERRORS,
    table=partial(table6, printed=PRINTED, others=OTHERS),
)
SHEETS = (FIG1, FIG6, FIG7, TABLE6)
