"""Open a trained network that the user names."""

from pathlib import Path

from deepres.models.network import Network
from deepres.runtime.errors import Say
from deepres.serving.file_network import SUFFIXES, open_file
from deepres.weights.find import ready


def open_network(path: Path, say: Say, network: str | None = None, device: str = "cpu") -> Network:
    """A network from a run folder, a weights file of any kind, `hf:owner/name`, or a file of `deepres export`.

    `network` names the architecture where neither header nor tensors tell it. `device` is where the runtime of an
    exported file computes. Raises `InputError` as `ready` does for
    weights, and as `open_file` does for an exported file.
    """
    return open_file(path, say, device) if path.suffix in SUFFIXES else ready(path, say, network)
