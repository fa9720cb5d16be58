"""Networks by name: resnet20, plain56, resnet34-c, resnet18-32px, highway19, vgg16.

resnet18 34 50 101 152     Table 1, shortcut option B; -a, -b, -c choose the option; -32px the small stem, and
                           -32px-pool the max pool behind it, which weights of others have
plain18 plain34            the same without shortcuts; -32px, too
resnet20 ... plain56 ...   Sec. 4.2, any depth 6n+2 that is not in Table 1; option A, or -b, -c
highway19 highway32 ...    gated shortcuts on the layout of Sec. 4.2
vgg16 googlenet ...        what the paper compares with (`RIVALS`)
"""

import dataclasses
import difflib
import math
import re
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from deepres.models import shortcuts
from deepres.models.blocks import Residual, Shortcut, basic, bottleneck
from deepres.models.cifar import CifarNet, highway_units
from deepres.models.classifier import give_scores_in_full
from deepres.models.imagenet import STEM_32, STEM_224, TABLE_1, ImageNetNet
from deepres.models.init import he_initialise
from deepres.models.network import Network
from deepres.runtime.errors import InputError

Kind = Literal["resnet", "plain", "highway"]
Family = Literal["imagenet", "cifar"]
INPUT_SIZE: dict[Family, int] = {"imagenet": 224, "cifar": 32}
SMALLEST_HIGHWAY = 5  # conv1, one unit a stage, fc
RIVALS = {  # weighted layers on the longest way through
    "alexnet": 8,
    "vgg16": 16,
    "vgg16-bn": 16,
    "vgg19": 19,
    "vgg19-bn": 19,
    "googlenet": 22,
    "prelu-net": 19,
}

WITHOUT_BN = ("alexnet", "vgg16", "vgg19", "prelu-net")

NAMES = (
    *(f"resnet{depth}{option}" for depth in TABLE_1 for option in ("", "-a", "-c")),
    *("plain18", "plain34"),
    *("resnet18-32px", "resnet34-32px", "resnet50-32px"),
    *(f"{kind}{depth}" for kind in ("plain", "resnet") for depth in (20, 32, 44, 56, 110)),
    *("resnet1202", "highway19", "highway32"),
    *RIVALS,
)


@dataclass(frozen=True)
class _Spec:
    """A name taken apart: `variant` is "", "a", "b", "c", "32px" or "32px-pool"."""

    name: str
    kind: Kind
    depth: int
    variant: str

    @property
    def in_table_1(self) -> bool:
        return self.kind != "highway" and self.depth in TABLE_1

    @property
    def small(self) -> bool:
        """Whether the stem is that for 32-pixel images."""
        return self.variant.startswith("32px")

    @property
    def bottlenecks(self) -> bool:
        return self.in_table_1 and TABLE_1[self.depth].residual is bottleneck

    @property
    def layers_a_stage(self) -> tuple[int, ...]:
        """3x3 layers of each stage that `residual_layers` cuts into blocks."""
        if self.in_table_1:
            return tuple(2 * blocks for blocks in TABLE_1[self.depth].blocks)
        return ((self.depth - 2) // 3,) * 3

    @property
    def shortcut(self) -> Shortcut:
        if self.kind != "resnet":
            return shortcuts.gated if self.kind == "highway" else shortcuts.none
        default = "b" if self.in_table_1 else "a"
        return shortcuts.OPTIONS.get(self.variant, shortcuts.OPTIONS[default])


def build(
    name: str,
    num_classes: int | None = None,
    in_channels: int = 3,
    *,
    stride_on: str = "1x1",
    residual_layers: int = 2,
    pool_padding: int = 1,
) -> Network:
    """Make the network `name`, with start values (He et al.; `RIVALS`: see there) from torch's global random state.

    It takes (N, in_channels, H, W) to scores (N, num_classes); `num_classes` is 1000 for the ImageNet nets
    and 10 for the nets for 32-pixel images where it is None. `stride_on` puts the stride of a bottleneck on
    its first 1x1 (the paper) or on its 3x3 (torchvision) and means nothing for other blocks.
    `residual_layers` is the number of 3x3 layers in F (Sec. 3.2); the depth stays, so that fewer layers a
    block are more blocks. `pool_padding` is 1, or 0 for the max pool of the authors' release, and means nothing for
    networks without one. The header of the network tells all of this.
    Raises `InputError` for an unknown name, or an argument that the network cannot have.
    """
    classes = {"imagenet": 1000, "cifar": 10}[family(name)] if num_classes is None else num_classes
    for what, count in (("num_classes", classes), ("in_channels", in_channels)):
        if count < 1:
            raise InputError(f"{what} of {name} must be 1 or more, not {count}")
    if stride_on not in ("1x1", "3x3"):
        raise InputError(f'stride_on of {name} must be "1x1" (the paper) or "3x3" (torchvision), not {stride_on!r}')
    if pool_padding not in (0, 1):
        raise InputError(f"pool_padding of {name} must be 1, or 0 (the authors' release), not {pool_padding!r}")
    header = {
        "network": name,
        "num_classes": classes,
        "in_channels": in_channels,
        "stride_on": stride_on,
        "residual_layers": residual_layers,
        "pool_padding": pool_padding,
    }
    if name in RIVALS:
        net = _rival(name, classes, in_channels, residual_layers, header)
        give_scores_in_full(net)
        return net
    spec = _parse(name)
    residual, blocks = _residual(spec, stride_on, residual_layers)
    if spec.in_table_1:
        row = dataclasses.replace(TABLE_1[spec.depth], residual=residual, blocks=blocks)
        stem = dataclasses.replace(STEM_32 if spec.small else STEM_224, pool_padding=pool_padding)
        if spec.variant == "32px-pool":
            stem = dataclasses.replace(stem, pool=True)
        net = ImageNetNet(row, spec.shortcut, stem, classes, in_channels)
    else:
        net = CifarNet(blocks, residual, spec.shortcut, classes, in_channels)
    net.name, net.header = name, header
    he_initialise(net)
    give_scores_in_full(net)
    return net


def names() -> tuple[str, ...]:
    """The canonical names. Other depths 6n+2 build, too, and other options: resnet34-b is resnet34."""
    return NAMES


def of_depth(layers: int) -> tuple[str, ...]:
    """Every network of that many layers, each under one name."""
    kinds: tuple[Kind, ...] = ("resnet", "plain", "highway")
    specs = [_Spec(f"{kind}{layers}", kind, layers, "") for kind in kinds]
    made = [spec.name for spec in specs if _depth_trouble(spec) is None]
    for spec in specs:
        for variant in (*shortcuts.OPTIONS, "32px"):
            other = dataclasses.replace(spec, name=f"{spec.name}-{variant}", variant=variant)
            same = other.variant != "32px" and other.shortcut is spec.shortcut
            if spec.name in made and not same and _variant_trouble(other) is None:
                made.append(other.name)
    return tuple(made)


def depth(name: str) -> int:
    """Weighted layers: convolutions and fc, without projections. Raises `InputError` as `build` does."""
    return RIVALS.get(name) or _parse(name).depth


def family(name: str) -> Family:
    """Which images the network is laid out for: "imagenet" (224x224) or "cifar" (32x32)."""
    if name in RIVALS:
        return "imagenet"
    spec = _parse(name)
    return "imagenet" if spec.in_table_1 and not spec.small else "cifar"


def input_size(name: str) -> int:
    """Pixels a side of the images that the network is laid out for: 224 or 32."""
    return INPUT_SIZE[family(name)]


def _rival(name: str, num_classes: int, in_channels: int, residual_layers: int, header: dict[str, Any]) -> Network:
    """A network of `RIVALS`."""
    from deepres.models.rivals import build_rival  # loads torchvision, which takes seconds: only here

    if residual_layers != 2:
        raise InputError(f"residual_layers cannot be chosen for {name}: it has no residual functions; leave it out")
    net = build_rival(name, num_classes, in_channels)
    net.name, net.header = name, header
    return net


def _residual(spec: _Spec, stride_on: str, layers: int) -> tuple[Residual, tuple[int, ...]]:
    """F and the number of blocks of each stage."""
    if layers != 2 and (spec.bottlenecks or spec.kind == "highway"):
        fixed = "bottlenecks of three layers" if spec.bottlenecks else "units of one layer"
        raise InputError(f"residual_layers cannot be chosen for {spec.name}: it is made of {fixed}; leave it out")
    if spec.bottlenecks:
        return partial(bottleneck, stride_on=stride_on), TABLE_1[spec.depth].blocks
    if spec.kind == "highway":
        return partial(basic, layers=1), highway_units(spec.depth)
    shared = math.gcd(*spec.layers_a_stage)
    if layers < 1 or shared % layers:
        fitting = ", ".join(str(count) for count in range(1, shared + 1) if shared % count == 0)
        raise InputError(
            f"residual_layers={layers} does not divide the 3x3 layers of each stage of {spec.name}; "
            f"use one of {fitting}"
        )
    return partial(basic, layers=layers), tuple(count // layers for count in spec.layers_a_stage)


def _parse(name: str) -> _Spec:
    """Take a name apart. Raises `InputError` where no network has it, naming what is near."""
    match = re.fullmatch(r"(resnet|plain|highway)([1-9]\d{0,3})(?:-(a|b|c|32px|32px-pool))?", name)
    if match is None:
        raise InputError(f"unknown network {name!r}; {_suggestion(name)}")
    kind, number, variant = match.groups(default="")
    layers = int(number)
    known: Kind = "resnet" if kind == "resnet" else "plain" if kind == "plain" else "highway"
    spec = _Spec(name, known, layers, variant)
    for trouble in (_depth_trouble(spec), _variant_trouble(spec)):
        if trouble is not None:
            raise InputError(f"there is no {name}: {trouble}")
    return spec


def _depth_trouble(spec: _Spec) -> str | None:
    """Why no network has this depth, or None."""
    if spec.kind == "highway":
        return f"a highway net has {SMALLEST_HIGHWAY} layers or more" if spec.depth < SMALLEST_HIGHWAY else None
    if spec.kind == "plain" and spec.bottlenecks:
        return "a plain network has no bottlenecks, and Table 1 is plain at 18 and 34 layers alone; use plain34"
    if spec.in_table_1 or (spec.depth % 6 == 2 and spec.depth >= 8):
        return None
    below = (spec.depth - 2) // 6 * 6 + 2
    nearest = " and ".join(f"{spec.kind}{layers}" for layers in (below, below + 6) if layers >= 8)
    depths = ", ".join(map(str, TABLE_1))
    return f"{spec.depth} is not 6n+2 (Sec. 4.2) nor in Table 1 ({depths}); the nearest 6n+2: {nearest}"


def _variant_trouble(spec: _Spec) -> str | None:
    """Why this network has no such variant, or None."""
    if spec.variant in shortcuts.OPTIONS and spec.kind != "resnet":
        return f"a {spec.kind} net has no choice of shortcut; use {spec.kind}{spec.depth}"
    if spec.small and not spec.in_table_1:
        return f"{spec.kind}{spec.depth} is made for 32-pixel images; use that"
    return None


def _suggestion(name: str) -> str:
    near = difflib.get_close_matches(name.lower(), NAMES, n=1)
    if near:
        return f"did you mean {near[0]}?"
    return "names are like resnet20, plain56, resnet50, resnet34-c, resnet18-32px, highway19, vgg16"
