"""What every network here has in common."""

import json
from pathlib import Path
from typing import Any, Self

from huggingface_hub import ModelHubMixin
from torch import Tensor, nn

from deepres.models import weights

WEIGHTS, CONFIG = "model.safetensors", "config.json"  # the names that the hub knows
HOW = ("revision", "cache_dir", "force_download", "local_files_only", "token")  # a file is fetched from there


class Network(
    nn.Module,
    ModelHubMixin,
    library_name="deepres",
    pipeline_tag="image-classification",
    paper_url="https://arxiv.org/abs/1512.03385",
):
    """A network of the catalog, under its `name`.

    `header` says which one it is and, of trained weights, where they come from; `mean` (C, H, W) or (C, 1, 1), in
    0..1, is what its inputs lack. Both go with the weights through `save_pretrained`, `push_to_hub` and
    `from_pretrained` of the Hugging Face hub.
    """

    name: str
    header: dict[str, Any]
    mean: Tensor | None = None

    def _save_pretrained(self, save_directory: Path) -> None:
        (save_directory / WEIGHTS).write_bytes(weights.serialise(self.state_dict(), self.mean, self.header))
        (save_directory / CONFIG).write_text(json.dumps(self.header, indent=2) + "\n")

    @classmethod
    def _from_pretrained(cls, *, model_id: str, network: str | None = None, **how: Any) -> Self:
        from deepres.models.pretrained import fetch, load  # which know all networks, as this class does not

        folder = Path(model_id)
        asked = {name: how[name] for name in HOW if name in how}
        net = load(folder / WEIGHTS if folder.is_dir() else fetch(model_id, **asked), network)
        if not isinstance(net, cls):
            raise TypeError(f"{model_id} is a {type(net).__name__}, not a {cls.__name__}")
        return net


def global_average(features: Tensor) -> Tensor:
    """Global average pooling: (N, C, H, W) to (N, C)."""
    return features.mean((2, 3))
