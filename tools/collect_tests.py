"""Keep reports of `deepres eval --json` with the docs: python tools/collect_tests.py NAME REPORT...

Each report is of the same networks by another protocol. Writes docs/results/NAME.json; `python tools/check_docs.py
--write` then renews the tables that show it.
"""

import json
import sys
from pathlib import Path

from deepres.records import write_json

RESULTS = Path(__file__).parents[1] / "docs" / "results"
FACTS = ("protocol", "crop", "scales", "flip")
ERRORS = tuple(f"top1_{what}" for what in ("error", "interval", "difference"))


def main(name: str, files: list[str]) -> None:
    kept = []
    for report in (json.loads(Path(file).read_text()) for file in files):
        first = report["members"][0]
        facts = {key: first[key] for key in FACTS if key in first} | {"images": report["images"]}
        members = [{key: member[key] for key in ("network", *ERRORS)} for member in report["members"]]
        kept.append(facts | {"members": members, "together": {key: report[key] for key in ERRORS}})
    write_json(RESULTS / f"{name}.json", kept)


main(sys.argv[1], sys.argv[2:])
