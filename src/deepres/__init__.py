"""The system of "Deep Residual Learning for Image Recognition" (He et al., 2015) as software.

import deepres
net = deepres.build("resnet20")          # untrained
net = deepres.load("runs/resnet20")      # a run, a weights file, or owner/name of the Hugging Face hub
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from deepres.runtime.errors import InputError

if TYPE_CHECKING:
    from deepres.models.catalog import build
    from deepres.models.network import Network
    from deepres.weights.find import load

__all__ = ["InputError", "Network", "build", "load"]
_PLACES = {"Network": "deepres.models.network", "build": "deepres.models.catalog", "load": "deepres.weights.find"}


def __getattr__(name: str) -> Any:
    """Load torch only when a network is wanted: the command line must answer at once."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import_module("deepres.weights.hub")  # so that networks can be saved and fetched
    return getattr(import_module(_PLACES[name]), name)
