"""From records to results: final figures, layer responses (Fig. 7), and scores by a test protocol (Tables 2 to 5)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean

import torch

from deepres.analysis.responses import layer_responses
from deepres.classification import score_table
from deepres.classification.accuracy import Scores
from deepres.classification.ensemble import average, member_weights
from deepres.classification.scorer import Execution
from deepres.classification.task import spread
from deepres.classification.views import Protocol
from deepres.data.resident import Data
from deepres.data.resident_batches import test_batches
from deepres.paper.plan import Plan
from deepres.paper.sheet import Reproduction
from deepres.records import Run, write_json
from deepres.runtime import untrusted
from deepres.runtime.errors import InputError, Say
from deepres.weights.find import ready, require_mean
from deepres.workflows import evaluate

RESPONSES, RESPONSE_IMAGES = "responses.json", 1_000
Runs = Mapping[str, Sequence[Run]]  # of each network, by seed
# Of one run, or one ensemble: by `top` 1 and 5, the error in % and the two ends of its bootstrap 95 % interval.
Errors = dict[int, tuple[float, float, float]]


def final_figures(runs: Iterable[Run]) -> list[dict[str, float]]:
    """Final figures of the finished runs of a network for claims, with the mean response where it is measured."""
    found: list[dict[str, float]] = []
    for run in runs:
        if done := run.done:
            values = responses_of(run)
            found.append(done | ({"response": mean(values)} if values else {}) | {"place": run.field("seed")})
    return found


def measure_responses(plan: Plan, data: Data, say: Say) -> None:
    """Write the layer responses of every finished run that has none yet, over some test images (Fig. 7)."""
    for run in _finished(plan):
        file = run.path / RESPONSES
        if file.exists():
            continue
        say(f"{run.path.name}: standard deviation of layer responses")
        net = ready(run.path, say)
        images = data.with_channels(net.header["in_channels"])
        part = spread(images.test, RESPONSE_IMAGES)
        batches = (x for x, _ in test_batches(part, require_mean(net, run.path), 200, torch.device("cpu")))
        write_json(file, dict(layer_responses(net, batches)))


def responses_of(run: Run) -> list[float] | None:
    """The layer responses of a run in the order of its layers; None where they are not measured yet."""
    file = run.path / RESPONSES
    if not file.exists():
        return None
    values = list(untrusted.read(file, dict[str, float], "delete it, and carry the plan out again", own=True).values())
    if not values:
        raise InputError(f"{file} holds no response; delete it, and carry the plan out again")
    return values


def measure_scores(plan: Plan, protocol: Protocol, images: int, asked: Reproduction) -> None:
    """Write the scores of all `images` test images by `protocol` into every finished run that has none yet.

    Device and precision are those of `asked`, which also says whether images that do not decode are left out.
    """
    fields = asked.fields
    execution = Execution(**{name: fields[name] for name in ("device", "precision") if name in fields})
    setting = evaluate.Setting(plan.data, protocol, skip_bad=fields.get("skip_bad", False), execution=execution)
    for run in _finished(plan):
        file = _scores_file(run, protocol)
        if _is_current(file, protocol, images):
            continue
        with asked.watch(f"{run.path.name}, {protocol.name}", images, 1, ()) as told:
            told.step(0, {})
            table = evaluate.evaluate([run.path], setting, asked.say, lambda done, _, told=told: told.step(done, {}))
        score_table.write_scores(file, table)


def _is_current(file: Path, protocol: Protocol, images: int) -> bool:
    """Whether `file` holds the scores of all `images` by this protocol; otherwise they are made again."""
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
    """The finished and tested runs of a plan: `errors` by the path of the run, and `networks` by network."""

    def __init__(self, plan: Plan, protocol: Protocol):
        self.plan, self.protocol, self.runs = plan, protocol, plan.runs()
        # The errors of each run, from its scores.
        self.errors: dict[Path, Errors] = {}
        self.images = self.classes = self.crop = 0
        for run in _finished(plan):
            file = _scores_file(run, protocol)
            if file.exists():
                table = score_table.read_scores(file)
                self.errors[run.path] = _errors_of(Scores(table.members[0].scores, table.labels))
                self.images, self.classes = len(table.labels), len(table.classes)
                self.crop = int(table.members[0].facts.get("crop", 0))
        # The same by network.
        self.networks = {
            name: [self.errors[run.path] for run in its_runs if run.path in self.errors]
            for name, its_runs in self.runs.items()
        }

    def ensembles(self) -> tuple[list[Errors], list[Errors]]:
        """The errors of the best member and of the ensemble, for each seed whose members are all tested."""
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
        """Final figures of each network and seed, for claims."""
        found = {
            name: [{"top1": each[1][0], "top5": each[5][0], "classes": self.classes} for each in its_errors]
            for name, its_errors in self.networks.items()
        }
        # Add the training error and the test error of the run.
        for name, its_runs in self.runs.items():
            done = final_figures(run for run in its_runs if run.path in self.errors)
            found[name] = [own | row for own, row in zip(done, found[name], strict=True)]
        return found


def _finished(plan: Plan) -> Iterator[Run]:
    return (run for its_runs in plan.runs().values() for run in its_runs if run.done is not None)


def _scores_file(run: Run, protocol: Protocol) -> Path:
    return run.path / f"scores-{protocol.name}.safetensors"


def _errors_of(found: Scores) -> Errors:
    return {top: (found.error(top), *found.interval(top)) for top in (1, 5)}
