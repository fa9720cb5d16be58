"""Trained networks from files: ours, those of other libraries and repositories, the authors' for Caffe."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepres.models.catalog import build
from deepres.models.network import Network
from deepres.models.registry import NETWORKS
from deepres.runtime.errors import InputError, Say, few, silent
from deepres.weights import file as weights_file
from deepres.weights.beside import Beside, read_beside
from deepres.weights.file import PICKLED, WEIGHTS, Weights
from deepres.weights.identify import identify, nearest
from deepres.weights.names import foreign_state_dict, layout_of, rival_state_dict
from deepres.weights.origins import LIBRARIES, Origin, Padding, is_small, told
from deepres.weights.state import AUXILIARY, ends, firsts, misfits
from deepres.weights.unpack import bare, preferred
from deepres.weights.values import floats

STRUCTURE = ("stride_on", "residual_layers", "pool_padding")  # of the header: arguments of `build`


@dataclass(frozen=True)
class Hints:
    """What a user says of weights whose file does not: the network, the padding of option A, one of several states.

    With `normalised` mean and std are given, and none need be taken for granted.
    """

    network: str | None = None
    padding: Padding | None = None
    take: str | None = None
    normalised: bool = False


NO_HINTS = Hints()


def read_weights(file: Path, hints: Hints = NO_HINTS, say: Say = silent) -> Weights:
    """The weights in `file` under our names; of foreign ones the header tells what is known of them.

    `.caffemodel` is the authors' release; safetensors and PyTorch files may have our names, those of torchvision (timm,
    pretrainedmodels' fbresnet152), transformers, the repositories of `origins`, or the numbers of a fb.resnet.torch
    network that was converted from Lua. The mean, std and classes are those in the file, of the JSON beside it, or of
    the library or repository that the names are of; where none tells, they are absent. `say` is told what is chosen,
    assumed and left out. Raises `InputError` for a file that is none of these, or leaves open what it computes.
    """
    if file.suffix == ".t7":
        raise InputError(f"{file} is of Torch for Lua; convert it to a PyTorch state dict first")
    if file.suffix == ".caffemodel" and file.exists():
        if hints.padding or hints.take:
            raise InputError(f"{file} is the authors' release, of one network; leave --padding and --take out")
        from deepres.weights.caffe import read_network

        state, header = read_network(file)
        return Weights(_floats(state, file, say), None, {"source": file.name} | header | _imagenet_classes(state))
    found = weights_file.read_file(file, say, hints.take)
    if found.header:
        if hints.padding is not None:
            raise InputError(f"{file} is a file of deepres, which has one padding; leave --padding out")
        return dataclasses.replace(found, state=_floats(found.state, file, say))
    beside = read_beside(file) if file.name in (WEIGHTS, PICKLED) else None
    if beside is not None and beside.unread:
        say(f"not read of the JSON beside {file.name}: {beside.unread}")
    try:
        return _foreign(found, file, hints, beside, say)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def _foreign(found: Weights, file: Path, hints: Hints, beside: Beside | None, say: Say) -> Weights:
    theirs = floats(_network_in(bare(found.state, file, say), file, say), say)
    layout, state = layout_of(theirs), foreign_state_dict(theirs)
    source = {"source": file.name}
    if layout is None or state is None:
        if hints.padding is not None:
            raise InputError("--padding is for ResNets under the names of others; leave it out")
        weights = _of_a_rival(rival_state_dict(theirs), source, found.mean)
    else:
        what = told(theirs, state, layout, hints.network, hints.padding, say)
        weights = Weights(what.state, found.mean, source | what.header | _imagenet_classes(state))
        given = hints.normalised or found.mean is not None or (beside is not None and beside.mean is not None)
        if what.origin is not None and not given:
            weights = _normalised(weights, what.origin, file, say)
    if beside is None:
        return weights
    mean = weights.mean if beside.mean is None else torch.tensor(beside.mean)[:, None, None]
    header = weights.header | source | beside.header
    if layout is not None and is_small(weights.state):
        header.pop("crop", None)
    return Weights(weights.state, mean, header)


def _floats(state: Mapping[str, Tensor], file: Path, say: Say) -> dict[str, Tensor]:
    try:
        return floats(state, say)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def _network_in(state: dict[str, Tensor], file: Path, say: Say) -> dict[str, Tensor]:
    """The network in `state`, where a training kept others or its metrics beside it, under other prefixes.

    Which one is taken, and what is left out, is said. Raises `InputError` where several could be meant.
    """
    if _is_whole(state):
        return state
    parts = dict[str, dict[str, Tensor]]()
    for key, value in state.items():
        prefix, _, rest = key.partition(".")
        parts.setdefault(prefix, {})[rest] = value
    bared = {prefix: bare(part, file, silent) for prefix, part in parts.items()}
    networks = {prefix: part for prefix, part in bared.items() if _is_whole(part)}
    if not networks:
        return state
    taken = preferred(networks)
    if taken is None:
        raise InputError(f"it holds several networks ({few(networks)}); save the state dict of one of them alone")
    left = [*(networks.keys() - {taken}), *(key for key in state if key.partition(".")[0] not in networks)]
    say(f"{taken} is taken of {file}; left out: {few(left)}")
    return networks[taken]


def _is_whole(state: Mapping[str, Tensor]) -> bool:
    """Whether `state`, under whatever names, has the first and the last layer of a network."""
    try:
        ours = foreign_state_dict(state) or rival_state_dict(state)
    except InputError:
        return False
    return ends(ours)[0] is not None and any(key in ours for key in firsts())


def _normalised(weights: Weights, origin: Origin, file: Path, say: Say) -> Weights:
    """`weights` with the mean, std and classes of their origin, which is said where it is a repository."""
    header = {"std": list(origin.std)} | ({"classes": list(origin.classes)} if origin.classes else {})
    if origin is not LIBRARIES:
        mean, std = (",".join(map(str, values)) for values in (origin.mean, origin.std))
        named = f", classes are {', '.join(origin.classes[:2])}, ..." if origin.classes else ""
        say(
            f"{file} has the names of {origin.name}: as there, images are taken less {mean}, divided by {std}{named} "
            "(deepres convert --mean and --std for others)"
        )
    return Weights(weights.state, torch.tensor(origin.mean)[:, None, None], weights.header | header)


def network_with(weights: Weights, name: str | None, where: object) -> Network:
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
        hint = f" (the nearest network is {near})" if near not in (None, chosen) else ""
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


def load_network(file: Path, name: str | None = None, say: Say = silent) -> Network:
    """The network in `file`, ready to use on RGB in 0..1 less `net.mean`: in evaluation mode, its `std` folded in.

    `name` is needed only where neither the header nor the tensors tell it. `net.mean` is None where neither the file
    nor its origin tells it. Raises `InputError` as `read_weights` and `network_with`.
    """
    net = network_with(read_weights(file, Hints(name), say), name, file)
    std = net.header.pop("std", None)
    if std is not None:
        with torch.no_grad():
            first = next(module for module in net.modules() if isinstance(module, nn.Conv2d))
            first.weight /= torch.tensor(std)[:, None, None]  # the padding is 0 with and without the division
    return net


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


def _of_a_rival(state: dict[str, Tensor], source: Mapping[str, str], mean: Tensor | None) -> Weights:
    """Weights under our names that carry no header: torchvision's or timm's, where these have such a network."""
    known = (row.published for row in NETWORKS.values() if row.published is not None)
    published = next((one for one in known if one.tensor in state), None)
    if published is None or ends(state)[1] != len(published.mean):
        return Weights(state, mean, {})
    header = {**source, "std": list(published.std)} | _imagenet_classes(state)
    return Weights(state, torch.tensor(published.mean)[:, None, None], header)


def _imagenet_classes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The names of the classes where there are 1000: all these formats have ImageNet's, in the same order."""
    from torchvision.models import ResNet18_Weights

    names = list(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])
    return {"classes": names} if ends(state)[0] == len(names) else {}
