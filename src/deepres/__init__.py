"""The system of "Deep Residual Learning for Image Recognition" (He et al., 2015) as software.

from deepres import build
net = build("resnet20")
"""

from typing import TYPE_CHECKING, Any

from deepres.errors import InputError

if TYPE_CHECKING:
    from deepres.models.catalog import build

__all__ = ["InputError", "build"]


def __getattr__(name: str) -> Any:
    if name == "build":  # torch is loaded only when a network is wanted: the command line must answer at once
        from deepres.models.catalog import build

        return build
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
