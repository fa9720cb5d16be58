"""Table 1, the CIFAR networks and a comparison of all networks, computed from them, beside the paper's figures."""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from deepres.analysis.cost import Stage, stages
from deepres.findings import Table
from deepres.models.catalog import build, depth, entry, family, input_size, names
from deepres.models.network import Network
from deepres.models.registry import Family
from deepres.records import Json
from deepres.runtime.errors import InputError, Say, few
from deepres.weights.find import find
from deepres.weights.load import load_network

if TYPE_CHECKING:
    from deepres.models.detection.detector import Detector
    from deepres.models.localization.localizer import Localizer

# Multiply-adds in 1e9, as Table 1 prints them.
TABLE1 = {"resnet18": 1.8, "resnet34": 3.6, "resnet50": 3.8, "resnet101": 7.6, "resnet152": 11.3}
IMAGENET_OTHERS = ("plain18", "plain34", "resnet18-a", "resnet34-a", "resnet34-c")
# Sec. 4.2, parameters in millions as Table 6 prints them; a plain net has those of its residual twin.
CIFAR = {20: 0.27, 32: 0.46, 44: 0.66, 56: 0.85, 110: 1.7, 1202: 19.4}
# Sec. 3.3: VGG-16's 15.3e9 is that of its convolutions alone, VGG-19's 19.6e9 has its fully connected layers, too.
IN_THE_TEXT = {"plain34": 3.6, "vgg16": 15.3, "vgg19": 19.6}


def of(network: str, say: Say) -> tuple[Table, ...]:
    """The stages of the network of a name, or of trained weights at a place, behind what these tell of themselves.

    Raises `InputError` for a name that is no network, where there is no such place either, and as `weights.load` does.
    """
    try:
        entry(network)
    except InputError:
        if not network.startswith("hf:") and not Path(network).exists() and not Path(network).suffix:
            raise
    else:
        return (stage_table(on_meta(network)),)
    net = load_network(find(Path(network), say), None, say)
    return facts_table(net), stage_table(net.to("meta"))


def stage_table(net: Network) -> Table:
    """The stages of one network: output size, blocks, parameters, multiply-adds, weighted layers.

    Those of a detector are for one image at the size of its test, with as many regions as it has there, those of a
    localizer for one class; their layers that stand side by side make no way longer, so the weighted layers are left
    out. `net` may be on "meta".
    """
    columns = ("stage", "output", "blocks", "parameters", "multiply-adds", "weighted layers")
    seen, rows = f"Input {net.header['in_channels']}x{'x'.join(map(str, _image_size(net)))}.", _cost(net)
    if "detector" in net.header:
        plan = cast("Detector", net).plan
        seen = f"{seen[:-1]}, {plan.proposals} regions, behind whose pooling the outputs are those of one region."
    if "localizer" in net.header:
        seen = f"{seen[:-1]}, one of {net.header['num_classes']:,} classes asked for."
    if {"detector", "localizer"} & net.header.keys():
        columns = columns[:-1]
    cells = (
        (row.name, row.output_size, row.blocks or None, row.parameters, row.multiply_adds, row.weighted_layers)
        for row in rows
    )
    return Table(
        entry(net.name).label,
        f"{seen} Multiply-adds of convolutions and the fully connected layers, for one image.",
        columns,
        tuple(row[: len(columns)] for row in cells),
    )


def facts_table(net: Network) -> Table:
    """What the header of trained weights tells, field by field; of long lists the first values."""
    mean = None if net.mean is None else [f"{value:.4f}" for value in net.mean.mean((1, 2)).tolist()]
    rows = [(name, _shown(value)) for name, value in _flat(net.header | {"mean": mean})]
    return Table(f"Weights of {net.name}", "", ("field", "value"), tuple(rows))


def _flat(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The fields of nested mappings, with the names on the way."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{inner}", part) for inner, part in _flat(cast("Mapping[str, Any]", value)))
        else:
            yield name, value


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return few(map(str, cast("list[Any]", value)))
    return "not known" if value is None else str(value)


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


def on_meta(network: str) -> Network:
    """The network without weights: nothing is drawn or computed."""
    with torch.device("meta"):
        return build(network)


@cache
def _stages(network: str) -> list[Stage]:
    return _cost(on_meta(network))


def _image_size(net: Network) -> tuple[int, int]:
    """Height and width of the images that the network is laid out for; of a detector, the largest of its test."""
    if "detector" in net.header:
        plan = cast("Detector", net).plan
        return min(plan.side, plan.longest), plan.longest
    if "localizer" in net.header:
        crop = cast("Localizer", net).plan.crop
        return crop, crop
    return input_size(net.name), input_size(net.name)


def _cost(net: Network) -> list[Stage]:
    """The cost of each stage, for one image; a detector scores as many regions as it has proposals.

    A localizer is asked for one class.
    """
    if "localizer" in net.header:
        return stages(net, _image_size(net), lambda image: net(image, image.new_zeros(1, 1, dtype=torch.int64)))
    if "detector" not in net.header:
        return stages(net, _image_size(net))
    found = cast("Detector", net)

    def run(image: Tensor) -> None:
        regions = image.new_tensor([[0, 0, image.shape[3], image.shape[2]]]).expand(found.plan.proposals, 4)

        def all_of(logits: Tensor, deltas: Tensor, anchors: Tensor) -> list[Tensor]:
            return [regions]

        found(image, choose=all_of)

    return stages(net, _image_size(net), run)


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
