"""Who takes part in what."""

import importlib

from deepres.bench.job import OURS, Contestant, Work, is_from_disk
from deepres.bench.shared import torchvision_name
from deepres.runtime.errors import InputError
from deepres.serving.engine import require

NO_RIVAL = (OURS, "fast")  # our other recipe takes part where it is asked for
# Where each contestant is written: module and function of this package.
CONTESTANTS: dict[str, dict[str, str]] = {
    "train": {
        OURS: "ours:train",
        "textbook": "textbook:train",
        "tuned": "tuned:train",
        "torchvision": "zoo:torchvision",
        "timm": "zoo:timm",
        "fast": "ours:fast",
    },
    "infer": {
        OURS: "inference:ours",
        "plain": "inference:plain",
        "torchvision": "inference:torchvision",
        "timm": "inference:timm",
        "onnxruntime": "inference:onnxruntime",
        "openvino": "inference:openvino",
    },
    "load": {OURS: "ours:load", "textbook": "textbook:load", "tuned": "tuned:load"},
    "pictures": {
        OURS: "pictures:ours",
        "pil": "pictures:pil",
        "tensor": "pictures:tensor",
        "decode": "pictures:decode",
    },
    "dense": {OURS: "dense:ours", "crops": "dense:crops"},
    "photographs": {OURS: "photographs:ours", "torchvision": "photographs:torchvision"},
    "memory": {OURS: "memory:ours", "unlimited": "memory:unlimited", "textbook": "memory:textbook"},
}


def contestants(work: Work) -> dict[str, str]:
    """Who takes part: networks for ImageNet are fed from pictures on disk, the others from a resident set."""
    from_disk = {"load": "pictures", "train": "photographs"}
    return CONTESTANTS[from_disk[work.task] if is_from_disk(work) else work.task]


def rivals(work: Work) -> list[str]:
    """Names to give after --against: whoever knows such a network, and computes in that precision here."""
    return [name for name in contestants(work) if name not in NO_RIVAL and _absence(name, work) is None]


def check(name: str, work: Work) -> None:
    """Raise `InputError` for a name that does not take part in this work."""
    if name not in contestants(work):
        raise InputError(
            f"nobody called {name!r} takes part in {work.task} of {work.network}; give one of {', '.join(rivals(work))}"
        )
    absence = _absence(name, work)
    if absence is not None:
        raise InputError(absence)


def _absence(name: str, work: Work) -> str | None:
    """Why a contestant of such a task does not take part in this work, or None."""
    try:
        if name in ("torchvision", "timm"):
            torchvision_name(work)
        elif name in ("onnxruntime", "openvino"):
            require(name, work.precision)
    except InputError as trouble:
        return str(trouble)
    return None


def ready(name: str, work: Work) -> Contestant:
    """Set a contestant up. Raises `InputError` for one that does not take part in this work."""
    check(name, work)
    module, _, function = contestants(work)[name].partition(":")
    return getattr(importlib.import_module(f"deepres.bench.{module}"), function)(work)
