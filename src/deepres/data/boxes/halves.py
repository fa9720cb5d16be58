"""Divides pictures into two halves with about as many objects of each class: val1 and val2 of ImageNet detection."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

CANDIDATES = 16  # divisions, of which the best is taken
ROUNDS = 4  # of the search that improves a candidate, each over all classes
TRIED = 64  # exchanges that are tried for a class
SCALE = 2**12  # of imbalances as integers, so that every machine finds the same division


class Halves(NamedTuple):
    """Which pictures are in the second half, bool (N,), and the imbalance of each class that has an object, sorted."""

    second: Tensor
    imbalances: Tensor

    def __str__(self) -> str:
        most, median = (f"{100 * float(own):.1f} %" for own in (self.imbalances.max(), self.imbalances.median()))
        return f"relative imbalance of classes at most {most}, median {median}"


def halves(counts: Tensor, seed: int = 0) -> Halves:
    """The best of many random divisions, for `counts` int64 (N, C): the objects of each class in each picture.

    This is the division of R-CNN (Girshick et al. 2014, Sec. 3.1), on which Table 12 is measured. A class with a and b
    objects in the halves has the relative imbalance |a - b| / (a + b), and the division with the smallest largest one
    is taken. Each candidate puts one of two similar pictures into each half, by chance, and is improved by a random
    search that exchanges pictures. How pictures are grouped and searched is not printed. The same counts give the same
    halves.
    """
    generator = torch.Generator().manual_seed(seed)
    used = counts[:, counts.sum(0) > 0]
    if not used.numel():
        return Halves(torch.arange(len(counts)) % 2 == 1, torch.zeros(1))
    candidates = [_candidate(used, generator) for _ in range(CANDIDATES)]
    best = min(candidates, key=lambda second: _rank(used, second))
    return Halves(best, imbalances(used, best).sort().values)


def imbalances(counts: Tensor, second: Tensor) -> Tensor:
    """The relative imbalance of each class, float64 (C,); nan for a class without objects."""
    totals = counts.sum(0)
    return (totals - 2 * counts[second].sum(0)).abs().double() / totals


def _rank(counts: Tensor, second: Tensor) -> tuple[float, float]:
    own = imbalances(counts, second)
    return float(own.max()), float(own.median())


def _candidate(counts: Tensor, generator: torch.Generator) -> Tensor:
    """One division, bool (N,)."""
    # Of each two similar pictures, one goes into each half, by chance.
    order = _alike(counts, generator)
    coins = torch.randint(2, ((len(order) + 1) // 2, 1), generator=generator).bool()
    sides = torch.cat((coins, ~coins), 1).flatten()[: len(order)]
    second = torch.empty_like(sides).scatter_(0, order, sides)
    # One class after another: exchange a picture of the half that has more with one of the other.
    totals, surplus = counts.sum(0), counts[~second].sum(0) - counts[second].sum(0)
    having = [own.nonzero()[:, 0] for own in counts.unbind(1)]
    for label in [*range(counts.shape[1])] * ROUNDS:
        fuller = bool(surplus[label] < 0)
        own = having[label][second[having[label]] == fuller]
        other = (second != fuller).nonzero()[:, 0]
        if not surplus[label] or not len(other):
            continue
        own, other = (some[torch.randint(len(some), (TRIED,), generator=generator)] for some in (own, other))
        moved = counts[own] - counts[other]
        changed = surplus + 2 * moved if fuller else surplus - 2 * moved
        costs = _cost(changed, totals)
        best = int(costs.argmin())
        if costs[best] < _cost(surplus, totals):
            surplus = changed[best]
            second[own[best]], second[other[best]] = not fuller, fuller
    return second


def _alike(counts: Tensor, generator: torch.Generator) -> Tensor:
    """The pictures in an order in which similar ones are neighbours: by their rarest class, then by its objects.

    Of those that agree, the order is random.
    """
    rarity = torch.where(counts > 0, counts.sum(0), torch.iinfo(torch.int64).max)
    rarest = rarity.argmin(1)
    own = counts.gather(1, rarest[:, None])[:, 0]
    key = rarest * (int(counts.max()) + 1) + own
    shuffled = torch.randperm(len(counts), generator=generator)
    return shuffled[key[shuffled].argsort(stable=True)]


def _cost(surplus: Tensor, totals: Tensor) -> Tensor:
    """What is made small: the fourth powers of the imbalances, summed over classes, (..., C) to (...)."""
    return (surplus.abs() * SCALE // totals).pow(4).sum(-1)


def counted(labels: Sequence[Sequence[int]], classes: int) -> Tensor:
    """The objects of each class in each picture, int64 (N, classes), from the classes of the objects of each."""
    found = torch.zeros(len(labels), classes, dtype=torch.int64)
    for row, own in zip(found, labels, strict=True):
        row += torch.tensor(own, dtype=torch.int64).bincount(minlength=classes)
    return found
