"""Networks on the Hugging Face hub, or in a folder of the hub's layout."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepres.models.network import Network
from deepres.runtime.errors import InputError
from deepres.weights import file as weights_file
from deepres.weights.beside import CONFIG, FILES
from deepres.weights.file import PICKLED, WEIGHTS
from deepres.weights.load import load_network

HOW = ("revision", "cache_dir", "force_download", "local_files_only", "token")  # arguments of `hf_hub_download`


class HubStorage:
    """`save_pretrained`, `push_to_hub` and `from_pretrained` of every network."""

    def save(self, net: Network, folder: Path) -> None:
        """Write the weights with their header and mean image, and the header as config.json."""
        (folder / WEIGHTS).write_bytes(weights_file.serialise(net.state_dict(), net.mean, net.header))
        (folder / CONFIG).write_text(json.dumps(net.header, indent=2) + "\n", encoding="utf-8")

    def restore(self, place: str, network: str | None, how: Mapping[str, Any]) -> Network:
        """The network in a folder, or of `owner/name` on the hub. Raises `InputError` where there is none."""
        folder = Path(place)
        asked = {name: how[name] for name in HOW if name in how}
        return load_network(folder / WEIGHTS if folder.is_dir() else fetch(place, **asked), network)


Network.storage = HubStorage()


def fetch(repository: str, **how: Any) -> Path:
    """Download the weights of the model `owner/name` of the Hugging Face hub into the hub's cache; return the file.

    The JSON files beside it are downloaded, too. `how` is passed to `hf_hub_download`. Raises `InputError` if the file
    cannot be downloaded and is not in the cache.
    """
    weights = _fetched(repository, WEIGHTS, how) or _fetched(repository, PICKLED, how)
    if weights is None:
        raise InputError(f"{WEIGHTS} of hf:{repository} could not be fetched (it has none); give another repository")
    for name in FILES:
        _fetched(repository, name, how)
    return weights


def _fetched(repository: str, name: str, how: Mapping[str, Any]) -> Path | None:
    """A downloaded file of the hub; None where the repository has no such file."""
    from huggingface_hub import _CACHED_NO_EXIST, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(repository, name, **how))
    except Exception as error:  # the client also raises errors of its HTTP library
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            return None
        place = {key: how[key] for key in ("cache_dir", "revision") if key in how}
        known = isinstance(error, LocalEntryNotFoundError) and try_to_load_from_cache(repository, name, **place)
        if known is _CACHED_NO_EXIST:  # offline, but an earlier call has found that there is no such file
            return None
        reason = next(iter(str(error).split("\n")), "").strip() or type(error).__name__
        raise InputError(
            f"{name} of hf:{repository} could not be fetched ({reason}); check the name, the network, HF_TOKEN, and "
            "that HF_HOME can be written"
        ) from None
