"""Who takes part in what."""

import importlib

from deepres.bench.inputs import torchvision_name
from deepres.bench.job import OURS, Contestant, Job, is_from_disk
from deepres.runtime.errors import InputError
from deepres.serving.engine import require

NO_RIVAL = (OURS, "fast")  # our other recipe takes part where it is asked for
# Where each contestant is written: module and function of this package.
CONTESTANTS: dict[str, dict[str, str]] = {
    "train": {
        OURS: "ours:train",
        "textbook": "textbook:train",
        "tuned": "tuned:train",
        "torchvision": "library_networks:torchvision",
        "timm": "library_networks:timm",
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
    "load": {OURS: "ours:load_batches", "textbook": "textbook:load_batches", "tuned": "tuned:load_batches"},
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


def contestants(job: Job) -> dict[str, str]:
    """Who takes part: networks for ImageNet are fed from pictures on disk, the others from a resident set."""
    from_disk = {"load": "pictures", "train": "photographs"}
    return CONTESTANTS[from_disk[job.task] if is_from_disk(job) else job.task]


def rivals(job: Job) -> list[str]:
    """Names to give after --against: whoever knows such a network, and computes in that precision here."""
    return [name for name in contestants(job) if name not in NO_RIVAL and _absence(name, job) is None]


def check(name: str, job: Job) -> None:
    """Raise `InputError` for a name that does not take part in this job."""
    if name not in contestants(job):
        raise InputError(
            f"nobody called {name!r} takes part in {job.task} of {job.network}; give one of {', '.join(rivals(job))}"
        )
    absence = _absence(name, job)
    if absence is not None:
        raise InputError(absence)


def _absence(name: str, job: Job) -> str | None:
    """Why a contestant of such a task does not take part in this job, or None."""
    try:
        if name in ("torchvision", "timm"):
            torchvision_name(job)
        elif name in ("onnxruntime", "openvino"):
            require(name, job.precision)
    except InputError as trouble:
        return str(trouble)
    return None


def ready(name: str, job: Job) -> Contestant:
    """Set a contestant up. Raises `InputError` for one that does not take part in this job."""
    check(name, job)
    module, _, function = contestants(job)[name].partition(":")
    return getattr(importlib.import_module(f"deepres.bench.{module}"), function)(job)
