"""Where files are kept that can be made again: decoded data sets, compiled kernels."""

import os
from pathlib import Path

import platformdirs

from deepres.runtime.errors import InputError

VARIABLE = "DEEPRES_CACHE"
REMEDY = f"set {VARIABLE} to a folder that can be written"


def cache_folder() -> Path:
    """`DEEPRES_CACHE`, or the user's cache folder of this system.

    Raises `InputError` where there is neither: for a user whom the system does not know, without HOME.
    """
    try:
        return Path(os.environ.get(VARIABLE) or platformdirs.user_cache_dir("deepres")).expanduser().absolute()
    except RuntimeError:
        raise InputError(f"this user has no home folder, and so no place for what is kept; {REMEDY}") from None


def in_cache(place: object) -> bool:
    """Whether the cache folder lies in the file or folder `place`, or that in the cache folder."""
    try:
        cache = cache_folder()
    except InputError:
        return False
    return isinstance(place, str) and bool(place) and (cache.is_relative_to(place) or Path(place).is_relative_to(cache))
