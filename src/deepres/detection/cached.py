"""Proposals of a trained RPN for the training pictures, kept in a file: regions are trained on them step by step."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from deepres.data.boxes.index import BoxIndex
from deepres.data.resident_cache import write_kept
from deepres.data.stream.loader import Reading
from deepres.detection.tester import proposals_of
from deepres.models.detection.detector import Detector
from deepres.models.detection.proposals import TRAINING
from deepres.runtime import archive
from deepres.runtime.errors import InputError
from deepres.runtime.progress import every_so_often
from deepres.weights.find import ready

PREFIX = "proposals-"  # of the file in the folder of the run whose RPN made them


@dataclass(frozen=True, eq=False)
class Proposals:
    """The proposals of N pictures, one after another: `boxes` float32 (M, 4), those of picture i up to `ends[i]`."""

    boxes: Tensor
    ends: Tensor

    def of(self, place: int) -> Tensor:
        """The proposals (k, 4) of one picture, by falling objectness, in its pixels on disk, upright."""
        return self.boxes[int(self.ends[place - 1]) if place else 0 : int(self.ends[place])]


def proposals_by(run: str, index: BoxIndex, count: int, device: torch.device, reading: Reading) -> Proposals:
    """The proposals, `count` a picture at most, of the detector of `run` for all pictures of `index`.

    They are made once and kept in the folder of the run, where they depend on its weights and on the pictures. Raises
    `InputError` where the run is no detector's.
    """
    net = ready(Path(run), reading.say)
    if not (isinstance(net, Detector) and Path(run).is_dir()):
        raise InputError(f"{run} is no run of a detector, which proposals could come from; give another --set rpn")
    file = Path(run) / f"{PREFIX}{_key(net, index, count)}.safetensors"
    kept = read_proposals(file, len(index))
    if kept is not None:
        return kept
    # Propose, and keep it.
    seen = every_so_often(reading.say, "training pictures proposed for")
    found = proposals_of(
        net.to(device).eval(),
        index,
        torch.arange(len(index)),
        reading,
        count,
        TRAINING.before,
        lambda done: seen(done, len(index)),
    )
    boxes = [own for _, own, _ in found]
    made = Proposals(torch.cat(boxes), torch.tensor([len(own) for own in boxes]).cumsum(0))
    write_kept(file, {"boxes": made.boxes, "ends": made.ends}, {})
    return made


def _key(net: Detector, index: BoxIndex, count: int) -> str:
    digest = hashlib.sha256(f"{index.fingerprint} {count} {net.plan}".encode())
    for value in net.state_dict().values():
        digest.update(value.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def read_proposals(file: Path, count: int) -> Proposals | None:
    """The kept proposals of `count` pictures; None where there are none, or the file is damaged."""
    try:
        with archive.opened(file) as stored:
            made = Proposals(stored.get_tensor("boxes"), stored.get_tensor("ends"))
    except (OSError, SafetensorError, RuntimeError):
        return None
    fits = made.ends.shape == (count,) and made.boxes.shape == (int(made.ends[-1]), 4)
    counts = made.ends.diff(prepend=made.ends.new_zeros(1))
    whole = fits and bool(made.boxes.isfinite().all()) and bool((counts >= 0).all())
    return made if whole else None
