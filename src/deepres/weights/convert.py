"""Conversion of weights of any kind into our format, or into torchvision's."""

import dataclasses
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

import torch
from torch import Tensor

from deepres.models.catalog import entry
from deepres.models.imagenet import TABLE_1
from deepres.models.network import Network
from deepres.models.registry import IMAGENET_MEAN, IMAGENET_STD
from deepres.records import Json, Run, read_record
from deepres.runtime.errors import InputError, Say
from deepres.runtime.figures import CLASSIFICATION
from deepres.runtime.files import refuse_input, replacing
from deepres.weights import file as weights_file
from deepres.weights.file import Weights
from deepres.weights.find import find
from deepres.weights.load import NO_HINTS, network_with, read_weights
from deepres.weights.names import to_torchvision
from deepres.weights.origins import Hints

WeightsFormat = Literal["safetensors", "torchvision"]
SUFFIXES: dict[str, WeightsFormat] = {".safetensors": "safetensors", ".pth": "torchvision", ".pt": "torchvision"}


class _Report(TypedDict):
    """The fields of a report of `deepres eval --json` that are read here."""

    protocol: str
    top1_error: float
    top5_error: float
    members: list[dict[str, Any]]


@dataclass(frozen=True)
class Target:
    """The file `to` to write, and what the user gives for it.

    `form` is the format; if None, the suffix of `to` decides. `mean` is a `.binaryproto` file or a number a channel in
    0..1, and so is `std`; if None, they come from the weights, or from their library or repository. `reports` are
    reports of `deepres eval --json` on these weights; their errors go into the header.
    """

    to: Path
    form: WeightsFormat | None = None
    mean: str | None = None
    std: str | None = None
    reports: Sequence[Path] = ()


def convert(source: Path, target: Target, say: Say, hints: Hints = NO_HINTS) -> Json:
    """Convert the weights of `source` (any place that `load` takes) to `target`, and return facts about the new file.

    The file is read back and compared before it takes its place. `say` is told what the new file does not hold. Raises
    `InputError` for weights that cannot be read, or that the format cannot hold.
    """
    to, form = target.to, target.form or SUFFIXES.get(target.to.suffix)
    if form is None:
        raise InputError(f"{to} does not say what to write; give --format, or a name in {', '.join(SUFFIXES)}")
    file = find(source, say)
    refuse_input("--to", to, [file])
    # Read the network, and set the mean, std and errors that the user gives.
    net = _network(file, target, hints, say)
    net.header |= _final(source, net.header)
    for report in target.reports:
        net.header["errors"] = net.header.get("errors", {}) | _reported(report, net.name)
    if file.suffix == ".caffemodel" and net.mean is None:
        say("no mean image is known, which its inputs lack: give --mean ResNet_mean.binaryproto of the release")
    # Write the file, and tell what it holds.
    if form == "torchvision":
        _write(to, Weights(_for_torchvision(net, say), None, {}))
    else:
        _write(to, Weights(net.state_dict(), net.mean, net.header))
    parameters = sum(parameter.numel() for parameter in net.parameters())
    holds_mean = form == "safetensors" and net.mean is not None
    return {"file": str(to), "format": form, "parameters": parameters, "mean": holds_mean} | net.header


def _network(file: Path, target: Target, hints: Hints, say: Say) -> Network:
    """The network in `file`, with the mean and std of `target` where they are given."""
    normalised = target.mean is not None and target.std is not None
    weights = read_weights(file, dataclasses.replace(hints, normalised=normalised), say)
    if target.mean is not None:
        weights = dataclasses.replace(weights, mean=_mean(target.mean))
    if target.std is not None:
        weights.header["std"] = _std(target.std)
    return network_with(weights, hints.network, file)


def _for_torchvision(net: Network, say: Say) -> dict[str, Tensor]:
    """The state dict for torchvision's network of this name; `say` is told where its scores will differ.

    Raises `InputError` for a network that torchvision does not have.
    """
    # torchvision's files hold no mean and std: warn unless they are the usual ones.
    if net.mean is None:
        say("warning: no mean is known that these weights' images lack, and none is in the file")
    elif "std" not in net.header:
        say("warning: these weights take images less their mean, which is not in the file, and not divided by a std")
    if entry(net.name).published is not None:
        return net.state_dict()  # the names are torchvision's
    if net.mean is not None and "std" in net.header and not _are_imagenets(net.mean, net.header["std"]):
        say("warning: the mean and std of these weights' images are not ImageNet's, and are not in the file")
    # A ResNet: torchvision's must have the same layers; differences of stride and padding only change the scores.
    header, resnets = net.header, [f"resnet{depth}" for depth in TABLE_1]
    if net.name.removesuffix("-b") not in resnets or header["residual_layers"] != 2:
        raise InputError(
            f"torchvision has no {net.name}; it has {', '.join(resnets)} (shortcuts of option B), AlexNet, VGG and "
            "GoogLeNet"
        )
    others = {
        "stride on the 3x3": net.name not in ("resnet18", "resnet34") and header["stride_on"] == "1x1",
        "max pool with padding": header["pool_padding"] == 0,
    }
    for what in (what for what, other in others.items() if other):
        say(f"warning: torchvision's {net.name} has its {what}, this one not: the scores will be others there")
    return to_torchvision(net.state_dict())


def _are_imagenets(mean: Tensor, std: Sequence[float]) -> bool:
    known = torch.tensor(IMAGENET_MEAN)[:, None, None]
    return mean.shape == known.shape and torch.allclose(mean, known) and tuple(std) == IMAGENET_STD


def _write(to: Path, content: Weights) -> None:
    """Write a weights file atomically, after checking that it reads back the same, bit for bit."""
    try:
        with replacing(to) as partial:
            if content.header:
                partial.write_bytes(weights_file.serialise(content.state, content.mean, content.header))
            else:
                buffer = io.BytesIO()  # torch.save into the file would report a full disk in other words
                torch.save(content.state, buffer)
                partial.write_bytes(buffer.getvalue())
            if not _same(weights_file.read_file(partial), content):
                raise InputError(f"{to} could not be read back as it was written; check the disk")
    except OSError as error:
        raise InputError(f"{to} could not be written: {error}") from None


def _same(one: Weights, other: Weights) -> bool:
    """Whether two contents are equal to the last bit: NaN equals itself, and 0 is not -0."""
    ones, others = (own.state | ({} if own.mean is None else {weights_file.MEAN: own.mean}) for own in (one, other))
    return (
        json.dumps(one.header) == json.dumps(other.header)
        and ones.keys() == others.keys()
        and all(mine.dtype == others[key].dtype and mine.shape == others[key].shape for key, mine in ones.items())
        and all(_bytes(mine).equal(_bytes(others[key])) for key, mine in ones.items())
    )


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.flatten().view(torch.uint8)


def _final(source: Path, header: Json) -> Json:
    """What the header says of the final test of the run `source`, if these are its final weights; else nothing new.

    A classifier has errors, by the protocol of its tests; other networks have the figures of their task.
    """
    run = Run(source)
    done = run.done if source.is_dir() else None
    if done is None or done["iteration"] != header.get("iteration"):
        return {}
    if run.task != CLASSIFICATION:
        tested = (own.key for own in run.reported.final if not own.training)
        return {"figures": {key: done[key] for key in tested if key in done}}
    protocol = "center" if header.get("crop") else "single"
    return {"errors": {protocol: {"top1": done["test_error"], "top5": done.get("test_top5_error")}}}


def _reported(file: Path, network: str) -> Json:
    """The errors in a report, by its protocol. Raises `InputError` if it is not on `network` alone."""
    hint, mend = "it is written by deepres eval --json", "give one of deepres eval --json"
    report = read_record(file, _Report, hint=hint, mend=mend)
    try:
        names = [member["network"] for member in report["members"]]
        errors = {"top1": report["top1_error"], "top5": report["top5_error"]}
        kept = {name: report[name] for name in ("scales", "data", "images") if name in report}
        if names == [network]:
            return {report["protocol"]: errors | kept}
    except (KeyError, TypeError):
        pass
    raise InputError(f"{file} is no report on {network} alone (deepres eval WEIGHTS --json); give one")


def _mean(text: str) -> Tensor:
    if Path(text).suffix == ".binaryproto":
        from deepres.weights.caffe import read_mean

        return read_mean(Path(text))
    return _numbers(text, "--mean")[:, None, None]


def _std(text: str) -> list[float]:
    values = _numbers(text, "--std").tolist()
    if not weights_file.are_divisors(values):
        raise InputError(f"--std takes numbers above 0, which images are divided by, not {text!r}")
    return values


def _numbers(text: str, option: str) -> Tensor:
    try:
        values = torch.tensor([float(value) for value in text.split(",")])
    except ValueError:
        values = torch.tensor([math.nan])
    if not values.isfinite().all():
        raise InputError(f"{option} takes a finite number a channel, for example 0.485,0.456,0.406, not {text!r}")
    return values
