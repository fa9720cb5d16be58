"""The cache folder. It holds files that can be made again, such as decoded data sets and compiled kernels."""

import os
from pathlib import Path

from deepres.runtime.errors import InputError

VARIABLE = "DEEPRES_CACHE"
REMEDY = f"set {VARIABLE} to a folder that can be written"


def cache_folder() -> Path:
    """The folder in the variable `DEEPRES_CACHE`, or else the user's cache folder on this system.

    Raises `InputError` if there is neither, as for an unknown user without HOME.
    """
    try:
        return Path(os.environ.get(VARIABLE) or _of_user()).expanduser().absolute()
    except RuntimeError:
        raise InputError(f"this user has no home folder, and so no place for what is kept; {REMEDY}") from None


def _of_user() -> str:
    """The user's cache folder, by the rules of this system; from a bare source tree, by those of Linux."""
    try:
        from platformdirs import user_cache_dir
    except ModuleNotFoundError:
        return "~/.cache/deepres"
    return user_cache_dir("deepres")


def in_cache(place: object) -> bool:
    """Whether `place` (a path as text) is the cache folder, lies in it, or contains it."""
    try:
        cache = cache_folder()
    except InputError:
        return False
    return isinstance(place, str) and bool(place) and (cache.is_relative_to(place) or Path(place).is_relative_to(cache))
