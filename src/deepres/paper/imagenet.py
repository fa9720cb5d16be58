"""Sec. 4.1 on ImageNet, or on any folder of photographs: Figure 4 and Tables 2 to 5.

The commands are `deepres reproduce fig4|table2|table3|table4|table5 --scale quick --data DIR`. What they cost stands in
each sheet: that of the quick scale is on two slow cores without bf16, for 3,000 photographs of 128 pixels and 650 to
test, estimated from single steps. Runs are shared: table2 after fig4 trains nothing, table4 after table3 neither, and
table5 after that one network. A run of the paper's scale takes weeks on a GPU.

At every scale every row runs. On a machine with several GPUs a run of the paper's scale is trained by `torchrun ... -m
deepres -- train NET --recipe imagenet --data DIR --run runs/DIR-paper/NET-seed0`, and `reproduce` takes it as it is.
"""

from deepres.classification.views import Protocol
from deepres.paper.claims import Claim, Printed, beyond, not_higher, ordered, printed
from deepres.paper.photographs import BEST_MEMBER, Ensembles, Photographs
from deepres.paper.plan import SCALES, Scale

# Points at the quick scale: an error over the last 480 training images is known to 2 points (one standard error), the
# difference of two on the same 650 test images to about one.
TRAINING_MARGIN, TEST_MARGIN = 5.0, 1.0
PLAIN_AND_RESIDUAL = ("plain18", "plain34", "resnet18-a", "resnet34-a")
SINGLE = ("resnet34-b", "resnet34-c", "resnet50", "resnet101", "resnet152")


def _order(text: str, place: str, figure: str, *networks: str, quick: float | None = None) -> Claim:
    """The error of each network is above that of the next; at the quick scale by more than `quick` points."""
    scales: tuple[Scale, ...] = ("paper",) if quick is None else ("quick", "paper")
    apart = None if quick is None else ordered(figure, *networks, margin=quick)
    return Claim(text, place, networks, ordered(figure, *networks), scales, quick=apart)


def _orders(place: str, figure: str, claims: dict[str, tuple[str, ...]]) -> list[Claim]:
    """An order of networks for each text."""
    return [_order(text, place, figure, *networks) for text, networks in claims.items()]


def _numbers(place: str, paper: Printed) -> Claim:
    text = f"The errors are those of {place}."
    return Claim(text, place, tuple(paper), printed(paper), scales=("paper",), classes=1000)


TRAINING = (
    _order(
        "Without shortcuts, 34 layers have the higher training error than 18.",
        "Sec. 4.1, Fig. 4 left",
        "train_error",
        *("plain34", "plain18"),
        quick=TRAINING_MARGIN,
    ),
    _order(
        "With shortcuts, 34 layers have a lower training error than without.",
        "Sec. 4.1, Fig. 4",
        "train_error",
        *("plain34", "resnet34-a"),
        quick=TRAINING_MARGIN,
    ),
    _order(
        "With shortcuts, 34 layers have a lower training error than 18.",
        "Sec. 4.1, Fig. 4 right",
        "train_error",
        *("resnet18-a", "resnet34-a"),
    ),
)
DEPTH = (
    *_orders(
        "Sec. 4.1, Table 2",
        "top1",
        {
            "The deeper plain network is worse: 34 layers have the higher error than 18.": ("plain34", "plain18"),
            "The deeper residual network is better: 34 layers have the lower error than 18.": (
                "resnet18-a",
                "resnet34-a",
            ),
            "With shortcuts, 34 layers are better than without.": ("plain34", "resnet34-a"),
        },
    ),
    Claim(
        "At 18 layers, the residual network is about as accurate as the plain one (1 point allowed).",
        "Sec. 4.1, Table 2",
        ("resnet18-a", "plain18"),
        not_higher("top1", "resnet18-a", "plain18", margin=1.0),
        scales=("paper",),
    ),
)
OPTIONS = _orders(
    "Sec. 4.1, Table 3",
    "top1",
    {
        "Option A is better than the plain network.": ("plain34", "resnet34-a"),
        "B is better than A, and C than B.": ("resnet34-a", "resnet34-b", "resnet34-c"),
    },
)
DEEPER = ("resnet34-b", "resnet50", "resnet101", "resnet152")
SINGLE_MODEL = Claim(
    "ResNet-152 alone is better than all ensembles before it: its top-5 error is below 4.82 %.",
    "Sec. 4.1, Tables 4 and 5",
    ("resnet152",),
    beyond("top5", "resnet152", 4.82, below=True),
    scales=("paper",),
    classes=1000,
)


def _costs(smoke: str, quick: str) -> dict[Scale, str]:
    return {"smoke": smoke, "quick": quick, "paper": "600,000 iterations each"}


FIG4 = Photographs(
    name="fig4",
    title="Figure 4: training on ImageNet",
    costs=_costs("seconds", "15 min, 2 GiB"),
    networks=dict.fromkeys(SCALES, PLAIN_AND_RESIDUAL),
    protocol=Protocol("center"),
    claims=TRAINING + DEPTH[:2],
)
TABLE2_PRINTED: Printed = {
    "plain18": (27.94, None),
    "plain34": (28.54, None),
    "resnet18-a": (27.88, None),
    "resnet34-a": (25.03, None),
}
TABLE2 = Photographs(
    name="table2",
    title="Table 2: plain and residual networks",
    costs=_costs("seconds", "15 min, 2 GiB"),
    networks=dict.fromkeys(SCALES, PLAIN_AND_RESIDUAL),
    protocol=Protocol("10-crop"),
    claims=(*TRAINING[:2], *DEPTH, _numbers("Table 2", TABLE2_PRINTED)),
    printed=TABLE2_PRINTED,
)
TABLE3_PRINTED: Printed = {
    "vgg16": (28.07, 9.33),
    "googlenet": (None, 9.15),
    "prelu-net": (24.27, 7.38),
    "plain34": (28.54, 10.02),
    "resnet34-a": (25.03, 7.76),
    "resnet34-b": (24.52, 7.46),
    "resnet34-c": (24.19, 7.40),
    "resnet50": (22.85, 6.71),
    "resnet101": (21.75, 6.05),
    "resnet152": (21.43, 5.71),
}
TABLE3 = Photographs(
    name="table3",
    title="Table 3: errors of 10-crop testing",
    costs=_costs("half a minute", "80 min, 4 GiB"),
    networks=dict.fromkeys(SCALES, ("vgg16", "googlenet", "prelu-net", "plain34", "resnet34-a", *SINGLE)),
    protocol=Protocol("10-crop"),
    claims=(
        *OPTIONS,
        _order("50, 101 and 152 layers are each better than fewer.", "Sec. 4.1, Table 3", "top1", *DEEPER),
        _numbers("Table 3", TABLE3_PRINTED),
    ),
    printed=TABLE3_PRINTED,
)
TABLE4_PRINTED: Printed = {
    "resnet34-b": (21.84, 5.71),
    "resnet34-c": (21.53, 5.60),
    "resnet50": (20.74, 5.25),
    "resnet101": (19.87, 4.60),
    "resnet152": (19.38, 4.49),
}
TABLE4 = Photographs(
    name="table4",
    title="Table 4: errors of single models, dense testing at several scales",
    costs=_costs("half a minute", "75 min, 3 GiB"),
    networks=dict.fromkeys(SCALES, SINGLE),
    protocol=Protocol("dense"),
    claims=(
        _order("50, 101 and 152 layers are each better than fewer.", "Sec. 4.1, Table 4", "top5", *DEEPER),
        SINGLE_MODEL,
        _numbers("Table 4", TABLE4_PRINTED),
    ),
    printed=TABLE4_PRINTED,
    others={
        "VGG (ILSVRC'14), test set": (None, 8.43),
        "GoogLeNet (ILSVRC'14)": (None, 7.89),
        "VGG (v5)": (24.4, 7.1),
        "PReLU-net": (21.59, 5.71),
        "BN-inception": (21.99, 5.81),
    },
)
TABLE5_PRINTED: Printed = {"ensemble": (None, 3.57)}
# "Six models of different depth", two of 152 layers; which the other four are is not in the paper: those of Table 4.
TABLE5 = Ensembles(
    name="table5",
    title="Table 5: errors of ensembles",
    costs=_costs("half a minute", "100 min, 3 GiB"),
    networks=dict.fromkeys(SCALES, (*SINGLE, "resnet152")),
    protocol=Protocol("dense"),
    claims=(
        _order(
            "The ensemble is better than the best of its members (top-1).",
            "ours; the paper has top-5 alone",
            "top1",
            *BEST_MEMBER,
            quick=TEST_MARGIN,
        ),
        _order("The ensemble is better than the best of its members (top-5).", "Tables 4 and 5", "top5", *BEST_MEMBER),
        _numbers("Table 5", TABLE5_PRINTED),
    ),
    printed=TABLE5_PRINTED,
    others={
        "VGG (ILSVRC'14)": (None, 7.32),
        "GoogLeNet (ILSVRC'14)": (None, 6.66),
        "VGG (v5)": (None, 6.8),
        "PReLU-net": (None, 4.94),
        "BN-inception": (None, 4.82),
    },
    part="test",
)
SHEETS = (FIG4, TABLE2, TABLE3, TABLE4, TABLE5)
