"""Keep tests by several protocols with the docs: python tools/collect_tests.py NAME SCORES...

Each file of SCORES, of `deepres eval --save-scores`, is of the same networks and images by another protocol. Writes
docs/results/NAME.json; `python tools/check_docs.py --write` then renews the tables that show it.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor

from deepres.classification import score_table
from deepres.classification.accuracy import DRAWS, SEED, Scores
from deepres.classification.ensemble import average, member_weights
from deepres.classification.score_table import ScoreTable
from deepres.records import write_json
from deepres.workflows import evaluate

RESULTS = Path(__file__).parents[1] / "docs" / "results"
FACTS = ("protocol", "crop", "scales", "flip")
ERRORS = tuple(f"top1_{what}" for what in ("error", "interval", "difference"))


def wrong(table: ScoreTable) -> Tensor:
    """The share of the networks that take each image for another class, float64 (N,)."""
    each = [~Scores(own.scores, table.labels).hits() for own in table.members]
    return torch.stack(each).double().mean(0)


def change(values: Tensor) -> list[float]:
    """The mean of `values` (N,) in percent, and its bootstrap 95 % interval over the images."""
    drawn = torch.randint(len(values), (DRAWS, len(values)), generator=torch.Generator().manual_seed(SEED))
    low, high = values[drawn].mean(1).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return [100 * value for value in (values.mean().item(), low, high)]


def main(name: str, files: list[str]) -> None:
    tables = [score_table.read_scores(Path(file)) for file in files]
    kept = []
    for table in tables:
        if table.names != tables[0].names:
            raise SystemExit("the files are not of the same images")
        report = evaluate.report(table)
        first = report["members"][0]
        facts = {key: first[key] for key in FACTS if key in first} | {"images": report["images"]}
        members = [{key: member[key] for key in ("network", *ERRORS)} for member in report["members"]]
        mean = {"error": change(wrong(table)), "difference": change(wrong(table) - wrong(tables[0]))}
        every = average([own.scores for own in table.members], member_weights(len(members), None))
        together = change((~Scores(every, table.labels).hits()).double() - wrong(table))
        errors = {key: report[key] for key in ERRORS} | {"mean_difference": together}
        kept.append(facts | {"members": members, "mean": mean, "together": errors})
    write_json(RESULTS / f"{name}.json", kept)


main(sys.argv[1], sys.argv[2:])
