"""Find trained weights: in a run folder, a file of any kind, a folder of the hub's layout, or the Hugging Face hub."""

import re
import warnings
from pathlib import Path

from torch import Tensor

from deepres.models.network import Network
from deepres.records import Run
from deepres.runtime.errors import InputError, Say, few
from deepres.weights import checkpoint, hub
from deepres.weights.file import PICKLED, WEIGHTS
from deepres.weights.load import load_network

HUB = re.compile(r"(hf:)?[\w.-]+/[\w.-]+")


def load(place: str | Path, network: str | None = None) -> Network:
    """A trained network, ready to use: scores = net(images - net.mean) for images (N, C, H, W), RGB in 0..1.

    A detector gives boxes, scores and labels of images uint8 (3, H, W) by `net.detect(images)`; labels are places in
    `net.header["classes"]`.
    `place` is a run folder (its newest whole checkpoint), a folder or file of weights of any kind that `deepres
    convert` reads, or `owner/name` of the Hugging Face hub. `network` names the net where the weights do not tell.
    `net.header` has what is known of it: `classes`, the recipe, errors. `net.mean` is None for foreign weights whose
    mean is not known. Raises `InputError` where there are no weights.
    """
    path = Path(place)
    guessed = not path.exists() and not str(place).startswith("hf:") and HUB.fullmatch(str(place)) is not None
    try:
        file = find(Path(f"hf:{place}") if guessed else path, lambda message: warnings.warn(message, stacklevel=3))
    except InputError as error:
        raise InputError(f"there is no file or folder {place}, and {error}" if guessed else str(error)) from None
    return load_network(file, network)


def ready(place: Path, say: Say, network: str | None = None) -> Network:
    """As `load`, for a command; `say` is told what is found, assumed and left out.

    Also raises `InputError` for weights without a mean image: their scores need the one they were trained with.
    """
    net = load_network(find(place, say), network, say)
    require_mean(net, place)
    return net


def require_mean(net: Network, place: object) -> Tensor:
    """The mean image that `net` was trained with. Raises `InputError` where it is not known."""
    if net.mean is None:
        raise InputError(
            f"{place} holds no mean, which its images lack, and is of no library or repository whose mean is known; "
            f"write it down first: deepres convert {place} --to FILE.safetensors --mean 0.49,0.48,0.45 --std "
            "0.25,0.24,0.26 (a number a channel, for RGB in 0..1; 0,0,0 for none)"
        )
    return net.mean


def find(place: Path, say: Say) -> Path:
    """The weights file at `place`.

    `place` is a run folder (its newest whole checkpoint), a folder of the hub's layout, `hf:owner/name` (downloaded),
    or a file, which is returned unchanged. Raises `InputError` for a folder without weights, a run without a whole
    checkpoint, and a repository without weights.
    """
    if str(place).startswith("hf:"):
        return hub.fetch(str(place).removeprefix("hf:"))
    if not place.is_dir():
        return place
    for name in (WEIGHTS, PICKLED):
        if (place / name).exists():
            return place / name
    if not Run(place).exists:
        inside = [own for own in sorted(place.iterdir()) if own.is_dir() and Run(own).exists]
        give = f"a run in it ({few(map(str, inside))})" if inside else "a run"
        raise InputError(
            f"{place} is no run folder and holds no {WEIGHTS}; give {give}, a weights file, or hf:owner/name"
        )
    file, run = checkpoint.latest_weights(place / "checkpoints", say), Run(place)
    if run.done is None:
        said = f"iteration {int(file.parent.name):,} of {run.field('recipe').get('iterations', 0):,}"
        say(f"{place} is not finished: these are its weights at {said}")
    return file
