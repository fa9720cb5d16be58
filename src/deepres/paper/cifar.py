"""Sec. 4.2 on CIFAR-10 (or any small images): Figures 1, 6 and 7 and Table 6.

Each sheet: the command, its cost on two slow cores without bf16 (a desktop or a GPU is many times faster), the
claims it tests, and its runs.

    deepres reproduce fig1 --scale quick --data cifar10           2 runs,   6 minutes, 1 GiB
    deepres reproduce fig6 --scale quick --data cifar10           4 runs,  13 minutes, 1 GiB
    deepres reproduce fig7 --scale quick --data cifar10           5 runs,  22 minutes, 2 GiB
    deepres reproduce table6 --scale quick --data cifar10         6 runs,  40 minutes, 2 GiB
    deepres reproduce fig6 --scale paper --data cifar10           64k iterations a run: hours to days on two cores
"""

from deepres.paper.claims import Claim, beyond, higher, not_higher
from deepres.paper.plan import Experiment

SMOKE_NETS = ("plain8", "plain14", "resnet8", "resnet14")
PLAIN = ("plain20", "plain32", "plain44", "plain56")
RESIDUAL = ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110")

FIG1 = Experiment(
    "fig1",
    "Figure 1: degradation of plain networks",
    {"smoke": ("plain8", "plain14"), "quick": ("plain20", "plain56"), "paper": ("plain20", "plain56")},
)
FIG6 = Experiment(
    "fig6",
    "Figure 6: plain and residual networks",
    {
        "smoke": SMOKE_NETS,
        "quick": ("plain20", "plain56", "resnet20", "resnet56"),
        "paper": (*PLAIN, "plain110", *RESIDUAL, "resnet1202"),
    },
)
FIG7 = Experiment(
    "fig7",
    "Figure 7: standard deviation of layer responses",
    {
        "smoke": SMOKE_NETS,
        "quick": ("plain20", "plain56", "resnet20", "resnet56", "resnet110"),
        "paper": ("plain20", "plain56", "resnet20", "resnet56", "resnet110"),
    },
)
TABLE6 = Experiment(
    "table6",
    "Table 6: classification error on CIFAR-10",
    {
        "smoke": ("resnet8", "resnet14", "highway19"),
        "quick": ("highway19", "highway32", "resnet20", "resnet32", "resnet44", "resnet56"),
        "paper": ("highway19", "highway32", *RESIDUAL, "resnet1202"),
    },
    seeds=5,  # the paper's, for 110 layers; it does not say how often the others were trained
)

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
    Claim(
        "Residual networks gain test accuracy from depth: 56 layers are better than 20.",
        "Sec. 4.2, Fig. 6 middle, Table 6",
        ("resnet20", "resnet56"),
        higher("test_error", "resnet20", "resnet56", margin=0.0),
        scales=("paper",),
    ),
    Claim(
        "110 layers are better still than 56.",
        "Sec. 4.2, Table 6",
        ("resnet56", "resnet110"),
        higher("test_error", "resnet56", "resnet110", margin=0.0),
        scales=("paper",),
    ),
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
    Claim(
        "1202 layers test worse than 110 (overfitting).",
        "Sec. 4.2, Fig. 6 right, Table 6",
        ("resnet1202", "resnet110"),
        higher("test_error", "resnet1202", "resnet110", margin=0.0),
        scales=("paper",),
    ),
)
RESPONSES = (
    Claim(
        "Residual networks have smaller responses than plain ones: 20 layers.",
        "Sec. 4.2, Fig. 7",
        ("plain20", "resnet20"),
        higher("response", "plain20", "resnet20", margin=0.0),
    ),
    Claim(
        "Residual networks have smaller responses than plain ones: 56 layers.",
        "Sec. 4.2, Fig. 7",
        ("plain56", "resnet56"),
        higher("response", "plain56", "resnet56", margin=0.0),
    ),
    Claim(
        "The deeper residual network has the smaller responses: 56 layers against 20.",
        "Sec. 4.2, Fig. 7",
        ("resnet20", "resnet56"),
        higher("response", "resnet20", "resnet56", margin=0.0),
    ),
    Claim(
        "The deeper residual network has the smaller responses: 110 layers against 56.",
        "Sec. 4.2, Fig. 7",
        ("resnet56", "resnet110"),
        higher("response", "resnet56", "resnet110", margin=0.0),
    ),
)
EXPERIMENTS = {sheet.name: sheet for sheet in (FIG1, FIG6, FIG7, TABLE6)}
CLAIMS = {
    "fig1": DEGRADATION,
    "fig6": DEGRADATION + CURE,
    "fig7": RESPONSES,
    "table6": CURE[2:4] + CURE[6:],
}

# Table 6 of the paper: name, parameters in millions, best error, mean and standard deviation over runs.
TABLE6_PAPER: dict[str, tuple[float, float, float | None, float | None]] = {
    "highway19": (2.3, 7.54, 7.72, 0.16),
    "highway32": (1.25, 8.80, None, None),
    "resnet20": (0.27, 8.75, None, None),
    "resnet32": (0.46, 7.51, None, None),
    "resnet44": (0.66, 7.17, None, None),
    "resnet56": (0.85, 6.97, None, None),
    "resnet110": (1.7, 6.43, 6.61, 0.16),
    "resnet1202": (19.4, 7.93, None, None),
}
TABLE6_OTHERS = {"Maxout": 9.38, "NIN": 8.81, "DSN": 8.22, "FitNet (19 layers, 2.5M)": 8.39}
