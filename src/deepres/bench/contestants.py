"""The contestants of each task, and which of them can do a job."""

import importlib

import torch

from deepres.bench.inputs import torchvision_name
from deepres.bench.job import OURS, Contestant, Job, is_detector, is_from_disk
from deepres.data.stream.uncut import require_nvjpeg
from deepres.runtime.errors import InputError
from deepres.serving.engine import require

NO_RIVAL = (OURS, "fast")  # the recipe `fast` is ours, too: it takes part only when it is named


def _of(module: str, *names: str) -> dict[str, str]:
    """Contestants that are made by the functions of their names in one module."""
    return {name: f"{module}:{name}" for name in names}


# For each task: the contestants, each with the module and function of this package that make it.
CONTESTANTS: dict[str, dict[str, str]] = {
    "train": {
        OURS: "ours:train",
        "textbook": "textbook:train",
        "tuned": "tuned:train",
        "torchvision": "library_networks:torchvision",
        "timm": "library_networks:timm",
        "fast": "ours:fast",
    },
    "infer": _of("inference", OURS, "plain", "torchvision", "timm", "onnxruntime", "openvino"),
    "load": {OURS: "ours:load_batches", "textbook": "textbook:load_batches", "tuned": "tuned:load_batches"},
    "pictures": _of("pictures", OURS, "pil", "tensor", "decode"),
    "dense": _of("dense", OURS, "crops"),
    "photographs": _of("photographs", OURS, "torchvision", "nvjpeg"),
    "memory": _of("memory", OURS, "unlimited", "textbook"),
}
# The same on a GPU.
ON_GPU: dict[str, dict[str, str]] = {
    "train": {
        OURS: "steady:train",
        "textbook": "gpu_rivals:textbook",
        "tuned": "tuned_gpu:train",
        "torchvision": "library_networks:torchvision",
        "timm": "library_networks:timm",
    },
    "infer": {"tuned": "tuned_gpu:infer"}
    | _of("inference", OURS, "plain", "torchvision", "timm", "onnxruntime", "tensorrt"),
}
# The same with a detector, on any device.
DETECTORS: dict[str, dict[str, str]] = {
    "train": {OURS: "detectors:train", "torchvision": "detectors:torchvision"},
    "infer": {OURS: "detectors:infer"} | _of("detectors", "torchvision", "scales", "refinement"),
    "memory": {
        OURS: "detectors:memory",
        "unlimited": "detectors:unlimited",
        "torchvision": "detectors:torchvision_memory",
    },
}


def contestants(job: Job) -> dict[str, str]:
    """The contestants for a job, each with its module and function."""
    from_disk = {"load": "pictures", "train": "photographs"}
    if is_detector(job):
        if job.task not in DETECTORS:
            raise InputError(f"detectors take part in {', '.join(DETECTORS)} alone, not in {job.task}")
        return DETECTORS[job.task]
    if is_from_disk(job):
        return CONTESTANTS[from_disk[job.task]]
    return (CONTESTANTS if job.device == "cpu" else ON_GPU)[job.task]


def rivals(job: Job) -> list[str]:
    """The names for --against: rivals that have the network and compute in the precision on this machine."""
    return [name for name in contestants(job) if name not in NO_RIVAL and _takes_part(name, job)]


def check(name: str, job: Job) -> None:
    """Raise `InputError`, with the reason, for a name that does not take part in this job."""
    if name not in contestants(job):
        raise InputError(
            f"nobody called {name!r} takes part in {job.task} of {job.network}; give one of {', '.join(rivals(job))}"
        )
    if name in ("torchvision", "timm"):
        torchvision_name(job)
    elif name in ("onnxruntime", "openvino", "tensorrt"):
        require(name, job.precision, job.device)
    elif name == "nvjpeg":
        require_nvjpeg(torch.device(job.device))


def _takes_part(name: str, job: Job) -> bool:
    try:
        check(name, job)
    except InputError:
        return False
    return True


def ready(name: str, job: Job) -> Contestant:
    """Set up the contestant `name`. Raises `InputError` where it does not take part in this job."""
    check(name, job)
    if job.device == "cuda" and name not in NO_RIVAL:
        import torch

        torch.backends.cudnn.allow_tf32 = True  # PyTorch's default, which our runs switch off
    module, _, function = contestants(job)[name].partition(":")
    return getattr(importlib.import_module(f"deepres.bench.{module}"), function)(job)
