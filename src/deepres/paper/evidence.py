"""From the records of a plan to its findings: verdicts, figures in the paper's layout, tables beside the paper's."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean

import torch

from deepres.analysis.responses import layer_responses
from deepres.classification.task import spread
from deepres.data.resident import Data
from deepres.data.resident_batches import test_batches
from deepres.findings import (
    Figure,
    Findings,
    Panel,
    ResponsePanel,
    Series,
    Table,
    Verdict,
    curves_of,
    describe,
    spread_text,
    summary_of,
)
from deepres.models.catalog import build
from deepres.paper import cifar, imagenet
from deepres.paper.cifar import TABLE6_OTHERS, TABLE6_PAPER
from deepres.paper.claims import Results
from deepres.paper.plan import Plan
from deepres.paper.tables import Evaluated
from deepres.records import Run, write_json
from deepres.runtime import untrusted
from deepres.runtime.errors import InputError
from deepres.runtime.say import Say
from deepres.weights.find import ready, require_mean

EXPERIMENTS = cifar.EXPERIMENTS | imagenet.EXPERIMENTS
CLAIMS = cifar.CLAIMS | imagenet.CLAIMS
RESPONSE_IMAGES = 1_000


def findings_of(plan: Plan) -> Findings:
    """What the finished runs of a plan show; unfinished ones are missing. Raises `InputError` for a damaged plan."""
    if plan.experiment not in EXPERIMENTS:
        raise InputError(f"{plan.folder} is a plan of {plan.experiment!r}, which is not known; make it again")
    runs = plan.runs()
    results, figures, tables = _photographs(plan) if plan.experiment in imagenet.EXPERIMENTS else _small_images(plan)
    verdicts = tuple(claim.verdict(results, plan.scale) for claim in CLAIMS[plan.experiment])
    return Findings(
        title=EXPERIMENTS[plan.experiment].title,
        summary=_summary(plan, runs, verdicts),
        verdicts=verdicts,
        figures=figures,
        tables=tables,
        runs=tuple(summary_of(run) for network in runs.values() for run in network if run.exists),
    )


def _photographs(plan: Plan) -> tuple[Results, tuple[Figure, ...], tuple[Table, ...]]:
    tested = Evaluated(plan)
    return tested.results(), tested.figures(), tested.tables()


def _small_images(plan: Plan) -> tuple[Results, tuple[Figure, ...], tuple[Table, ...]]:
    runs = plan.runs()
    figures = {"fig1": _degradation, "fig6": _errors, "fig7": _responses}.get(plan.experiment, _no_figure)
    tables = (_table6(runs),) if plan.experiment == "table6" else (_final_errors(runs),)
    return _results(runs), figures(runs), tables


def measure_responses(plan: Plan, data: Data, say: Say) -> None:
    """Write `responses.json` beside every finished run that lacks it: Fig. 7 over the first test images."""
    for runs in plan.runs().values():
        for run in runs:
            file = run.path / "responses.json"
            if run.done is None or file.exists():
                continue
            say(f"{run.path.name}: standard deviation of layer responses")
            net = ready(run.path, say)
            images = data.with_channels(net.header["in_channels"])
            part = spread(images.test, RESPONSE_IMAGES)
            batches = (x for x, _ in test_batches(part, require_mean(net, run.path), 200, torch.device("cpu")))
            write_json(file, dict(layer_responses(net, batches)))


def _results(runs: Mapping[str, Sequence[Run]]) -> dict[str, list[dict[str, float]]]:
    """Final figures a network and seed, with the mean response where it was measured."""
    found: dict[str, list[dict[str, float]]] = {}
    for network, its_runs in runs.items():
        done = [(run, run.done) for run in its_runs]
        found[network] = [figures | _response(run) | {"place": run.field("seed")} for run, figures in done if figures]
    return found


def _response(run: Run) -> dict[str, float]:
    file = run.path / "responses.json"
    return {"response": mean(_of_layers(file))} if file.exists() else {}


def _of_layers(file: Path) -> list[float]:
    values = list(untrusted.read(file, dict[str, float], "delete it, and carry the plan out again", own=True).values())
    if not values:
        raise InputError(f"{file} holds no response; delete it, and carry the plan out again")
    return values


def _degradation(runs: Mapping[str, Sequence[Run]]) -> tuple[Figure, ...]:
    """Fig. 1: training error left, test error right."""
    curves = list(curves_of(runs).values())
    none = ((), ())
    left = tuple(replace(curve, test_error=none, test_range=none) for curve in curves)
    right = tuple(replace(curve, train_error=none, train_range=none) for curve in curves)
    caption = "Training error (left) and test error (right) of plain networks, as in Figure 1 of the paper."
    return (Figure("Degradation", caption, (Panel("training error", left), Panel("test error", right))),)


def _errors(runs: Mapping[str, Sequence[Run]]) -> tuple[Figure, ...]:
    """Fig. 6: plain networks left, residual ones right (middle in the paper), 110 and 1202 layers apart."""
    curves = list(curves_of(runs).values())
    residual = [curve for curve in curves if curve.kind == "residual"]
    deepest = [curve for curve in residual if curve.depth in (110, 1202)]
    groups = {
        "Plain networks": [curve for curve in curves if curve.kind == "plain"],
        "Residual networks": [curve for curve in residual if curve.depth <= 110],
        "110 and 1202 layers": deepest if any(curve.depth == 1202 for curve in deepest) else [],
        "Highway networks": [curve for curve in curves if curve.kind == "highway"],
    }
    panels = tuple(Panel(name, tuple(members)) for name, members in groups.items() if members)
    caption = "Dashed: training error. Bold: test error. As in Figure 6 of the paper."
    return (Figure("Training on images", caption, panels),)


def _responses(runs: Mapping[str, Sequence[Run]]) -> tuple[Figure, ...]:
    """Fig. 7: standard deviations of layer responses, in order and sorted; the first seed's."""
    series: list[Series] = []
    for network, its_runs in runs.items():
        files = [run.path / "responses.json" for run in its_runs]
        if files and files[0].exists():
            series.append(Series(*describe(network), _of_layers(files[0])))
    panels = (
        ResponsePanel("layer index (original)", tuple(series), sorted=False),
        ResponsePanel("layer index (sorted by magnitude)", tuple(series), sorted=True),
    )
    caption = (
        "Standard deviation of each 3x3 layer's response, after batch normalization and before the nonlinearity, over "
        f"{RESPONSE_IMAGES:,} test images, first seed. As in Figure 7 of the paper."
    )
    return (Figure("Layer responses", caption, panels),)


def _no_figure(runs: Mapping[str, Sequence[Run]]) -> tuple[Figure, ...]:
    return ()


def _table6(runs: Mapping[str, Sequence[Run]]) -> Table:
    """Table 6: layers, parameters, test error beside the paper's."""
    rows: list[tuple[str | float | int | None, ...]] = []
    for network, its_runs in runs.items():
        errors = [done["test_error"] for run in its_runs if (done := run.done)]
        millions, best, average, deviation = TABLE6_PAPER.get(network, (None, None, None, None))
        paper = f"{best:.2f}" if best else None
        paper = f"{paper} ({average:.2f} ± {deviation:.2f})" if average else paper
        parameters = sum(p.numel() for p in build(network).parameters()) / 1e6
        ours = f"{min(errors):.2f} ({spread_text(errors)})" if errors else None
        rows.append((*describe(network)[:2], f"{parameters:.2f}", ours, len(errors), millions, paper))
    rows += [(name, None, None, None, None, None, f"{error:.2f}") for name, error in TABLE6_OTHERS.items()]
    columns = ("network", "layers", "parameters (M)", "test error, best (mean ± std)", "seeds")
    return Table(
        "Table 6: classification error (%)",
        "At the last iteration; 'best' is over seeds, as the paper prints it. The last two columns are the paper's.",
        (*columns, "paper: parameters (M)", "paper: test error"),
        tuple(rows),
    )


def _final_errors(runs: Mapping[str, Sequence[Run]]) -> Table:
    """Training and test error at the end of each network's runs."""
    rows: list[tuple[str | float | int | None, ...]] = []
    for network, its_runs in runs.items():
        done = [done for run in its_runs if (done := run.done)]
        train, test = ([row[key] for row in done] for key in ("train_error", "test_error"))
        paper = TABLE6_PAPER.get(network, (None, None))[1]
        seconds = round(mean(row["seconds"] for row in done)) if done else None
        rows.append((*describe(network)[:2], spread_text(train), spread_text(test), len(done), seconds, paper))
    return Table(
        "Final errors (%)",
        "Mean ± standard deviation over seeds, at the last iteration; training error over the last window of "
        "iterations. The paper's test error is that of its full recipe on CIFAR-10.",
        ("network", "layers", "training error", "test error", "seeds", "seconds a run", "paper: test error"),
        tuple(rows),
    )


def _summary(plan: Plan, runs: Mapping[str, Sequence[Run]], verdicts: Sequence[Verdict]) -> str:
    wanted = plan.seeds * len(plan.networks)
    done = sum(run.done is not None for its_runs in runs.values() for run in its_runs)
    held = sum(verdict.status == "held" for verdict in verdicts)
    tested = sum(verdict.status != "not tested" for verdict in verdicts)
    outcome = f"{held} of the {tested} claims tested held" if tested else "No claim was tested"
    return (
        f"{outcome}. Data: {plan.data}; scale: {plan.scale}; {done} of {wanted} runs "
        f"finished ({len(plan.networks)} networks, {plan.seeds} seed{'s' if plan.seeds > 1 else ''})."
    )
