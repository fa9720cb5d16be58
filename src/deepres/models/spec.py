"""Networks made of blocks, by what their names say: resnet34-c is of 34 layers with shortcuts of option C."""

import dataclasses
import math
import re
from dataclasses import dataclass
from functools import partial

from deepres.models import shortcuts
from deepres.models.blocks import Residual, Shortcut, basic, bottleneck
from deepres.models.cifar import CifarNet, highway_units
from deepres.models.imagenet import STEM_32, STEM_224, TABLE_1, ImageNetNet
from deepres.models.init import he_initialise
from deepres.models.network import Network
from deepres.models.registry import SERIES, Entry
from deepres.runtime.errors import InputError

WORDS = ("resnet", "plain", "highway")
SMALLEST_HIGHWAY = 5  # conv1, one unit a stage, fc
NAMES = (  # those that are listed
    *(f"resnet{depth}{option}" for depth in TABLE_1 for option in ("", "-a", "-c")),
    *("plain18", "plain34"),
    *("resnet18-32px", "resnet34-32px", "resnet50-32px"),
    *(f"{word}{depth}" for word in ("plain", "resnet") for depth in (20, 32, 44, 56, 110)),
    *("resnet1202", "highway19", "highway32"),
)


@dataclass(frozen=True)
class Spec:
    """A name taken apart: `word` is one of `WORDS`, `variant` is "", "a", "b", "c", "32px" or "32px-pool"."""

    word: str
    depth: int
    variant: str = ""

    @property
    def name(self) -> str:
        """As it is built."""
        return f"{self.word}{self.depth}" + (f"-{self.variant}" if self.variant else "")

    @property
    def in_table_1(self) -> bool:
        """Whether it is laid out as Table 1, and not as the networks of Sec. 4.2."""
        return self.word != "highway" and self.depth in TABLE_1

    @property
    def small(self) -> bool:
        """Whether the stem is that for 32-pixel images."""
        return self.variant.startswith("32px")

    @property
    def bottlenecks(self) -> bool:
        """Whether F is that of Fig. 5 right."""
        return self.in_table_1 and TABLE_1[self.depth].residual is bottleneck

    @property
    def layers_a_stage(self) -> tuple[int, ...]:
        """3x3 layers of each stage that `residual_layers` cuts into blocks."""
        if self.in_table_1:
            return tuple(2 * blocks for blocks in TABLE_1[self.depth].blocks)
        return ((self.depth - 2) // 3,) * 3

    @property
    def shortcut(self) -> Shortcut:
        """The kind of shortcut that the name stands for."""
        if self.word != "resnet":
            return shortcuts.gated if self.word == "highway" else shortcuts.none
        default = "b" if self.in_table_1 else "a"
        return shortcuts.OPTIONS.get(self.variant, shortcuts.OPTIONS[default])

    @property
    def trouble(self) -> str | None:
        """Why there is no such network, or None."""
        return _depth_trouble(self) or _variant_trouble(self)

    @property
    def entry(self) -> Entry:
        """What is known of the network; `make` takes the arguments of structure that `catalog.build` takes."""
        series = SERIES[self.word]
        label = series.label_of(str(self.depth), self.variant)
        family = "imagenet" if self.in_table_1 and not self.small else "cifar"
        return Entry(self.depth, label, partial(_make, self), series.kind, family)


def parse(name: str) -> Spec | None:
    """Take a name apart; None where it has another form. Raises `InputError` where no network has such a name."""
    match = re.fullmatch(rf"({'|'.join(WORDS)})([1-9]\d{{0,3}})(?:-(a|b|c|32px|32px-pool))?", name)
    if match is None:
        return None
    spec = Spec(match[1], int(match[2]), match[3] or "")
    if spec.trouble is not None:
        raise InputError(f"there is no {name}: {spec.trouble}")
    return spec


def of_depth(layers: int) -> tuple[str, ...]:
    """Every network made of blocks of that many layers, each under one name."""
    whole = [spec for spec in (Spec(word, layers) for word in WORDS) if spec.trouble is None]
    variants = [
        other
        for spec in whole
        for variant in (*shortcuts.OPTIONS, "32px")
        if (other := dataclasses.replace(spec, variant=variant)).trouble is None
        and (other.small or other.shortcut is not spec.shortcut)
    ]
    return tuple(spec.name for spec in (*whole, *variants))


def _make(
    spec: Spec, num_classes: int, in_channels: int, *, stride_on: str, residual_layers: int, pool_padding: int
) -> Network:
    """The network with its start values (He et al.), from torch's global random state."""
    residual, blocks = _residual(spec, stride_on, residual_layers)
    if spec.in_table_1:
        row = dataclasses.replace(TABLE_1[spec.depth], residual=residual, blocks=blocks)
        stem = dataclasses.replace(STEM_32 if spec.small else STEM_224, pool_padding=pool_padding)
        if spec.variant == "32px-pool":
            stem = dataclasses.replace(stem, pool=True)
        net = ImageNetNet(row, spec.shortcut, stem, num_classes, in_channels)
    else:
        net = CifarNet(blocks, residual, spec.shortcut, num_classes, in_channels)
    he_initialise(net)
    return net


def _residual(spec: Spec, stride_on: str, layers: int) -> tuple[Residual, tuple[int, ...]]:
    """F and the number of blocks of each stage."""
    if layers != 2 and (spec.bottlenecks or spec.word == "highway"):
        fixed = "bottlenecks of three layers" if spec.bottlenecks else "units of one layer"
        raise InputError(f"residual_layers cannot be chosen for {spec.name}: it is made of {fixed}; leave it out")
    if spec.bottlenecks:
        return partial(bottleneck, stride_on=stride_on), TABLE_1[spec.depth].blocks
    if spec.word == "highway":
        return partial(basic, layers=1), highway_units(spec.depth)
    shared = math.gcd(*spec.layers_a_stage)
    if layers < 1 or shared % layers:
        fitting = ", ".join(str(count) for count in range(1, shared + 1) if shared % count == 0)
        raise InputError(
            f"residual_layers={layers} does not divide the 3x3 layers of each stage of {spec.name}; "
            f"use one of {fitting}"
        )
    return partial(basic, layers=layers), tuple(count // layers for count in spec.layers_a_stage)


def _depth_trouble(spec: Spec) -> str | None:
    """Why no network has this depth, or None."""
    if spec.word == "highway":
        return f"a highway net has {SMALLEST_HIGHWAY} layers or more" if spec.depth < SMALLEST_HIGHWAY else None
    if spec.word == "plain" and spec.bottlenecks:
        return "a plain network has no bottlenecks, and Table 1 is plain at 18 and 34 layers alone; use plain34"
    if spec.in_table_1 or (spec.depth % 6 == 2 and spec.depth >= 8):
        return None
    below = (spec.depth - 2) // 6 * 6 + 2
    nearest = " and ".join(f"{spec.word}{layers}" for layers in (below, below + 6) if layers >= 8)
    depths = ", ".join(map(str, TABLE_1))
    return f"{spec.depth} is not 6n+2 (Sec. 4.2) nor in Table 1 ({depths}); the nearest 6n+2: {nearest}"


def _variant_trouble(spec: Spec) -> str | None:
    """Why this network has no such variant, or None."""
    if spec.variant in shortcuts.OPTIONS and spec.word != "resnet":
        return f"a {spec.word} net has no choice of shortcut; use {spec.word}{spec.depth}"
    if spec.small and not spec.in_table_1:
        return f"{spec.word}{spec.depth} is made for 32-pixel images; use that"
    return None
