"""Trained networks from files: ours, torchvision's and timm's, those of fb.resnet.torch, the authors' for Caffe."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepres.errors import InputError
from deepres.models import weights as weights_file
from deepres.models.catalog import build
from deepres.models.convert import AUXILIARY, ends, foreign_state_dict, misfits, rival_state_dict
from deepres.models.identify import identify, nearest
from deepres.models.network import WEIGHTS, Network
from deepres.models.weights import Weights

STRUCTURE = ("stride_on", "residual_layers", "pool_padding")  # of the header: arguments of `build`
# What torchvision, timm and fb.resnet.torch subtract from RGB in 0..1, and divide by, for their ResNets.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# A parameter that tells each of torchvision's other networks, which have the same names here, with its mean and std:
# AlexNet and VGG are as the ResNets, GoogLeNet's trained weights take -1..1 (torchvision's `transform_input`).
RIVALS = {
    "features.0.weight": (IMAGENET_MEAN, IMAGENET_STD),
    "inception3a.branch1.conv.weight": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


def read(file: Path) -> Weights:
    """The weights in `file` under our names; of foreign ones the header tells what their format implies.

    `.caffemodel` is the authors' release; safetensors and PyTorch files may have our names, those of torchvision (timm,
    pretrainedmodels' fbresnet152), or the numbers of a fb.resnet.torch network that was converted from Lua. Raises
    `InputError` for a file that is none of these.
    """
    if file.suffix == ".t7":
        raise InputError(f"{file} is of Torch for Lua; convert it to a PyTorch state dict first")
    if file.suffix == ".caffemodel" and file.is_file():
        from deepres.models.caffe import read_network

        state, header = read_network(file)
        return Weights(state, None, {"source": file.name} | header | _imagenet_classes(state))
    found = weights_file.read(file)
    if found.header:
        return found
    state = foreign_state_dict(found.state)
    if state is None:
        return _of_a_rival(rival_state_dict(found.state), file.name, found.mean)
    header = {"source": file.name, "stride_on": "3x3"} | _imagenet_classes(state)
    mean = found.mean
    if state["conv1.conv.weight"].shape[1:2] == (3,):
        mean, header = torch.tensor(IMAGENET_MEAN)[:, None, None], header | {"std": list(IMAGENET_STD)}
    return Weights(state, mean, header)


def network(weights: Weights, name: str | None, where: object) -> Network:
    """The network of `weights`, in evaluation mode, as the file has it: a `std` of the header is not folded.

    Auxiliary classifiers, which work in training alone, are left out where the file has none. `name` is needed only
    where neither the header nor the tensors tell. Raises `InputError`, which calls the file `where`, for another name
    than the header's, for a network that the tensors do not fit, with the nearest, and for a mean image, a `std` or
    classes that are not as many as the network's.
    """
    header, state = weights.header, weights.state
    if "network" in header and name not in (None, header["network"]):
        raise InputError(f"{where} holds weights of {header['network']}, not of {name}; leave --network out")
    try:
        chosen = header.get("network") or name or identify(state)
        classes, channels = ends(state)
        classes, channels = header.get("num_classes", classes), header.get("in_channels", channels)
        with torch.device("meta"):  # start values would be drawn for nothing
            net = build(chosen, classes, channels, **{key: header[key] for key in STRUCTURE if key in header})
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    troubles = misfits(net, state)
    if troubles:
        near = nearest(state)
        hint = f" (the nearest network is {near})" if near != chosen else ""
        raise InputError(f"{where}: these weights are not of {chosen}{hint}: {troubles}")
    if not any(key.startswith(AUXILIARY) for key in state):
        net.drop_auxiliary()
    own = net.state_dict()
    # BN's, where older files have none
    counts = {key: torch.zeros(value.shape, dtype=value.dtype) for key, value in own.items() if key not in state}
    net.load_state_dict({key: (counts | state)[key].to(own[key].dtype, copy=True) for key in own}, assign=True)
    net.mean, net.header = weights.mean, net.header | header
    _check_lengths(net, where)
    return net.eval()


def load(file: Path, name: str | None = None) -> Network:
    """The network in `file`, ready to use on RGB in 0..1 less `net.mean`: in evaluation mode, its `std` folded in.

    `name` is needed only where neither the header nor the tensors tell it. Raises `InputError` as `read` and `network`.
    """
    net = network(read(file), name, file)
    std = net.header.pop("std", None)
    if std is not None:
        with torch.no_grad():
            first = next(module for module in net.modules() if isinstance(module, nn.Conv2d))
            first.weight /= torch.tensor(std)[:, None, None]  # the padding is 0 with and without the division
    return net


def fetch(repository: str, **how: Any) -> Path:
    """Download the weights file of the model `owner/name` of the Hugging Face hub into the hub's cache.

    `how` is passed to `hf_hub_download`. Raises `InputError` where it cannot be fetched and is not in the cache.
    """
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, WEIGHTS, **how))
    except Exception as error:  # the hub's client lets through errors of the HTTP library that it is built on
        reason = next(iter(str(error).split("\n")), "").strip() or type(error).__name__
        raise InputError(
            f"{WEIGHTS} of hf:{repository} could not be fetched ({reason}); check the name, the network, "
            "HF_TOKEN, and that HF_HOME can be written"
        ) from None


def _check_lengths(net: Network, where: object) -> None:
    """Refuse what goes with the weights and has not an entry for each input channel, or for each class."""
    for what, values, count, wanted in (
        ("mean", net.mean, "in_channels", "input channels"),
        ("std", net.header.get("std"), "in_channels", "input channels"),
        ("list of classes", net.header.get("classes"), "num_classes", "classes"),
    ):
        if values is not None and len(values) != net.header[count]:
            raise InputError(
                f"{where}: the {what} has {len(values)} entries, {net.name} has {net.header[count]} {wanted}; "
                "give as many"
            )


def _of_a_rival(state: dict[str, Tensor], source: str, mean: Tensor | None) -> Weights:
    """Weights under our names that carry no header: torchvision's or timm's, where these have such a network."""
    inputs = next((inputs for key, inputs in RIVALS.items() if key in state), None)
    if inputs is None or ends(state)[1] != len(inputs[0]):
        return Weights(state, mean, {})
    header = {"source": source, "std": list(inputs[1])} | _imagenet_classes(state)
    return Weights(state, torch.tensor(inputs[0])[:, None, None], header)


def _imagenet_classes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The names of the classes where there are 1000: all these formats have ImageNet's, in the same order."""
    from torchvision.models import ResNet18_Weights

    names = list(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])
    return {"classes": names} if ends(state)[0] == len(names) else {}
