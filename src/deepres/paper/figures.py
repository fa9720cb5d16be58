"""The figures of the paper, in its layout, from the records of runs."""

from dataclasses import replace

from deepres.findings import Curve, Figure, Panel, ResponsePanel, Responses, curves_of, describe
from deepres.paper.evidence import RESPONSE_IMAGES, Runs, responses_of


def degradation(runs: Runs) -> Figure:
    """Fig. 1: training error left, test error right."""
    curves = curves_of(runs).values()
    names = ("training error", "test error")
    panels = (Panel(name, tuple(replace(own, series={name: own.series[name]}) for own in curves)) for name in names)
    caption = "Training error (left) and test error (right) of plain networks, as in Figure 1 of the paper."
    return Figure("Degradation", caption, tuple(panels))


def photographs(runs: Runs) -> Figure:
    """Fig. 4: networks without shortcuts left, with them right."""
    curves = curves_of(runs).values()
    groups = {
        "Plain networks": [curve for curve in curves if curve.kind == "plain"],
        "Residual networks": [curve for curve in curves if curve.kind != "plain"],
    }
    caption = "Dashed: training error. Bold: test error on center crops. As in Figure 4 of the paper."
    return Figure("Training on photographs", caption, _panels(groups))


def small_images(runs: Runs) -> Figure:
    """Fig. 6: plain networks left, residual ones right (middle in the paper), 110 and 1202 layers apart."""
    curves = curves_of(runs).values()
    residual = [curve for curve in curves if curve.kind == "residual"]
    deepest = [curve for curve in residual if curve.depth in (110, 1202)]
    groups = {
        "Plain networks": [curve for curve in curves if curve.kind == "plain"],
        "Residual networks": [curve for curve in residual if curve.depth <= 110],
        "110 and 1202 layers": deepest if any(curve.depth == 1202 for curve in deepest) else [],
        "Highway networks": [curve for curve in curves if curve.kind == "highway"],
    }
    caption = "Dashed: training error. Bold: test error. As in Figure 6 of the paper."
    return Figure("Training on images", caption, _panels(groups))


def responses(runs: Runs) -> Figure:
    """Fig. 7: standard deviations of layer responses, in order and sorted; the first seed's."""
    first = {network: responses_of(its_runs[0]) for network, its_runs in runs.items()}
    measured = tuple(Responses(*describe(network), values) for network, values in first.items() if values is not None)
    panels = (
        ResponsePanel("layer index (original)", measured, sorted=False),
        ResponsePanel("layer index (sorted by magnitude)", measured, sorted=True),
    )
    caption = (
        "Standard deviation of each 3x3 layer's response, after batch normalization and before the nonlinearity, over "
        f"{RESPONSE_IMAGES:,} test images, first seed. As in Figure 7 of the paper."
    )
    return Figure("Layer responses", caption, panels)


def _panels(groups: dict[str, list[Curve]]) -> tuple[Panel, ...]:
    return tuple(Panel(name, tuple(members)) for name, members in groups.items() if members)
