"""The network that a run of detection begins with: on random weights, on a trained backbone, or a trained detector."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from deepres.data.classes import Classes, classes_of, head_rows
from deepres.detection.recipe import DetectionConfig
from deepres.models.catalog import build
from deepres.models.detection.detector import Detector
from deepres.models.network import Network
from deepres.models.registry import backbone_of
from deepres.models.segmentation.cascade import Cascade
from deepres.runtime.errors import InputError, Say
from deepres.weights.load import STRUCTURE
from deepres.weights.start import Start

HEADS = {"score": 1, "mask_score": 1, "box": 4}  # layers that depend on the classes, and their rows for each class


def begin(config: DetectionConfig, classes: Sequence[str], start: Start | None, say: Say) -> Network:
    """The detector of `config` for `classes`, with the weights of `start`: those of a backbone or of a detector, with
    masks or without.

    What `start` does not have gets start values from torch's random state. The layers for the classes are taken from
    a detector of the same classes alone. Raises `InputError` for weights of another backbone, or that do not fit.
    """
    structure: dict[str, Any] = {"detector": asdict(config.plan)}
    if start is None:
        return build(config.network, len(classes), 3, **structure)
    header = start.net.header
    backbone, wanted = backbone_of(start.net.name), backbone_of(config.network)
    if backbone != wanted:
        raise InputError(f"the weights are of {backbone}, not of {wanted}; leave one out")
    if header["in_channels"] != 3:
        raise InputError(f"the weights take images of {header['in_channels']} channels, detectors of 3; give others")
    structure = {**{key: header[key] for key in STRUCTURE if key in header}, **structure}
    net = build(config.network, len(classes), 3, **structure)
    state = start.net.state_dict()
    taken = (
        _of_detector(start.net, state, classes, say) if isinstance(start.net, Detector) else _of_backbone(net, state)
    )
    own = net.state_dict()
    # A cascade has a second path of the layers of regions, and its heads take the features of both.
    if isinstance(net, Cascade) != isinstance(start.net, Cascade):
        taken = {key: value for key, value in taken.items() if key in own and key.partition(".")[0] not in HEADS}
        paths = {f"masked.{key.removeprefix('features.')}": value for key, value in taken.items()}
        taken |= {key: value for key, value in paths.items() if key in own}
    if wrong := [key for key, value in taken.items() if value.shape != own[key].shape]:
        raise InputError(f"the weights do not fit the detector: {wrong[0]} has another shape; leave its setting out")
    net.load_state_dict(own | taken)
    return net


def _of_backbone(net: Network, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a classifier that `net` has, too: all but the last layer."""
    own = net.state_dict()
    return {f"features.{key}": value for key, value in state.items() if f"features.{key}" in own}


def _of_detector(net: Network, state: dict[str, Tensor], classes: Sequence[str], say: Say) -> dict[str, Tensor]:
    """The weights of a detector: without the layers for the classes where these are others, else in their order."""
    known = classes_of("the weights", net.header.get("classes"), net.header["num_classes"])
    rows = head_rows(known, Classes("the data", tuple(classes)), say)
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        each = HEADS.get(key.partition(".")[0])
        if each is None:
            found[key] = value
        elif rows is not None:
            # Row 0 of the scores is the background's.
            first = value[: len(value) - each * len(rows)]
            own = value[len(first) :].unflatten(0, (len(rows), each))[torch.as_tensor(rows)]
            found[key] = torch.cat([first, own.flatten(0, 1)])
    return found
