"""Keep what benchmarks/gpu.py measured with the docs: python tools/collect_gpu.py GPU_JSON... (later ones override)

Contests go to benchmarks/records, the other parts to docs/results/gpu.json. The runs of Table 6 are kept by
`python tools/collect_results.py gpu-table6 RUN...`, and `python tools/check_docs.py --write` renews the tables.
"""

import json
import sys
from pathlib import Path

from deepres.bench.tables import file_stem
from deepres.records import write_json

ROOT = Path(__file__).parents[1]


def main(places: list[str]) -> None:
    kept, file = {}, ROOT / "docs/results/gpu.json"
    if file.exists():
        kept = json.loads(file.read_text(encoding="utf-8"))
    for place in places:
        found = json.loads(Path(place).read_text(encoding="utf-8"))
        kept["environment"] = found["environment"]
        for part in found["parts"]:
            records = part["records"]
            if records and "rival" in records[0]:
                for record in records:
                    write_json(ROOT / "benchmarks/records" / f"{file_stem(record)}.json", record)
            elif records:
                kept[part["name"]] = records if part["name"] == "resume" else records[-1]
    write_json(file, kept)


main(sys.argv[1:])
