"""Where files are kept that can be made again: decoded data sets, compiled kernels."""

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """`DEEPRES_CACHE`, or the user's cache folder of this system."""
    return Path(os.environ.get("DEEPRES_CACHE") or platformdirs.user_cache_dir("deepres")).expanduser().absolute()
