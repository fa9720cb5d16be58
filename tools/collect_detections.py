"""Keep tests of a detector with the docs: python tools/collect_detections.py NAME RUN REPORTS...

Each of REPORTS is the output of `deepres eval RUN --json` by another protocol, or of an ensemble or another run; RUN is
the run that they are about. Writes docs/results/NAME.json; `python tools/check_docs.py --write` then renews the tables
that show it.
"""

import json
import sys
from pathlib import Path

from deepres.records import Run, write_json

RESULTS = Path(__file__).parents[1] / "docs" / "results"
TEST = (
    "title",
    "protocol",
    "network",
    "images",
    "commit",
    "cpu",
    "map50",
    "map50_11_point",
    "map50_interval",
    "map",
    "classes",
)
OF_RUN = ("network", "seed", "precision", "freeze", "side", "longest", "region_size", "anchor_scales", "context")
OF_RECIPE = ("name", "iterations", "batch_size", "lr", "regions", "sides")
OF_MACHINE = ("cpu", "threads", "commit", "started")


def main(name: str, folder: str, files: list[str]) -> None:
    run = Run(Path(folder))
    config, done = run.config, run.done
    if done is None:
        raise SystemExit(f"{folder} is not finished")
    kept = {key: config[key] for key in OF_RUN} | {"data": Path(config["data"]).name, "start": bool(config["start"])}
    kept |= {"recipe": {key: config["recipe"][key] for key in OF_RECIPE}}
    environment = run.environment[-1]
    kept |= {key: environment[key] for key in OF_MACHINE} | {"torch": environment["versions"]["torch"]}
    kept |= {key: done[key] for key in ("iteration", "seconds", "train_loss", "map50", "map")}
    reports = [json.loads(Path(file).read_text(encoding="utf-8")) for file in files]
    tests = [{key: report[key] for key in TEST if key in report} for report in reports]
    write_json(RESULTS / f"{name}.json", {"run": kept, "tests": tests})


main(sys.argv[1], sys.argv[2], sys.argv[3:])
