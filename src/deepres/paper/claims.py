"""The paper's claims, and the verdict of finished runs on each: held, not held, or not tested.

Here are the kinds of claims; the claims themselves stand in the sheets, in `cifar.py`, `imagenet.py`, `detection.py`
and `localization.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean

from deepres.findings import Verdict, describe
from deepres.paper.plan import Scale

# Final figures of each network, one entry for each finished seed: `train_error` and `test_error` in %, `response` (the
# mean of the layer responses); for photographs also `top1` and `top5` in % by the protocol of the sheet, and `classes`,
# the number of classes. Detectors have `classes` and mean average precisions in %: `map07` and `map12` by the rules of
# VOC 2007 and 2012, `map50` and `map` (IoU 0.5 to 0.95) by COCO's, `mapdet` by those of ImageNet detection; of masks
# `mapr50` and `mapr70`, and `mask_map` by COCO's. `place` is the seed: networks are compared at the same one. Without
# it, seeds are in order.
Results = Mapping[str, Sequence[Mapping[str, float]]]
Judge = Callable[[Results], tuple[bool, str]]
Printed = Mapping[str, tuple[float | None, float | None]]  # top-1 and top-5 error of each network in the paper, in %
WITHIN = (1.0, 0.5)  # points that our top-1 and top-5 error may differ from the printed ones
NAMES = {
    "train_error": "training error (%)",
    "test_error": "test error (%)",
    "top1": "top-1 error (%)",
    "top5": "top-5 error (%)",
    "response": "mean response",
    "map07": "mAP@.5, VOC 2007 (%)",
    "map12": "mAP@.5, VOC 2012 (%)",
    "map50": "mAP@.5 (%)",
    "map": "mAP@[.5,.95] (%)",
    "mapdet": "mAP@.5, ILSVRC (%)",
    "mapr50": "mAP^r@.5 (%)",
    "mapr70": "mAP^r@.7 (%)",
    "mask_map": "mask mAP@[.5,.95] (%)",
    "loc_given": "localization error, class given (%)",
    "loc_top5": "top-5 localization error (%)",
}
DIGITS = {"response": 3}  # decimals of the figures that are not shown with one


@dataclass(frozen=True)
class Claim:
    """A statement of the paper, its place there, the scales at which a plan can test it, and the judge.

    `classes` is the number of classes that the data must have, for a claim about ImageNet alone. Where `quick` is
    given, it is the judge at the quick scale, whose few images do not show small differences.
    """

    text: str
    place: str
    networks: tuple[str, ...]
    judge: Judge
    scales: tuple[Scale, ...] = ("quick", "paper")
    classes: int | None = None
    quick: Judge | None = None

    def verdict(self, results: Results, scale: Scale) -> Verdict:
        """The verdict on finished runs; `not tested` where the scale is too small or a network has no result."""
        # Find a reason why it cannot be tested.
        missing = [name for name in self.networks if not results.get(name)]
        results, reason = _of_common_seeds({name: results.get(name, ()) for name in self.networks}), None
        if scale not in self.scales:
            reason = f"not tested at this scale: {scale} is too short for it"
        elif missing:
            reason = f"no finished run of {', '.join(missing)}"
        elif not results[self.networks[0]]:
            reason = f"no seed at which runs of {', '.join(self.networks)} are all finished"
        elif self.classes is not None and (found := results[self.networks[0]][0]["classes"]) != self.classes:
            reason = f"the data have {found:,} classes, ImageNet has {self.classes:,}"
        if reason is not None:
            return Verdict(self.text, self.place, "not tested", reason)
        # Ask the judge of the scale.
        judge = self.quick if scale == "quick" and self.quick is not None else self.judge
        held, detail = judge(results)
        return Verdict(self.text, self.place, "held" if held else "not held", detail)


def _of_common_seeds(results: Results) -> Results:
    """The figures of the seeds that all networks have, each network's in the same order."""
    by_place = {
        name: {row.get("place", number): row for number, row in enumerate(rows)} for name, rows in results.items()
    }
    common = sorted(set[float].intersection(*map(set[float], by_place.values()))) if by_place else []
    return {name: [rows[place] for place in common] for name, rows in by_place.items()}


def higher(figure: str, worse: str, better: str, margin: float) -> Judge:
    """Judge: `figure` of `worse` is above that of `better` by more than `margin` (points) for every seed."""

    def judge(results: Results) -> tuple[bool, str]:
        pairs = list(zip(_values(results, worse, figure), _values(results, better, figure), strict=True))
        held = all(high - low > margin for high, low in pairs)
        return held, _compared(figure, worse, better, pairs) + f"; asked: above by more than {margin:g}, every seed"

    return judge


def not_higher(figure: str, deep: str, shallow: str, margin: float) -> Judge:
    """Judge: the mean of `figure` of `deep` is above that of `shallow` by `margin` (points) at most."""

    def judge(results: Results) -> tuple[bool, str]:
        pairs = list(zip(_values(results, deep, figure), _values(results, shallow, figure), strict=True))
        held = mean(high - low for high, low in pairs) <= margin
        return held, _compared(figure, deep, shallow, pairs) + f"; asked: above by {margin:g} at most, on average"

    return judge


def beyond(figure: str, network: str, bound: float, *, below: bool) -> Judge:
    """Judge: the mean of `figure` of `network` is below, or above, `bound`."""

    def judge(results: Results) -> tuple[bool, str]:
        value = mean(_values(results, network, figure))
        side = "below" if below else "above"
        return (value < bound) == below, f"{describe(network)[0]} {NAMES[figure]} {value:.2f}; asked: {side} {bound:g}"

    return judge


def ordered(figure: str, *networks: str, margin: float = 0.0) -> Judge:
    """Judge: `figure` of each network is above that of the next one by more than `margin` (points) for every seed."""

    def judge(results: Results) -> tuple[bool, str]:
        values = [_values(results, network, figure) for network in networks]
        more = f" by more than {margin:g}" if margin else ""
        held = all(high - low > margin for pair in pairwise(values) for high, low in zip(*pair, strict=True))
        shown = ", ".join(f"{describe(name)[0]} {mean(own):.2f}" for name, own in zip(networks, values, strict=True))
        return held, f"{NAMES[figure]}: {shown}; asked: each above the next{more}, every seed"

    return judge


def printed(paper: Printed) -> Judge:
    """Judge: the mean of every error that the paper prints is within a point of it (top-1), or half a point (top-5)."""
    within: dict[str, float] = dict(zip(("top1", "top5"), WITHIN, strict=True))
    numbers = [
        (network, figure, number)
        for network, both in paper.items()
        for figure, number in zip(within, both, strict=True)
        if number is not None
    ]
    return _near(numbers, within, f"within {WITHIN[0]:g} point of every top-1 error, {WITHIN[1]:g} of top-5")


def close(paper: Mapping[str, Mapping[str, float]], within: float) -> Judge:
    """Judge: the mean of every figure that the paper prints is `within` so many points of it."""
    numbers = [(network, figure, number) for network, own in paper.items() for figure, number in own.items()]
    return _near(numbers, {figure: within for _, figure, _ in numbers}, f"within {within:g} of every figure")


def _near(numbers: Sequence[tuple[str, str, float]], within: Mapping[str, float], asked: str) -> Judge:
    """Judge: the mean of each figure of a network differs from the number by no more than its points in `within`."""

    def judge(results: Results) -> tuple[bool, str]:
        gaps = [mean(_values(results, network, figure)) - number for network, figure, number in numbers]
        shares = [abs(gap) / within[figure] for gap, (_, figure, _) in zip(gaps, numbers, strict=True)]
        worst = shares.index(max(shares))
        network, figure, number = numbers[worst]
        return max(shares) <= 1, (
            f"furthest from the paper: {describe(network)[0]}, {NAMES[figure]} {number + gaps[worst]:.2f}, printed "
            f"{number:.2f}; asked: {asked}"
        )

    return judge


def _values(results: Results, network: str, figure: str) -> list[float]:
    return [row[figure] for row in results[network]]


def _compared(figure: str, first: str, second: str, pairs: Sequence[tuple[float, float]]) -> str:
    a, b = mean(pair[0] for pair in pairs), mean(pair[1] for pair in pairs)
    seeds = f"{len(pairs)} seed{'s' if len(pairs) > 1 else ''}"
    digits = DIGITS.get(figure, 1)
    gaps = ", ".join(f"{x - y:+.{digits}f}" for x, y in pairs)
    nets = f"{describe(first)[0]} {a:.{digits}f}, {describe(second)[0]} {b:.{digits}f}"
    return f"{NAMES[figure]}: {nets} ({seeds}; differences {gaps})"
