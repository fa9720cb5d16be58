"""Data sets of the Hugging Face hub."""

from pathlib import Path

from deepres.runtime.errors import InputError, Say


def fetch_from_hub(repository: str, say: Say) -> Path:
    """Download the Parquet files of the data set `owner/name` into the hub's cache and return their folder.

    A copy in the cache serves where the hub cannot be reached. Raises `InputError` where there is neither,
    for a name that the hub does not know, and for a data set without Parquet files.
    """
    from huggingface_hub import snapshot_download

    say(f"hf:{repository}: fetching from the Hugging Face hub")
    try:
        folder = Path(snapshot_download(repository, repo_type="dataset", allow_patterns=["*.parquet"]))
    except Exception as error:  # the hub's client lets through errors of the HTTP library that it is built on
        reason = next(iter(str(error).split("\n")), "").strip() or type(error).__name__
        raise InputError(
            f"hf:{repository} could not be fetched ({reason}); check the name, the network, HF_TOKEN, "
            "and that HF_HOME can be written"
        ) from None
    if next(folder.rglob("*.parquet"), None) is None:
        raise InputError(f"hf:{repository} has no Parquet files; download it and give a folder of images instead")
    return folder
