"""What a trained RPN proposes for pictures whose class is given, kept in a file: an R-CNN stage is trained on it."""

import hashlib
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from deepres.classification.views import Protocol as Views
from deepres.data.boxes.index import BoxIndex
from deepres.data.resident_cache import write_kept
from deepres.data.stream.loader import Reading
from deepres.detection.cached import PREFIX, Proposals, read_proposals
from deepres.localization.protocol import PLAIN, Protocol
from deepres.localization.reading import pictures
from deepres.localization.tester import candidates, proposals
from deepres.models.localization.localizer import Localizer
from deepres.runtime.errors import InputError
from deepres.runtime.progress import every_so_often
from deepres.weights.find import ready


def proposing(net: Localizer, count: int) -> Protocol:
    """How `count` regions of a picture are proposed for training: the whole picture at the size of the 1-crop test."""
    return replace(PLAIN, views=Views("dense", PLAIN.views.sizes(net.plan.crop), flip=False), proposals=count)


def rpn_of(run: str, reading: Reading) -> Localizer:
    """The RPN of a run, in evaluation mode. Raises `InputError` where it is no run of one."""
    net = ready(Path(run), reading.say)
    if not (isinstance(net, Localizer) and net.plan.stage == "rpn" and Path(run).is_dir()):
        raise InputError(f"{run} is no run of a localizer's RPN, which proposals come from; give another --set rpn")
    return net.eval()


def proposals_by(run: str, index: BoxIndex, count: int, device: torch.device, reading: Reading) -> Proposals:
    """`count` proposals a picture at most, of its class, by the RPN of `run`, for all pictures of `index`.

    They are made once and kept in the folder of the run, where they depend on its weights and on the pictures. Those
    of a picture that does not decode are none. Errors as of `rpn_of`.
    """
    net = rpn_of(run, reading)
    how = proposing(net, count)
    file = Path(run) / f"{PREFIX}{_key(net, index, how)}.safetensors"
    kept = read_proposals(file, len(index))
    if kept is not None:
        return kept
    # Propose, and keep it.
    net, seen = net.to(device), every_so_often(reading.say, "pictures proposed for")
    found: list[Tensor] = []
    every = pictures(index, torch.arange(len(index)), reading, lambda done: seen(done, len(index)))
    for place, image in every:
        if image is None:
            found.append(torch.zeros(0, 4))
            continue
        boxes, scores = candidates([net], image, index.pictures.labels[place][None], how)
        found.append(proposals(boxes[0], scores[0], how)[0])
    made = Proposals(torch.cat(found), torch.tensor([len(own) for own in found]).cumsum(0))
    write_kept(file, {"boxes": made.boxes, "ends": made.ends}, {})
    return made


def _key(net: Localizer, index: BoxIndex, how: Protocol) -> str:
    digest = hashlib.sha256(f"{index.fingerprint} {how} {net.plan}".encode())
    for value in net.state_dict().values():
        digest.update(value.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
