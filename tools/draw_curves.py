"""Draw the test error over time of the paper's recipe and of `fast`: python tools/draw_curves.py.

The errors are those of docs/results, whose runs shared their machines with other work at times, and were not all on the
same one. The minutes are those of the iterations where both recipes ran in turn on one machine, which
`deepres bench train resnet20 --against fast --save benchmarks/records` keeps.
"""

import json
from pathlib import Path

from deepres.findings import Curve, Figure, Panel, Points, series_of
from deepres.report import plots

ROOT = Path(__file__).parents[1]
RECORD = "train-resnet20-b128*-fast.json"  # with bf16 in its name where it was used
RECIPES = {"paper": ("resnet20-paper", "ours"), "fast": ("resnet20-fast", "rival")}


def curve(label: str, name: str, side: str) -> Curve:
    """The test errors of a result, a seed each, against minutes at the pace of one side of the record."""
    (record,) = (json.loads(file.read_text()) for file in (ROOT / "benchmarks" / "records").glob(RECORD))
    runs = json.loads((ROOT / "docs" / "results" / f"{name}.json").read_text())

    def over_time(run: dict) -> Points:
        pace = run["recipe"]["batch_size"] / record[side]["images_per_second"] / 60
        return [pace * iteration for iteration in run["curve"]["iteration"]], run["curve"]["test_error"]

    return Curve(label, 20, "residual", {"test error": series_of([over_time(run) for run in runs])}, len(runs))


panel = Panel("Test error", tuple(curve(label, *place) for label, place in RECIPES.items()), against="minutes")
plots.save(Figure("Recipes", "", (panel,)), ROOT / "docs" / "pictures" / "resnet20-recipes.svg")
