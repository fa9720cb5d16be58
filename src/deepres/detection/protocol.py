"""How a detector is tested: the settings of its plan unless others are given, and the improvements of Appendix B."""

from dataclasses import asdict, dataclass, replace

from deepres.models.detection.plan import BOUNDS, DetectorPlan
from deepres.runtime.errors import InputError

MOST_ROUNDS, MOST_SCALES = 10, 16
VOTING = 0.5  # IoU of a neighbour that votes, as MR-CNN has it
OWN = ("side", "longest", "proposals", "threshold", "nms", "most")  # fields that replace those of a plan
PLAN = DetectorPlan()


@dataclass(frozen=True)
class Protocol:
    """A test of detectors. The default is that of Faster R-CNN, with the settings of each network's own plan.

    `refine` and `voting` are box refinement, `scales` are multi-scale testing (Appendix B). Proposals always come from
    the image with its shorter side at `side`. Several networks under one protocol are an ensemble; global context is
    a part of the network. Raises `InputError` for values that make no sense.
    """

    side: int | None = None  # pixels of an image's shorter side; None: the network's own
    longest: int | None = None  # pixels of its longer side at most; None: the network's own, in proportion to `side`
    scales: tuple[int, ...] = ()  # shorter sides at which regions are pooled, two for each; none: `side` alone
    refine: int = 0  # times that regions are pooled again from their regressed boxes
    voting: float = 0.0  # IoU from which on candidates vote on a detection's box; 0: no voting
    proposals: int | None = None  # of an image; here and below, None is the network's own, of an ensemble the first's
    threshold: float | None = None  # least score of a detection
    nms: float | None = None  # detections of one class overlap less
    most: int | None = None  # detections of an image

    def __post_init__(self) -> None:
        replace(PLAN, **self._given)
        least, most = BOUNDS["side"]
        if len(set(self.scales)) < len(self.scales) or len(self.scales) > MOST_SCALES:
            raise InputError(f"scales are {_listed(self.scales)}, but must be up to {MOST_SCALES} that differ")
        if not all(least <= scale <= most for scale in self.scales):
            raise InputError(f"scales are {_listed(self.scales)}, but must be from {least} to {most:,} pixels")
        for name, value, end in (("refine", self.refine, MOST_ROUNDS), ("voting", self.voting, 1)):
            if not 0 <= value <= end:
                raise InputError(f"{name} is {value}, but must be from 0 to {end}")

    @property
    def _given(self) -> dict[str, int | float]:
        return {name: value for name in OWN if (value := getattr(self, name)) is not None}

    def plan(self, own: DetectorPlan) -> DetectorPlan:
        """The plan of a network with the settings of this test in the place of its own."""
        given = self._given
        if "side" in given and "longest" not in given:
            given["longest"] = longest_at(self.side or own.side, own)
        return replace(own, **given)

    def gives_masks(self, networks: int) -> bool:
        """Whether a cascade has masks in this test: alone, at one scale. Else it is tested as a detector of boxes."""
        return networks == 1 and not (self.scales or self.refine or self.voting)

    def facts(self, own: DetectorPlan) -> dict[str, object]:
        """All settings of the test of a network with the plan `own`, for a record."""
        plan = asdict(self.plan(own))
        improvements: dict[str, object] = {"scales": list(self.scales), "refine": self.refine, "voting": self.voting}
        return improvements | {name: plan[name] for name in OWN}

    def title(self, context: bool = False, networks: int = 1) -> str:
        """The name of the row of a table, as Tables 9 and 11 have them, for `networks` with or without `context`."""
        refined = {(True, True): "box refinement", (True, False): "box refinement without voting"}
        refined[False, True] = "box voting"
        parts = [refined.get((self.refine > 0, self.voting > 0), ""), "context" * context]
        parts += ["multi-scale testing" * (len(self.scales) > 1), f"ensemble of {networks}" * (networks > 1)]
        return " ".join(f"+ {part}" for part in parts if part) or "baseline"


def pyramid(side: int) -> tuple[int, ...]:
    """The shorter sides of multi-scale testing: 200, 400, 600, 800 and 1000 for a `side` of 600, else in proportion.

    None is beyond the bounds of a side.
    """
    least, most = map(int, BOUNDS["side"])
    return tuple(dict.fromkeys(min(max(round(side * third / 3), least), most) for third in range(1, 6)))


def longest_at(scale: int, plan: DetectorPlan) -> int:
    """The longest side of an image whose shorter one is `scale`: as much longer as the plan has it at its own side."""
    return min(round(plan.longest * scale / plan.side), int(BOUNDS["longest"][1]))


def _listed(scales: tuple[int, ...]) -> str:
    return ", ".join(map(str, scales))
