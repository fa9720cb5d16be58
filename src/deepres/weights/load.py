"""Load trained networks from files: ours, those of other libraries and repositories, the authors' for Caffe."""

import dataclasses
from collections.abc import Generator, Mapping
from contextlib import contextmanager
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
from deepres.weights.origins import LIBRARIES, Hints, Origin, is_small, told
from deepres.weights.state import AUXILIARY, ends, firsts, misfits
from deepres.weights.unpack import bare, preferred
from deepres.weights.values import floats

STRUCTURE = (
    "stride_on",
    "residual_layers",
    "pool_padding",
    "detector",
    "localizer",
)  # fields of the header: arguments of `build`


NO_HINTS = Hints()


def read_weights(file: Path, hints: Hints = NO_HINTS, say: Say = silent) -> Weights:
    """Read the weights in `file` under our names; for foreign weights the header has what is known of them.

    `.caffemodel` is the authors' release. Safetensors and PyTorch files may have our names, those of torchvision (timm,
    pretrainedmodels' fbresnet152), transformers, the repositories of `origins`, or the numbers of a fb.resnet.torch
    network that was converted from Lua. Mean, std and classes come from the file, from the JSON beside it, or from the
    library or repository that has such names; otherwise they are absent. `say` is told what is chosen, assumed and left
    out. Raises `InputError` for a file that is none of these, or does not tell what its network computes.
    """
    if file.suffix == ".t7":
        raise InputError(f"{file} is of Torch for Lua; convert it to a PyTorch state dict first")
    # The authors' release.
    if file.suffix == ".caffemodel" and file.exists():
        if hints.padding or hints.take:
            raise InputError(f"{file} is the authors' release, of one network; leave --padding and --take out")
        from deepres.weights.caffe import read_network

        state, header = read_network(file)
        with _naming(file):
            state = floats(state, say)
        return Weights(state, None, {"source": file.name} | header | _imagenet_classes(state))
    # A file of ours has a header.
    found = weights_file.read_file(file, say, hints.take)
    if found.header:
        if hints.padding is not None:
            raise InputError(f"{file} is a file of deepres, which has one padding; leave --padding out")
        with _naming(file):
            return dataclasses.replace(found, state=floats(found.state, say))
    # A file of others: JSON files may stand beside it.
    beside = read_beside(file) if file.name in (WEIGHTS, PICKLED) else None
    if beside is not None and beside.unread:
        say(f"not read of the JSON beside {file.name}: {beside.unread}")
    with _naming(file):
        return _foreign(found, file, hints, beside, say)


def _foreign(found: Weights, file: Path, hints: Hints, beside: Beside | None, say: Say) -> Weights:
    """The weights that another library or repository wrote into `file`, under our names, with what is known of them."""
    # The network of the state dict, by their names and by ours.
    theirs = floats(_network_in(bare(found.state, file, say), file, say), say)
    layout, state = layout_of(theirs), foreign_state_dict(theirs)
    source = {"source": file.name}
    # What its names tell.
    if layout is None or state is None:
        if hints.padding is not None:
            raise InputError("--padding is for ResNets under the names of others; leave it out")
        weights = _of_a_rival(rival_state_dict(theirs), source, found.mean)
    else:
        what = told(theirs, state, layout, hints, say)
        weights = Weights(what.state, found.mean, source | what.header | _imagenet_classes(state))
        given = hints.normalised or found.mean is not None or (beside is not None and beside.mean is not None)
        if what.origin is not None and not given:
            weights = _normalised(weights, what.origin, file, say)
    # The JSON files tell more than the names.
    if beside is None:
        return weights
    mean = weights.mean if beside.mean is None else torch.tensor(beside.mean)[:, None, None]
    header = weights.header | source | beside.header
    if layout is not None and is_small(weights.state):
        header.pop("crop", None)
    return Weights(weights.state, mean, header)


@contextmanager
def _naming(where: object) -> Generator[None]:
    """Put `where`, the name of the file, before the sentence of an `InputError`."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _network_in(state: dict[str, Tensor], file: Path, say: Say) -> dict[str, Tensor]:
    """The network in `state`, which may hold other networks or metrics of a training under other prefixes.

    `say` is told which network is taken, and what is left out. Raises `InputError` if several could be meant.
    """
    if _is_whole(state):
        return state
    # Divide the tensors by the first word of their names, and look for whole networks among the parts.
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
    """Whether `state`, under our names or others', has the first and the last layer of a network."""
    try:
        ours = foreign_state_dict(state) or rival_state_dict(state)
    except InputError:
        return False
    return ends(ours)[0] is not None and any(key in ours for key in firsts())


def _normalised(weights: Weights, origin: Origin, file: Path, say: Say) -> Weights:
    """`weights` with the mean, std and classes of their origin; `say` is told them if it is a repository."""
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
    """The network of `weights`, in evaluation mode; a `std` of the header is not yet folded into conv1.

    Auxiliary classifiers, which are used in training only, are dropped if the file has none. `name` is needed only if
    neither the header nor the tensors tell the network. `where` is the file's name in messages. Raises `InputError` if
    `name` is not the header's, if the tensors do not fit the network (with the nearest one), and if the mean image,
    `std` or classes have another length than the network's channels or classes.
    """
    header, state = weights.header, weights.state
    if "network" in header and name not in (None, header["network"]):
        raise InputError(f"{where} holds weights of {header['network']}, not of {name}; leave --network out")
    # Build the network that the header, the user or the tensors tell.
    with _naming(where):
        chosen = header.get("network") or name or identify(state)
        classes, channels = ends(state)
        classes, channels = header.get("num_classes", classes), header.get("in_channels", channels)
        with torch.device("meta"):  # no start values are needed
            net = build(chosen, classes, channels, **{key: header[key] for key in STRUCTURE if key in header})
    troubles = misfits(net, state)
    if troubles:
        near = nearest(state)
        hint = f" (the nearest network is {near})" if near not in (None, chosen) else ""
        raise InputError(f"{where}: these weights are not of {chosen}{hint}: {troubles}")
    if not any(key.startswith(AUXILIARY) for key in state):
        net.drop_auxiliary()
    # Put the tensors into it, with zeros for BN's batch counters, which older files lack.
    own = net.state_dict()
    counts = {key: torch.zeros(value.shape, dtype=value.dtype) for key, value in own.items() if key not in state}
    net.load_state_dict({key: (counts | state)[key].to(own[key].dtype, copy=True) for key in own}, assign=True)
    # What the network is built with, the whole plan of a detector, too, is in its header already.
    net.mean, net.header = weights.mean, net.header | {key: header[key] for key in header if key not in STRUCTURE}
    _check_lengths(net, where)
    return net.eval()


def load_network(file: Path, name: str | None = None, say: Say = silent) -> Network:
    """The network in `file`, in evaluation mode: scores = net(images - net.mean) for RGB images in 0..1.

    A `std` is folded into conv1. `name` is needed only if neither the header nor the tensors tell the network.
    `net.mean` is None if neither the file nor its origin tells it. Raises `InputError` as `read_weights` and
    `network_with`.
    """
    net = network_with(read_weights(file, Hints(name), say), name, file)
    std = net.header.pop("std", None)
    if std is not None:
        with torch.no_grad():
            first = next(module for module in net.modules() if isinstance(module, nn.Conv2d))
            first.weight /= torch.tensor(std)[:, None, None]  # zero padding is not changed by the division
    return net


def _check_lengths(net: Network, where: object) -> None:
    """Raise `InputError` if the mean, `std` or classes do not have an entry for each input channel or class.

    Also where the mean of a detector, whose images have many sizes, is an image rather than a color.
    """
    if net.mean is not None and "detector" in net.header and net.mean.shape[1:] != (1, 1):
        raise InputError(
            f"{where}: the mean of a detector is one color, a number a channel, not of shape {tuple(net.mean.shape)}; "
            "give it so (deepres convert --mean)"
        )
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
    """Weights of AlexNet, VGG or GoogLeNet without a header: with the mean and std of torchvision's, if it has such."""
    known = (row.published for row in NETWORKS.values() if row.published is not None)
    published = next((one for one in known if one.tensor in state), None)
    if published is None or ends(state)[1] != len(published.mean):
        return Weights(state, mean, {})
    header = {**source, "std": list(published.std)} | _imagenet_classes(state)
    return Weights(state, torch.tensor(published.mean)[:, None, None], header)


def _imagenet_classes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The header's `classes`: ImageNet's, in the order that all these formats share, if there are 1000; else empty."""
    from torchvision.models import ResNet18_Weights

    names = list(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])
    return {"classes": names} if ends(state)[0] == len(names) else {}
