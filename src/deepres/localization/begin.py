"""The network that a run of localization begins with: on random weights, on a trained backbone, or trained."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from deepres.data.classes import Classes, classes_of, head_rows
from deepres.localization.recipe import LocalizationConfig
from deepres.models.catalog import build
from deepres.models.localization.localizer import Localizer
from deepres.models.network import Network
from deepres.models.registry import LOCALIZER
from deepres.runtime.errors import InputError, Say
from deepres.weights.load import STRUCTURE
from deepres.weights.start import Start

HEADS = ("score", "box")  # layers that depend on the classes


def begin(config: LocalizationConfig, classes: Sequence[str], start: Start | None, say: Say) -> Network:
    """The localizer of `config` for `classes`, with the weights of `start`: those of a backbone or of a localizer.

    What `start` does not have gets start values from torch's random state. An R-CNN stage on the weights of an RPN
    takes its backbone. Raises `InputError` for weights of another backbone, or that do not fit.
    """
    structure: dict[str, Any] = {"localizer": asdict(config.plan)}
    if start is None:
        return build(config.network, len(classes), 3, **structure)
    header = start.net.header
    backbone = start.net.name.removeprefix(LOCALIZER)
    if config.network != LOCALIZER + backbone:
        raise InputError(
            f"the weights are of {backbone}, not of {config.network.removeprefix(LOCALIZER)}; leave one out"
        )
    if header["in_channels"] != 3:
        raise InputError(f"the weights take images of {header['in_channels']} channels, localizers of 3; give others")
    structure = {**{key: header[key] for key in STRUCTURE if key in header}, **structure}
    net = build(config.network, len(classes), 3, **structure)
    own, state = net.state_dict(), start.net.state_dict()
    if isinstance(start.net, Localizer):
        taken = _of_localizer(start.net, config, state, classes, say)
    else:
        taken = {f"features.{key}": value for key, value in state.items() if f"features.{key}" in own}
    if wrong := [key for key, value in taken.items() if value.shape != own[key].shape]:
        raise InputError(f"the weights do not fit the localizer: {wrong[0]} has another shape; leave its setting out")
    net.load_state_dict(own | taken)
    return net


def _of_localizer(
    net: Localizer, config: LocalizationConfig, state: Mapping[str, Tensor], classes: Sequence[str], say: Say
) -> dict[str, Tensor]:
    """The weights of a localizer: of another stage its backbone; of the same one also the rows of the same classes."""
    if net.plan.stage != config.plan.stage:
        return {key: value for key, value in state.items() if key.startswith("features.")}
    known = classes_of("the weights", net.header.get("classes"), net.header["num_classes"])
    rows = head_rows(known, Classes("the data", tuple(classes)), say)
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.partition(".")[0] not in HEADS:
            found[key] = value
        elif rows is not None:
            found[key] = value.unflatten(0, (len(rows), -1))[torch.as_tensor(rows)].flatten(0, 1)
    return found
