"""The system of "Deep Residual Learning for Image Recognition" (He et al., 2015) as software.

import deepres
net = deepres.build("resnet20")          # untrained
net = deepres.load("runs/resnet20")      # a run, a weights file, or owner/name of the Hugging Face hub
"""

from typing import TYPE_CHECKING, Any

from deepres.errors import InputError

if TYPE_CHECKING:
    from deepres.experiments.exchange import load
    from deepres.models.catalog import build
    from deepres.models.network import Network

__all__ = ["InputError", "Network", "build", "load"]


def __getattr__(name: str) -> Any:
    if name == "build":  # torch is loaded only when a network is wanted: the command line must answer at once
        from deepres.models.catalog import build

        return build
    if name == "Network":
        from deepres.models.network import Network

        return Network
    if name == "load":
        from deepres.experiments.exchange import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
