"""Numbers in environment variables, whose names begin with DEEPRES_."""

import math
import os

from deepres.runtime.errors import InputError


def whole(name: str, default: int) -> int:
    """The whole number from 1 up in the variable `name`, or `default`. Raises `InputError` for anything else."""
    text = os.environ.get(name, "") or str(default)
    if not (text.isdecimal() and len(text) < len(str(2**63)) and int(text)):
        raise InputError(f"{name} is {text!r}; give a whole number from 1 up, or unset it")
    return int(text)


def number(name: str, default: float) -> float:
    """The number from 0 up in the variable `name`, or `default`. Raises `InputError` for anything else."""
    text = os.environ.get(name, "") or str(default)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise InputError(f"{name} is {text!r}; give a number from 0 up, or unset it")
    return value
