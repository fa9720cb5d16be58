"""The tables of the paper with our figures beside its own, and tables of all runs.

For a new table of the paper, add a sheet to `cifar.py` or `imagenet.py`.
"""

from collections.abc import Mapping, Sequence
from statistics import mean

from deepres.findings import Cell, Table, describe, spread_text
from deepres.models.catalog import build
from deepres.paper.claims import Printed
from deepres.paper.evidence import Evaluated, Runs

# A row of Table 6 as the paper prints it: parameters in millions, best error, mean and standard deviation over runs.
Table6Row = tuple[float, float, float | None, float | None]


def final_errors(runs: Runs, printed: Mapping[str, Table6Row]) -> Table:
    """Training and test error at the end of each network's runs."""
    rows: list[tuple[Cell, ...]] = []
    for network, its_runs in runs.items():
        done = [done for run in its_runs if (done := run.done)]
        train, test = ([row[key] for row in done] for key in ("train_error", "test_error"))
        paper = printed[network][1] if network in printed else None
        seconds = round(mean(row["seconds"] for row in done)) if done else None
        rows.append((*describe(network)[:2], spread_text(train), spread_text(test), len(done), seconds, paper))
    return Table(
        "Final errors (%)",
        "Mean ± standard deviation over seeds, at the last iteration; training error over the last window of "
        "iterations. The paper's test error is that of its full recipe on CIFAR-10.",
        ("network", "layers", "training error", "test error", "seeds", "seconds a run", "paper: test error"),
        tuple(rows),
    )


def table6(runs: Runs, printed: Mapping[str, Table6Row], others: Mapping[str, float]) -> Table:
    """Table 6: layers, parameters, test error beside the paper's; `others` are the errors of other methods."""
    rows: list[tuple[Cell, ...]] = []
    for network, its_runs in runs.items():
        errors = [done["test_error"] for run in its_runs if (done := run.done)]
        millions, best, average, deviation = printed.get(network, (None, None, None, None))
        paper = f"{best:.2f}" if best else None
        paper = f"{paper} ({average:.2f} ± {deviation:.2f})" if average else paper
        parameters = sum(p.numel() for p in build(network).parameters()) / 1e6
        ours = f"{min(errors):.2f} ({spread_text(errors)})" if errors else None
        rows.append((*describe(network)[:2], f"{parameters:.2f}", ours, len(errors), millions, paper))
    # Other methods, which the paper prints.
    rows += [(name, None, None, None, None, None, f"{error:.2f}") for name, error in others.items()]
    columns = ("network", "layers", "parameters (M)", "test error, best (mean ± std)", "seeds")
    return Table(
        "Table 6: classification error (%)",
        "At the last iteration; 'best' is over seeds, as the paper prints it. The last two columns are the paper's.",
        (*columns, "paper: parameters (M)", "paper: test error"),
        tuple(rows),
    )


def errors_beside_the_papers(
    title: str, tested: Evaluated, labels: Mapping[str, tuple[str, int]], printed: Printed, others: Printed, part: str
) -> Table:
    """Tables 2 to 5: top-1 and top-5 error of each of `labels` (label and layers), then those of other methods.

    `part` names the part of ImageNet that the paper's figures are of.
    """
    # Ours, with the paper's beside them.
    rows: list[tuple[Cell, ...]] = []
    for network, (label, layers) in labels.items():
        errors = tested.networks[network]
        ours = (_shown(tested, [each[top] for each in errors], top) for top in (1, 5))
        rows.append((label, layers or None, *ours, len(errors), *printed.get(network, (None, None))))
    # Those of other methods, which the paper prints.
    rows += [(label, None, None, None, None, *errors) for label, errors in others.items()]
    caption = (
        f"{_how(tested)} In brackets: bootstrap 95 % interval over the test images; of several seeds: mean ± "
        f"standard deviation. The paper's figures are those of its full recipe on ImageNet, on the {part} set."
    )
    columns = ("network", "layers", "top-1 error", "top-5 error", "seeds", "paper: top-1", "paper: top-5")
    return Table(f"{title} (%)", caption, columns, tuple(rows))


def every_run(tested: Evaluated) -> Table:
    """The final errors of every run, and its errors by the protocol of the plan."""
    rows: list[tuple[Cell, ...]] = []
    for run in (run for its_runs in tested.runs.values() for run in its_runs):
        done, errors = run.done or {}, tested.errors.get(run.path)
        figures = [done.get(key) for key in ("train_error", "test_error")]
        ours = [_shown(tested, [errors[top]], top) if errors else None for top in (1, 5)]
        rows.append((run.path.name, *figures, *ours, done.get("seconds")))
    protocol = tested.protocol.name
    return Table(
        "Every run (%)",
        "At the last iteration; training error over the last window, of augmented images; test error on center "
        f"crops. {_how(tested)}",
        ("run", "training error", "test error", f"{protocol}: top-1", f"{protocol}: top-5", "seconds"),
        tuple(rows),
    )


def _how(tested: Evaluated) -> str:
    """How errors were measured, in a sentence."""
    if not tested.errors:
        return "No network is tested yet."
    sides = ", ".join(map(str, tested.protocol.sizes(tested.crop)))
    return (
        f"{tested.images:,} test images of {tested.classes:,} classes by the protocol {tested.protocol.name}, "
        f"shorter side {sides}, for crops of {tested.crop}."
    )


def _shown(tested: Evaluated, errors: Sequence[tuple[float, float, float]], top: int) -> str | None:
    """One error with its interval, or the mean of several; of five classes, the true one is always among the best."""
    if tested.classes <= top:
        return None
    if len(errors) == 1:
        error, low, high = errors[0]
        return f"{error:.2f} ({low:.2f} to {high:.2f})"
    return spread_text([error for error, *_ in errors])
