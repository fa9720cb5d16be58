"""The report's colours: one name, a value for light and one for dark, and which network gets which."""

from collections.abc import Iterable
from itertools import chain

from deepres.findings import Curve, Figure, Panel, PrecisionRecallPanel, ResponsePanel, Responses

# Every text colour has a contrast of 4.5 or more on `page` in both themes; the tests compute it.
# c0, c1, ... differ in hue and lightness for the common kinds of colour blindness (after Okabe and Ito).
THEME: dict[str, tuple[str, str]] = {
    "page": ("#fdfdfb", "#15181c"),
    "raised": ("#f4f3ee", "#1e2228"),
    "ink": ("#1d2126", "#e7e5df"),
    "muted": ("#5b6168", "#a5abb3"),
    "rule": ("#dcdad2", "#363c44"),
    "held": ("#14653b", "#6fd39b"),
    "failed": ("#a5261b", "#ff9a8a"),
    "c0": ("#0b5fa5", "#6cb8ff"),
    "c1": ("#c2400c", "#ff9460"),
    "c2": ("#0d7269", "#3fd0bd"),
    "c3": ("#9d2f7f", "#f59bd6"),
    "c4": ("#866000", "#e6bd4a"),
    "c5": ("#3f4c5c", "#b6c2d1"),
    "c6": ("#6d2ad8", "#b79cff"),
    "c7": ("#4a760f", "#a9d15c"),
}
LIGHT = {name: pair[0] for name, pair in THEME.items()}
LINES = [name for name in THEME if name[0] == "c" and name[1:].isdigit()]

# The paper's depths keep their colour in every figure; the two of Fig. 1 are the easiest to tell apart.
CIFAR = {8: "c0", 14: "c1", 20: "c0", 56: "c1", 32: "c2", 44: "c3", 110: "c4", 1202: "c5"}
FIXED = CIFAR | {18: "c0", 34: "c1", 50: "c2", 101: "c3", 152: "c4"}


def line_colours(figure: Figure) -> dict[str, str]:
    """The colour's name for each label of a figure: by depth, so that plain-20 and ResNet-20 are alike.

    Where a panel has several networks of one depth and kind (other recipes), each label gets its own. Classes get the
    colours in turn.
    """
    panels = [
        panel.curves if isinstance(panel, Panel) else panel.responses
        for panel in figure.panels
        if isinstance(panel, Panel | ResponsePanel)
    ]
    depths = {item.label: item.depth for item in chain.from_iterable(panels)}
    classes = [one.label for panel in figure.panels if isinstance(panel, PrecisionRecallPanel) for one in panel.classes]
    if classes or any(_clash(panel) for panel in panels):
        return {label: LINES[index % len(LINES)] for index, label in enumerate(dict.fromkeys([*depths, *classes]))}
    chosen: dict[int, str] = {}
    for depth in sorted(set(depths.values()), key=lambda depth: (depth not in FIXED, depth)):
        free = [name for name in LINES if name not in chosen.values()] or LINES
        wanted = FIXED.get(depth)
        chosen[depth] = wanted if wanted in free else free[0]
    return {label: chosen[depth] for label, depth in depths.items()}


def _clash(panel: Iterable[Curve | Responses]) -> bool:
    keys = [(item.depth, item.kind) for item in panel]
    return len(set(keys)) < len(keys)
