"""Who takes part in what."""

import importlib

from deepres.bench.work import OURS, Contestant, Task, Work
from deepres.errors import InputError
from deepres.models.catalog import family

# Where each contestant is written: module and function of this package.
CONTESTANTS: dict[Task, dict[str, str]] = {
    "train": {
        OURS: "ours:train",
        "textbook": "textbook:train",
        "tuned": "tuned:train",
        "torchvision": "zoo:torchvision",
        "timm": "zoo:timm",
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
    "memory": {OURS: "memory:ours", "unlimited": "memory:unlimited", "textbook": "memory:textbook"},
}


def rivals(work: Work) -> list[str]:
    """Names to give after --against: whoever knows such a network."""
    foreign = ("torchvision", "timm") if family(work.network) == "cifar" else ()
    return [name for name in CONTESTANTS[work.task] if name != OURS and name not in foreign]


def check(name: str, work: Work) -> None:
    """Raise `InputError` for a name that does not take part in this work."""
    if name != OURS and name not in rivals(work):
        raise InputError(
            f"nobody called {name!r} takes part in {work.task} of {work.network}; give one of {', '.join(rivals(work))}"
        )


def ready(name: str, work: Work) -> Contestant:
    """Set a contestant up. Raises `InputError` for one that does not take part in this work."""
    check(name, work)
    module, _, function = CONTESTANTS[work.task][name].partition(":")
    return getattr(importlib.import_module(f"deepres.bench.{module}"), function)(work)
