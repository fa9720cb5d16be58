"""Keep the records of finished runs with the docs: python tools/collect_results.py NAME RUN_FOLDER...

Writes docs/results/NAME.json, with the curve of the test error; `python tools/check_docs.py --write` then renews the
tables that show it, and `python tools/draw_curves.py` the picture.
"""

import json
import sys
from pathlib import Path

from deepres.records import DIGEST, Run, write_json

RESULTS = Path(__file__).parents[1] / "docs" / "results"


def main(name: str, places: list[str]) -> None:
    rows = []
    for place in sorted(places):
        run = Run(Path(place))
        config, done, environment = run.config, run.done, run.environment[-1]
        if done is None:
            print(f"{place} is not finished and is left out", file=sys.stderr)
            continue
        kept = {key: config[key] for key in ("network", "data", "seed", "device", "precision")}
        kept["data"] = Path(config["data"]).name if Path(config["data"]).is_absolute() else config["data"]
        recipe = {key: config["recipe"][key] for key in ("name", "iterations", "batch_size", "lr")}
        where = {key: environment[key] for key in ("commit", "cpu", "cores", "threads", "started")}
        if config["device"] != "cpu":
            where["gpu"] = environment["gpu"]
        done.pop(DIGEST, None)
        curve = dict(zip(("iteration", "test_error"), run.curve("test_error"), strict=True))
        more = {"torch": environment["versions"]["torch"], "curve": curve}
        rows.append(kept | {"recipe": recipe} | where | more | done)
    write_json(RESULTS / f"{name}.json", rows)
    print(json.dumps([row["network"] for row in rows]))


main(sys.argv[1], sys.argv[2:])
