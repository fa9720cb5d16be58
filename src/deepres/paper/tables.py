"""Figure 4 and Tables 2 to 5: trained networks tested by a protocol, and what their scores on disk show."""

from collections.abc import Sequence
from pathlib import Path

from deepres.classification import score_table
from deepres.classification.accuracy import Scores
from deepres.classification.ensemble import average, member_weights
from deepres.classification.recipe import ClassificationConfig
from deepres.classification.scorer import Execution
from deepres.classification.views import Protocol
from deepres.findings import Cell, Figure, Panel, Table, curves_of, describe, spread_text
from deepres.paper.imagenet import BEST_MEMBER, EXPERIMENTS, OTHERS, PAPER
from deepres.paper.plan import Plan, Watch
from deepres.records import Run
from deepres.runtime.errors import InputError
from deepres.runtime.say import Say
from deepres.workflows import evaluate

# Of one run, or one ensemble: by `top` 1 and 5, the error in % and the two ends of its bootstrap 95 % interval.
Errors = dict[int, tuple[float, float, float]]


def measure_scores(plan: Plan, base: ClassificationConfig, images: int, say: Say, watch: Watch) -> None:
    """Write the scores of every finished run that lacks them, beside it: of all `images` test images, by protocol.

    `base` has the device, the precision and the treatment of bad images.
    """
    protocol = _protocol(plan)
    execution = Execution(device=base.device, precision=base.precision)
    setting = evaluate.Setting(plan.data, protocol, skip_bad=base.skip_bad, execution=execution)
    for run in (run for its_runs in plan.runs().values() for run in its_runs):
        file = _scores_file(run, protocol)
        if run.done is None or _is_current(file, protocol, images):
            continue
        with watch(f"{run.path.name}, {protocol.name}", images, 1) as told:
            told.step(0, {})
            table = evaluate.evaluate([run.path], setting, say, lambda done, _, told=told: told.step(done, {}))
        score_table.write_scores(file, table)


def _is_current(file: Path, protocol: Protocol, images: int) -> bool:
    """Whether `file` has the scores of all `images` by this very protocol; else they are made again."""
    if not file.exists():
        return False
    try:
        table = score_table.read_scores(file)
    except InputError:
        return False
    facts = table.members[0].facts
    asked = protocol.facts(facts.get("crop", 0))
    return len(table.labels) + len(table.skipped) == images and all(facts.get(key) == asked[key] for key in asked)


class Evaluated:
    """The finished and tested runs of a plan: `errors` of each run, by its path.

    `networks` has those of each network, by seed; of Table 5 also those of the "best member" and of the "ensemble".
    """

    def __init__(self, plan: Plan):
        self.plan, self.protocol, self.runs = plan, _protocol(plan), plan.runs()
        self.every = [run for its_runs in self.runs.values() for run in its_runs]
        self.errors: dict[Path, Errors] = {}
        self.images = self.classes = self.crop = 0
        for run in self.every:
            file = _scores_file(run, self.protocol)
            if run.done is not None and file.exists():
                table = score_table.read_scores(file)
                self.errors[run.path] = _errors_of(Scores(table.members[0].scores, table.labels))
                self.images, self.classes = len(table.labels), len(table.classes)
                self.crop = int(table.members[0].facts.get("crop", 0))
        self.networks = {
            name: [self.errors[run.path] for run in its_runs if run.path in self.errors]
            for name, its_runs in self.runs.items()
        }
        if plan.experiment == "table5":
            self.networks |= dict(zip(BEST_MEMBER, self._ensembles(), strict=True))

    def _ensembles(self) -> tuple[list[Errors], list[Errors]]:
        """Of each seed whose members are all tested: the least errors of a member, and those of the ensemble."""
        best: list[Errors] = []
        together: list[Errors] = []
        for seed in range(self.plan.seeds):
            runs = [self.plan.run(name, own) for name, own in self.plan.members(seed)]
            if all(run.path in self.errors for run in runs):
                table = score_table.joined([score_table.read_scores(_scores_file(run, self.protocol)) for run in runs])
                shares = member_weights(len(runs))
                found = Scores(average([member.scores for member in table.members], shares), table.labels)
                best.append({top: min(self.errors[run.path][top] for run in runs) for top in (1, 5)})
                together.append(_errors_of(found))
        return best, together

    def results(self) -> dict[str, list[dict[str, float]]]:
        """Final figures of each network and seed, as claims ask for them."""
        found = {
            name: [{"top1": each[1][0], "top5": each[5][0], "classes": self.classes} for each in its_errors]
            for name, its_errors in self.networks.items()
        }
        for name, its_runs in self.runs.items():
            done = [(run.done or {}) | {"place": run.field("seed")} for run in its_runs if run.path in self.errors]
            found[name] = [own | row for own, row in zip(done, found[name], strict=True)]
        return found

    def figures(self) -> tuple[Figure, ...]:
        """Fig. 4: networks without shortcuts left, with them right."""
        curves = curves_of(self.runs).values()
        groups = {
            "Plain networks": [curve for curve in curves if curve.kind == "plain"],
            "Residual networks": [curve for curve in curves if curve.kind != "plain"],
        }
        panels = tuple(Panel(name, tuple(members)) for name, members in groups.items() if members)
        caption = "Dashed: training error. Bold: test error on center crops. As in Figure 4 of the paper."
        return (Figure("Training on photographs", caption, panels),)

    def tables(self) -> tuple[Table, ...]:
        """The paper's table with ours beside it, if it is one, and every run."""
        return (self._all_runs(),) if self.plan.experiment == "fig4" else (self._paper_table(), self._all_runs())

    def _paper_table(self) -> Table:
        name = self.plan.experiment
        paper, rows = PAPER[name], list[tuple[Cell, ...]]()
        for network in BEST_MEMBER if name == "table5" else self.runs:
            label, layers, _ = describe(network)
            label = f"ensemble of {len(self.plan.networks)}" if network == "ensemble" else label
            errors, printed = self.networks[network], paper.get(network, (None, None))
            ours = (self._shown([each[top] for each in errors], top) for top in (1, 5))
            rows.append((label, layers or None, *ours, len(errors), *printed))
        rows += [(label, None, None, None, None, *printed) for label, printed in OTHERS.get(name, {}).items()]
        caption = (
            f"{self._how()} In brackets: bootstrap 95 % interval over the test images; of several seeds: mean ± "
            "standard deviation. The paper's figures are those of its full recipe on ImageNet"
            + (", on the test set." if name == "table5" else ", on the validation set.")
        )
        columns = ("network", "layers", "top-1 error", "top-5 error", "seeds", "paper: top-1", "paper: top-5")
        return Table(f"{EXPERIMENTS[name].title} (%)", caption, columns, tuple(rows))

    def _all_runs(self) -> Table:
        rows: list[tuple[Cell, ...]] = []
        for run in self.every:
            done, errors = run.done or {}, self.errors.get(run.path)
            figures = [done.get(key) for key in ("train_error", "test_error")]
            tested = [self._shown([errors[top]], top) if errors else None for top in (1, 5)]
            rows.append((run.path.name, *figures, *tested, done.get("seconds")))
        protocol = self.protocol.name
        return Table(
            "Every run (%)",
            "At the last iteration; training error over the last window, of augmented images; test error on center "
            f"crops. {self._how()}",
            ("run", "training error", "test error", f"{protocol}: top-1", f"{protocol}: top-5", "seconds"),
            tuple(rows),
        )

    def _shown(self, errors: Sequence[tuple[float, float, float]], top: int) -> str | None:
        """Errors as text; of five classes, the true one is always among the best five."""
        return None if self.classes <= top else _text(errors)

    def _how(self) -> str:
        """How errors were measured, in a sentence."""
        if not self.errors:
            return "No network is tested yet."
        sides = ", ".join(map(str, self.protocol.sizes(self.crop)))
        return (
            f"{self.images:,} test images of {self.classes:,} classes by the protocol {self.protocol.name}, "
            f"shorter side {sides}, for crops of {self.crop}."
        )


def _protocol(plan: Plan) -> Protocol:
    protocol = EXPERIMENTS[plan.experiment].protocol
    assert protocol is not None
    return protocol


def _scores_file(run: Run, protocol: Protocol) -> Path:
    return run.path / f"scores-{protocol.name}.safetensors"


def _errors_of(found: Scores) -> Errors:
    return {top: (found.error(top), *found.interval(top)) for top in (1, 5)}


def _text(errors: Sequence[tuple[float, float, float]]) -> str | None:
    """One error with its interval, or the mean of several."""
    if len(errors) == 1:
        error, low, high = errors[0]
        return f"{error:.2f} ({low:.2f} to {high:.2f})"
    return spread_text([error for error, *_ in errors])
