"""Fail where the docs are stale: tables of results, links, and the README's tree. `--write` renews the tables."""

import dataclasses
import inspect
import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

from deepres.bench.tables import markdown
from deepres.training.recipe import RECIPES, Config, Recipe

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"(<!-- (results|bench|tests|equality|fields): (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
FIELD = re.compile(r"^    (\w+): [^#\n]*(?:# (.*(?:\n {4,}# .*)*))?$", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")
TREE = re.compile(r"^(?:[│ ]*[├└]── )(\S+)", re.MULTILINE)


def table(name: str) -> str:
    """The runs of docs/results/NAME.json, a row a network: every seed, then the mean."""
    rows = json.loads((ROOT / "docs" / "results" / f"{name}.json").read_text())
    groups = defaultdict(list)
    for row in rows:
        groups[row["network"]].append(row)
    lines = [
        "| network | seeds | training error (%) | test error (%) | seconds a run |",
        "| --- | --- | --- | --- | --- |",
    ]
    for network, runs in groups.items():
        runs.sort(key=lambda row: row["seed"])
        cells = [network, ", ".join(str(row["seed"]) for row in runs)]
        for figure in ("train_error", "test_error"):
            values = [row[figure] for row in runs]
            spread = f", mean {mean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else ""
            cells.append(", ".join(f"{value:.2f}" for value in values) + spread)
        cells.append(", ".join(f"{row['seconds']:.0f}" for row in runs))
        lines.append(f"| {' | '.join(cells)} |")
    first = rows[0]
    commits = ", ".join(sorted({row["commit"] or "unknown" for row in rows}))
    recipe = first["recipe"]
    length = f"{recipe['iterations']:,} iterations of {recipe['batch_size']}, rate {recipe['lr']}"
    threads = " or ".join(str(number) for number in sorted({row["threads"] for row in rows}))
    machine = f"{first['cpu']}, {threads} {'thread' if threads == '1' else 'threads'}, torch {first['torch']}"
    what = f"Data {first['data']}; recipe {recipe['name']} ({length}); {first['precision']}"
    lines += ["", f"{what}; {machine}; commit {commits}; {first['started'][:10]}."]
    return "\n".join(lines) + "\n"


def bench(pattern: str) -> str:
    """The records of `deepres bench --save` in benchmarks/records whose names match."""
    files = sorted((ROOT / "benchmarks" / "records").glob(f"{pattern}.json"))
    return markdown([json.loads(file.read_text()) for file in files])


def tests(name: str) -> str:
    """The tests of docs/results/NAME.json, a column a protocol: top-1 errors of networks, on average, and together."""
    reports = json.loads((ROOT / "docs" / "results" / f"{name}.json").read_text())
    networks = [f"{member['network']}, {number}" for number, member in enumerate(reports[0]["members"], 1)]
    rows = [[what] for what in (*networks, "mean; less the first protocol", "ensemble; less the mean")]
    for report in reports:
        mean, together = report["mean"], report["together"]
        every = [(found["top1_error"], *found["top1_interval"]) for found in (*report["members"], together)]
        every.insert(-1, mean["error"])
        for row, found in zip(rows, every, strict=True):
            row.append("{:.1f} ({:.1f} to {:.1f})".format(*found))
        for row, less in zip(rows[-2:], (mean["difference"], together["mean_difference"]), strict=True):
            row[-1] += "; {:+.1f} ({:+.1f} to {:+.1f})".format(*less) if any(less) else ""
    heads = [f"{report['protocol']}, sides {', '.join(map(str, report['scales']))}" for report in reports]
    lines = [["top-1 error, % (95 % interval)", *heads], ["---"] * (len(heads) + 1), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + f"\n{reports[0]['images']} images.\n"


def equality(name: str) -> str:
    """The comparison of docs/results/NAME.json, a row a network, a column a library."""
    found = json.loads((ROOT / "docs" / "results" / f"{name}.json").read_text())
    cells = defaultdict(dict)
    for row in found["rows"]:
        exact = {True: ", back bit by bit", False: ", not the same bits back"}.get(row.get("exact"), "")
        top1 = "" if row["top1"] else ", other top-1"
        cells[row["network"]][row["library"]] = f"{row['difference']:.1e}{top1}{exact}"
    libraries = list(dict.fromkeys(row["library"] for row in found["rows"]))
    lines = [["largest difference of a score, of the largest score", *libraries], ["---"] * (len(libraries) + 1)]
    lines += [[network, *(row.get(library, "") for library in libraries)] for network, row in cells.items()]
    versions = ", ".join(f"{library} {version}" for library, version in found["versions"].items())
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + f"\n{found['images']} images; {versions}.\n"


def fields(name: str) -> str:
    """The fields of `recipe`, with the values of all recipes, or of `config`, with what their comments say of them."""
    kind = {"recipe": Recipe, "config": Config}[name]
    said = {field: " ".join(text.split("# ")) for field, text in FIELD.findall(inspect.getsource(kind))}
    said = {field: " ".join(text.split()).replace("|", "or") for field, text in said.items()}
    columns = RECIPES if kind is Recipe else {}
    rows = [["field", *(columns or ["default"]), "meaning"], ["---"] * (len(columns or [0]) + 2)]
    for field in dataclasses.fields(kind):
        if field.name not in ("name", "recipe"):
            required = field.default is dataclasses.MISSING
            plain = ["needed" if required else _plain(field.default)]
            values = [_plain(getattr(recipe, field.name)) for recipe in columns.values()] or plain
            rows.append([f"`{field.name}`", *values, said.get(field.name, "")])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _plain(value: object) -> str:
    """A default as it is written on the command line."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


MAKE = {"equality": equality, "fields": fields, "results": table, "bench": bench, "tests": tests}


def main(write: bool) -> int:
    troubles = []
    for file in (*ROOT.glob("*.md"), *sorted(ROOT.glob("docs/*.md")), *ROOT.glob("benchmarks/*.md")):
        text = file.read_text()
        fresh = BLOCK.sub(lambda match: match[1] + MAKE[match[2]](match[3]) + match[4], text)
        if fresh != text and write:
            file.write_text(fresh)
        elif fresh != text:
            troubles.append(
                f"{file.relative_to(ROOT)}: a table of results is stale; run python tools/check_docs.py --write"
            )
        for target in LINK.findall(text):
            if not (file.parent / target).exists():
                troubles.append(f"{file.relative_to(ROOT)}: the link {target} leads nowhere")
    names = {path.name for path in ROOT.rglob("*") if ".venv" not in path.parts}
    for entry in TREE.findall((ROOT / "README.md").read_text()):
        if entry.rstrip("/").split("/")[-1] not in names:
            troubles.append(f"README.md: the tree names {entry}, which is not there")
    print("\n".join(troubles) or "docs are in order")
    return bool(troubles)


sys.exit(main("--write" in sys.argv[1:]))
