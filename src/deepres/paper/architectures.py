"""Table 1, the CIFAR networks and a comparison of all networks, computed from them, beside the paper's figures."""

from functools import cache

import torch

from deepres.analysis.cost import Stage, stages
from deepres.findings import Table, describe
from deepres.models.catalog import build, depth, entry, family, input_size, names
from deepres.models.registry import Family
from deepres.records import Json

# Multiply-adds in 1e9, as Table 1 prints them.
TABLE1 = {"resnet18": 1.8, "resnet34": 3.6, "resnet50": 3.8, "resnet101": 7.6, "resnet152": 11.3}
IMAGENET_OTHERS = ("plain18", "plain34", "resnet18-a", "resnet34-a", "resnet34-c")
# Sec. 4.2, parameters in millions as Table 6 prints them; a plain net has those of its residual twin.
CIFAR = {20: 0.27, 32: 0.46, 44: 0.66, 56: 0.85, 110: 1.7, 1202: 19.4}
# Sec. 3.3: VGG-16's 15.3e9 is that of its convolutions alone, VGG-19's 19.6e9 has its fully connected layers, too.
IN_THE_TEXT = {"plain34": 3.6, "vgg16": 15.3, "vgg19": 19.6}


def stage_table(network: str) -> Table:
    """The stages of one network: output size, blocks, parameters, multiply-adds, weighted layers."""
    size = input_size(network)
    rows = [
        (row.name, row.output_size, row.blocks or None, row.parameters, row.multiply_adds, row.weighted_layers)
        for row in _stages(network)
    ]
    return Table(
        describe(network)[0],
        f"Input 3x{size}x{size}. Multiply-adds of convolutions and the fully connected layers, for one image.",
        ("stage", "output", "blocks", "parameters", "multiply-adds", "weighted layers"),
        tuple(rows),
    )


def overview() -> tuple[Table, ...]:
    """Every network of the catalog: Table 1, the other ImageNet networks, the CIFAR table."""
    # The networks of each table, with the figures that the paper prints.
    imagenet = [*TABLE1, *IMAGENET_OTHERS, *(name for name in names() if name.endswith("-32px"))]
    cifar = {f"{kind}{layers}": millions for layers, millions in CIFAR.items() for kind in ("plain", "resnet")}
    del cifar["plain1202"]
    others = [name for name in names() if entry(name).kind == "highway"]
    columns = ("network", "layers", "blocks", "parameters", "multiply-adds", "paper")
    return (
        Table(
            "Table 1: ImageNet networks",
            "224x224 pixels (-32px: 32x32). Option B shortcuts; stride 2 of a bottleneck on its first 1x1. The paper's "
            "figures are 1e9 multiply-adds with one decimal: 3.66 and 3.86 are cut there, 7.57 and 11.28 rounded.",
            columns,
            tuple((*_facts(name), TABLE1.get(name)) for name in imagenet),
        ),
        Table(
            "Sec. 4.2: CIFAR networks",
            "32x32 pixels. 6n+2 weighted layers, option A shortcuts: a plain network has as many parameters as its "
            "residual twin. The paper's figures are 1e6 parameters.",
            columns,
            tuple((*_facts(name), cifar.get(name)) for name in (*cifar, *others)),
        ),
    )


def comparison() -> tuple[Table, ...]:
    """The cost of every network of the catalog for one image, the cheapest first."""
    columns = ("network", "layers", "parameters", "multiply-adds", "activations")
    printed = TABLE1 | IN_THE_TEXT
    imagenet = _costs("imagenet")
    multiply_adds = {row[0]: row[3] for row in imagenet}
    share = 100 * multiply_adds["plain34"] / multiply_adds["vgg19"]
    return (
        Table(
            "Networks for ImageNet, 224x224",
            "Activations are the values that convolutions and fully connected layers give. GoogLeNet without its "
            "auxiliary classifiers, which work in training alone. The paper's figures are 1e9 multiply-adds; plain34 "
            f"has {share:.1f} % of VGG-19's, which it prints as 18 %.",
            (*columns, "paper"),
            tuple((*row, printed.get(row[0])) for row in imagenet),
        ),
        Table("Networks for 32x32 images", "", columns, tuple(_costs("cifar"))),
    )


def as_json(table: Table) -> Json:
    """A table as plain values; each row is a mapping from column to cell."""
    return {"title": table.title, "rows": [dict(zip(table.columns, row, strict=True)) for row in table.rows]}


@cache
def _stages(network: str) -> list[Stage]:
    with torch.device("meta"):  # shapes only: no weights are drawn, nothing is computed
        net = build(network)
    return stages(net, input_size(network))


def _facts(network: str) -> tuple[str, int, str, int, int]:
    """Name, layers, blocks per stage, parameters and multiply-adds of a network."""
    rows = _stages(network)
    blocks = "-".join(str(row.blocks) for row in rows if row.blocks and row.name != "total")
    return network, depth(network), blocks, rows[-1].parameters, rows[-1].multiply_adds


def _costs(kind: Family) -> list[tuple[str, int, int, int, int]]:
    """Name, layers, parameters, multiply-adds and activations of the networks of a family, the cheapest first."""
    totals = {name: _stages(name)[-1] for name in names() if family(name) == kind}
    rows = ((name, depth(name), own.parameters, own.multiply_adds, own.activations) for name, own in totals.items())
    return sorted(rows, key=lambda row: row[3])
