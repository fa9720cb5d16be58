"""Draw runs for the docs against the minutes that they take: python tools/draw_curves.py FILE.svg LABEL=RUN[,RUN...]...

The runs of a label are its seeds. A minute has as many iterations as in the median interval between two tests of a run,
tests included: spells in which a run was held still, or shared the machine, do not count.
"""

import dataclasses
import statistics
import sys
from itertools import pairwise
from pathlib import Path

from deepres.experiments.findings import Curve, Figure, Panel, Points, curve_of
from deepres.records import Run
from deepres.report import plots


def minutes_an_iteration(run: Run) -> float:
    """The median over the intervals between tests."""
    marks = [(0, 0.0), *((row["iteration"], row["seconds"]) for row in run.timing())]
    pace = [(later - sooner) / (end - start) for (start, sooner), (end, later) in pairwise(marks)]
    return statistics.median(pace) / 60


def curve(label: str, runs: list[Run]) -> Curve:
    """The curve of a recipe, over minutes."""
    drawn = curve_of(runs, label)
    pace = statistics.median(map(minutes_an_iteration, runs))

    def moved(points: Points) -> Points:
        return tuple(pace * at for at in points[0]), points[1]

    return dataclasses.replace(drawn, train_error=moved(drawn.train_error), test_error=moved(drawn.test_error))


def main(file: str, *labelled: str) -> None:
    groups = [name.split("=") for name in labelled]
    curves = tuple(curve(label, [Run(Path(place)) for place in places.split(",")]) for label, places in groups)
    panel = Panel("Training and test error", curves, against="minutes")
    plots.save(Figure("Recipes", "", (panel,)), Path(file))


main(*sys.argv[1:])
