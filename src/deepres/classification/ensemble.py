"""Several networks as one: the weighted mean of their softmax scores (Sec. 3.4 and Table 5)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from deepres.runtime.errors import InputError


def member_weights(members: int, weights: Sequence[float] | None = None) -> tuple[float, ...]:
    """The weights of the members, scaled to sum to 1; equal ones where none are given.

    Raises `InputError` where the number of weights is not that of members, a weight is negative or not finite, or all
    are 0.
    """
    given = tuple(weights) if weights else (1.0,) * members
    if len(given) != members:
        raise InputError(f"there are {len(given)} member weights for {members} members; give one weight a member")
    if not all(weight >= 0 and math.isfinite(weight) for weight in given) or sum(given) == 0:
        shown = ", ".join(f"{weight:g}" for weight in given)
        raise InputError(f"the member weights {shown} are not 0 or more with one above 0; mend them")
    return tuple(weight / sum(given) for weight in given)


def average(scores: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The weighted mean, float64 (N, K), of the members' softmax scores, each (N, K)."""
    products = (weight * own.double() for own, weight in zip(scores, weights, strict=True))
    return sum(products, torch.zeros((), dtype=torch.float64))
