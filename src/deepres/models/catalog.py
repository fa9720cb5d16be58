"""Networks by name: resnet20, plain56, resnet34-c, resnet18-32px, highway19, vgg16.

resnet18 34 50 101 152     Table 1, shortcut option B; -a, -b, -c choose the option; -32px the small stem, and
                           -32px-pool the max pool behind it, which weights of others have
plain18 plain34            the same without shortcuts; -32px, too
resnet20 ... plain56 ...   Sec. 4.2, any depth 6n+2 that is not in Table 1; option A, or -b, -c
highway19 highway32 ...    gated shortcuts on the layout of Sec. 4.2
vgg16 googlenet ...        what the paper compares with: the rows of `registry.NETWORKS`
faster-rcnn-resnet50 ...   a detector on any of these (Appendix A)
mnc-resnet50 ...           a detector that gives masks, too: Multi-task Network Cascades
localizer-resnet50 ...     a localizer on any of these (Appendix C)

For a new network, add a row there.
"""

import difflib
from collections.abc import Mapping
from dataclasses import replace
from pkgutil import resolve_name
from typing import Any

from deepres.models.classifier import give_scores_in_full
from deepres.models.network import Network
from deepres.models.registry import (
    CASCADE,
    CLASSES,
    DETECTED,
    INPUT_SIZE,
    LOCALIZER,
    METHODS,
    NETWORKS,
    Entry,
    Family,
    method_of,
)
from deepres.models.spec import NAMES, parse
from deepres.runtime.errors import InputError


def build(
    name: str,
    num_classes: int | None = None,
    in_channels: int = 3,
    *,
    stride_on: str = "1x1",
    residual_layers: int = 2,
    pool_padding: int = 1,
    detector: Mapping[str, Any] | None = None,
    localizer: Mapping[str, Any] | None = None,
) -> Network:
    """Make the network `name`; its start values are drawn from torch's global random state.

    It takes (N, in_channels, H, W) to scores (N, num_classes); where `num_classes` is None it is 1000 for the ImageNet
    nets and 10 for the nets for 32-pixel images. `stride_on` puts the stride of a bottleneck on its first 1x1 (the
    paper) or on its 3x3 (torchvision); other blocks ignore it. `residual_layers` is the number of 3x3 layers in F
    (Sec. 3.2); the depth stays, so fewer layers a block are more blocks. `pool_padding` is 1, or 0 for the max pool of
    the authors' release; networks without one ignore it. `detector` and `localizer` are the fields of the plan of
    such a network. The header of the network records these arguments.
    Raises `InputError` for an unknown name, or an argument that the network cannot have; `TypeError` where the maker of
    a row of `NETWORKS` gives no `Network`.
    """
    known = entry(name)
    if method := method_of(name):
        features = build(
            name.removeprefix(method),
            in_channels=in_channels,
            stride_on=stride_on,
            residual_layers=residual_layers,
            pool_padding=pool_padding,
        )
        return _on_backbone(method, features, num_classes, (localizer if method == LOCALIZER else detector) or {})
    classes = CLASSES[known.family] if num_classes is None else num_classes
    for what, count in (("num_classes", classes), ("in_channels", in_channels)):
        if count < 1:
            raise InputError(f"{what} of {name} must be 1 or more, not {count}")
    if stride_on not in ("1x1", "3x3"):
        raise InputError(f'stride_on of {name} must be "1x1" (the paper) or "3x3" (torchvision), not {stride_on!r}')
    if pool_padding not in (0, 1):
        raise InputError(f"pool_padding of {name} must be 1, or 0 (the authors' release), not {pool_padding!r}")
    structure = {"stride_on": stride_on, "residual_layers": residual_layers, "pool_padding": pool_padding}
    header = {"network": name, "num_classes": classes, "in_channels": in_channels} | structure
    if name in NETWORKS and residual_layers != 2:
        raise InputError(f"residual_layers cannot be chosen for {name}: it has no residual functions; leave it out")
    make = resolve_name(known.make) if isinstance(known.make, str) else known.make
    net = make(classes, in_channels, **({} if name in NETWORKS else structure))
    if not isinstance(net, Network):
        raise TypeError(f"the maker of NETWORKS[{name!r}] gives a {type(net).__name__}, which is no Network")
    net.name, net.header = name, header
    give_scores_in_full(net)
    return net


def _on_backbone(method: str, features: Network, num_classes: int | None, plan: Mapping[str, Any]) -> Network:
    """A detector or a localizer on `features`. Each loads torchvision, which takes seconds."""
    if num_classes is None:
        num_classes = CLASSES["imagenet"] if method == LOCALIZER else DETECTED
    if num_classes < 1:
        raise InputError(f"num_classes of {method}{features.name} must be 1 or more, not {num_classes}")
    if method == LOCALIZER:
        from deepres.models.localization.localizer import localizer
        from deepres.models.localization.plan import LocalizerPlan

        return localizer(features, LocalizerPlan.of(plan), num_classes)
    if method == CASCADE:
        from deepres.models.segmentation.cascade import cascade
        from deepres.models.segmentation.plan import CascadePlan

        return cascade(features, CascadePlan.of(plan), num_classes)
    from deepres.models.detection.detector import detector
    from deepres.models.detection.plan import DetectorPlan

    return detector(features, DetectorPlan.of(plan), num_classes)


def names() -> tuple[str, ...]:
    """The canonical names. Other depths 6n+2 build, too, and other options: resnet34-b is resnet34."""
    return (*NAMES, *NETWORKS)


def entry(name: str) -> Entry:
    """What is known of a network without building it. Raises `InputError` for an unknown name, naming what is near."""
    if name in NETWORKS:
        return NETWORKS[name]
    if method := method_of(name):
        backbone, (label, task) = name.removeprefix(method), METHODS[method]
        if inner := method_of(backbone):
            what = "localizer" if inner == LOCALIZER else "detector"
            raise InputError(f"a {what} is no backbone of another one; name a classifier, for example resnet18")
        features = entry(backbone)
        return replace(features, label=f"{features.label}, {label}", published=None, task=task)
    spec = parse(name)
    if spec is None:
        raise InputError(f"unknown network {name!r}; {_suggestion(name)}")
    return spec.entry


def depth(name: str) -> int:
    """Weighted layers: convolutions and fc, without projections. Raises `InputError` as `entry` does."""
    return entry(name).depth


def family(name: str) -> Family:
    """The images that the network is laid out for: "imagenet" (224x224) or "cifar" (32x32)."""
    return entry(name).family


def input_size(name: str) -> int:
    """Pixels a side of the images that the network is laid out for: 224 or 32."""
    return INPUT_SIZE[family(name)]


def _suggestion(name: str) -> str:
    near = difflib.get_close_matches(name.lower(), names(), n=1)
    if near:
        return f"did you mean {near[0]}?"
    return "names are like resnet20, plain56, resnet50, resnet34-c, resnet18-32px, highway19, vgg16"
