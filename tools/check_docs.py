"""Fail where the docs are stale or hard to read: tables of results, links, the README's tree, data sets, wide tables.

`--write` renews the tables of results.
"""

import dataclasses
import inspect
import itertools
import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

from deepres.bench.tables import best, markdown, markdown_table, what
from deepres.classification.recipe import RECIPES, ClassificationConfig, ClassificationRecipe
from deepres.data.published import PUBLISHED
from deepres.paper.everything import in_order
from deepres.paper.plan import SCALES
from deepres.paper.sections import SECTIONS
from deepres.records import Json
from gpu_aims import aims

ROOT = Path(__file__).parents[1]
WIDEST = 120  # characters a line of a table: what a screen shows
# The machines of benchmarks/records by what the records call them. Records of Zen 3 name no vector units.
# A later record of Zen 3 names AVX2, as Zen 1 does: then tell the two apart by the day as well.
MACHINES = {
    "AMD EPYC (AVX2, AVX-512, bf16)": "Zen 5 (AVX-512, bf16)",
    "AMD EPYC": "Zen 3 (AVX2)",
    "AMD EPYC (AVX2)": "Zen 1 (AVX2)",
}
BLOCK = re.compile(
    r"(<!-- (results|bench|best|tests|detections|sheets|equality|fields|gpu|paper): (\S+) -->\n).*?(<!-- end -->)",
    re.DOTALL,
)
FIELD = re.compile(r"^    (\w+): [^#\n]*(?:# (.*(?:\n {4,}# .*)*))?$", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")
MODULE = re.compile(r"`(?:src/deepres/)?([a-z_/]+/\w+\.py)`")
TREE = re.compile(r"^(?:[│ ]*[├└]── )(\S+)", re.MULTILINE)


def table(name: str) -> str:
    """The runs of docs/results/NAME.json, a row a network: every seed, then the mean."""
    rows = json.loads((ROOT / "docs" / "results" / f"{name}.json").read_text())
    groups = defaultdict(list)
    for row in rows:
        groups[row["network"]].append(row)
    heads = ["network", "seeds", "training error (%)", "test error (%)", "seconds a run"]
    lines = []
    for network, runs in groups.items():
        runs.sort(key=lambda row: row["seed"])
        cells = [network, ", ".join(str(row["seed"]) for row in runs)]
        for figure in ("train_error", "test_error"):
            values = [row[figure] for row in runs]
            spread = f" ({mean(values):.2f} ± {stdev(values):.2f})" if len(values) > 1 else ""
            cells.append(", ".join(f"{value:.2f}" for value in values) + spread)
        cells.append(", ".join(f"{row['seconds']:.0f}" for row in runs))
        lines.append(cells)
    first = rows[0]
    commits = ", ".join(sorted({row["commit"] or "unknown" for row in rows}))
    recipe = first["recipe"]
    length = f"{recipe['iterations']:,} iterations of {recipe['batch_size']}, rate {recipe['lr']}"
    threads = " or ".join(str(number) for number in sorted({row["threads"] for row in rows}))
    machine = first.get("gpu") or f"{first['cpu']}, {threads} {'thread' if threads == '1' else 'threads'}"
    machine += f", torch {first['torch']}"
    what = f"Data {first['data']}; recipe {recipe['name']} ({length}); {first['precision']}"
    note = f"{what}; {machine}; commit {commits}; {first['started'][:10]}."
    if len(rows) > len(groups):
        note += " In brackets: mean ± standard deviation of the seeds."
    return markdown_table(heads, lines) + f"\n{note}\n"


def records(pattern: str) -> list[Json]:
    """The records in benchmarks/records whose names match, of GPUs or not; processors by `MACHINES`."""
    files = sorted((ROOT / "benchmarks" / "records").glob(f"{pattern}.json"))
    for word in ("cuda", "faster-rcnn"):  # these are on pages of their own
        files = [file for file in files if (word in pattern) == (f"-{word}-" in file.name)]
    found = [json.loads(file.read_text()) for file in files]
    for record in found:
        environment = record["environment"]
        environment["cpu"] = MACHINES.get(environment["cpu"], environment["cpu"])
    return found


def bench(pattern: str) -> str:
    """The records whose names match, a section a work; in each, those of one machine and command are together."""
    works = defaultdict(list)
    for record in records(pattern):
        works[what(record["work"])].append(record)
    sections = []
    for work, found in works.items():
        found.sort(key=lambda record: (record["environment"]["cpu"], record["environment"]["command"]))
        sections.append(f"### {work}\n\n{markdown(found)}")
    return "\n" + "\n".join(sections)


def tests(name: str) -> str:
    """The tests of docs/results/NAME.json, a column a protocol: top-1 errors of networks, on average, and together."""
    reports = json.loads((ROOT / "docs" / "results" / f"{name}.json").read_text())
    networks = [f"{member['network']}, {number}" for number, member in enumerate(reports[0]["members"], 1)]
    rows = [[name] for name in networks]
    rows += [["mean"], ["less the first column's"], ["ensemble"], ["less the mean above"]]
    for report in reports:
        mean, together = report["mean"], report["together"]
        every = [(found["top1_error"], *found["top1_interval"]) for found in report["members"]]
        every += [mean["error"], mean["difference"]]
        every += [(together["top1_error"], *together["top1_interval"]), together["mean_difference"]]
        for row, found in zip(rows, every, strict=True):
            sign = "+" if row[0].startswith("less") else ""
            row.append(f"{found[0]:{sign}.1f} ({found[1]:{sign}.1f} to {found[2]:{sign}.1f})" if any(found) else "")
    heads = [f"{report['protocol']}, {', '.join(map(str, report['scales']))}" for report in reports]
    note = f"{reports[0]['images']} images. Protocols with their shorter sides; in brackets 95 % intervals."
    return markdown_table(["top-1 error, %", *heads], rows) + f"\n{note}\n"


def detections(name: str) -> str:
    """The tests of a detector in docs/results/NAME.json, a row each, with what each changes against the first."""
    found = json.loads((ROOT / "docs" / "results" / f"{name}.json").read_text())
    run, recipe, first = found["run"], found["run"]["recipe"], found["tests"][0]
    rows = []
    for test in found["tests"]:
        low, high = test["map50_interval"]
        over, strict = ("" if test is first else f", {test[key] - first[key]:+.1f}" for key in ("map50", "map"))
        means = f"{test['map50']:.1f} ({low:.1f} to {high:.1f}){over}", f"{test['map']:.1f}{strict}"
        scales = f"sides {', '.join(map(str, test['protocol']['scales']))}"
        rows.append([test["title"].replace("multi-scale testing", scales), *means])
    classes = ", ".join(f"{own['name']} {own['ap']:.1f}" for own in first["classes"])
    length = f"{recipe['iterations']:,} iterations of {recipe['batch_size']}, rate {recipe['lr']}"
    sides = f"shorter sides {', '.join(map(str, recipe['sides'] or [run['side']]))}"
    regions = f"{recipe['regions']} regions of {run['region_size']}x{run['region_size']}"
    what = f"Data {run['data']}, {first['images']} test images; {run['network']} from "
    what += (
        f"{'trained' if run['start'] else 'random'} weights, seed {run['seed']}; recipe {recipe['name']} ({length}; "
    )
    what += f"{sides}; {regions}), {run['precision']}; training loss {run['train_loss']:.2f}"
    machine = f"{run['seconds'] / 60:.0f} minutes on {run['cpu']}, threads {run['threads']}, torch {run['torch']}"
    note = f"{what}; {machine}; commit {run['commit']}; {run['started'][:10]}. In brackets the bootstrap 95 % interval "
    note += f"over images, then the change against the first row. AP@.5 of the classes in the first row: {classes}."
    return markdown_table(["test", "mAP@.5 (%)", "mAP@[.5,.95] (%)"], rows) + f"\n{note}\n"


def sheets(name: str) -> str:
    """The sheets of docs/results/NAME.json: of each our figures and the claims that were tested, then all runs."""
    found = json.loads((ROOT / "docs" / "results" / f"{name}.json").read_text())
    sections = []
    for own in found:
        cells = [["" if cell is None else str(cell) for cell in row] for row in own["table"]["rows"]]
        tested = [claim for claim in own["claims"] if claim["status"] != "not tested"]
        claims = [f"- {claim['claim']} {claim['status'].capitalize()}: {claim['detail']}\n" for claim in tested]
        sections.append(f"**{own['title']}**\n\n{markdown_table(own['table']['columns'], cells)}\n{''.join(claims)}")
    runs = {run["name"]: run for own in found for run in own["runs"]}
    one = next(iter(runs.values()))
    minutes = ", ".join(f"{label} {run['seconds'] / 60:.0f}" for label, run in runs.items())
    commits = ", ".join(sorted({run["commit"] for run in runs.values()}))
    length = f"{one['recipe']['iterations']:,} iterations of {one['recipe']['batch_size']}"
    machine = f"{one['cpu']}, threads {one['threads']}, torch {one['torch']}; commit {commits}; {one['started'][:10]}"
    note = (
        f"Data {found[0]['data']}, scale {found[0]['scale']} ({length}), {one['precision']}; minutes a run: {minutes}"
    )
    return "\n".join(sections) + f"\n{note}; {machine}.\n"


def equality(name: str) -> str:
    """The comparison of docs/results/NAME.json, a row a network, a column a library."""
    found = json.loads((ROOT / "docs" / "results" / f"{name}.json").read_text())
    cells = defaultdict(dict)
    for row in found["rows"]:
        exact = {True: ", back bit by bit", False: ", not the same bits back"}.get(row.get("exact"), "")
        top1 = "" if row["top1"] else ", other top-1"
        cells[row["network"]][row["library"]] = f"{row['difference']:.1e}{top1}{exact}"
    libraries = list(dict.fromkeys(row["library"] for row in found["rows"]))
    heads = ["largest difference of a score, of the largest score", *libraries]
    lines = [[network, *(row.get(library, "") for library in libraries)] for network, row in cells.items()]
    versions = ", ".join(f"{library} {version}" for library, version in found["versions"].items())
    return markdown_table(heads, lines) + f"\n{found['images']} images; {versions}.\n"


def fields(name: str) -> str:
    """The fields of `config`, with what their comments say; of `recipe`, the values of all recipes, and that below."""
    kind = {"recipe": ClassificationRecipe, "config": ClassificationConfig}[name]
    source = "".join(map(inspect.getsource, kind.__mro__[:2]))  # of what all tasks have, and of classification's own
    said = {field: " ".join(text.replace("# ", "").split()) for field, text in FIELD.findall(source)}
    names = [field for field in dataclasses.fields(kind) if field.name not in ("name", "recipe")]
    if kind is ClassificationConfig:
        defaults = ["needed" if field.default is dataclasses.MISSING else _plain(field.default) for field in names]
        rows = [[f"`{field.name}`", plain, said[field.name]] for field, plain in zip(names, defaults, strict=True)]
        return markdown_table(["field", "default", "meaning"], rows)
    rows = [[f"`{field.name}`", *(_plain(getattr(made, field.name)) for made in RECIPES.values())] for field in names]
    notes = [f"- `{field.name}`: {said[field.name]}\n" for field in names if said[field.name]]
    return markdown_table(["field", *RECIPES], rows) + "\n" + "".join(notes)


def sections(number: str) -> str:
    """The commands that stand for a section of the paper."""
    (section,) = [own for own in SECTIONS if own.number == number]
    rows = [[what, f"`{command}`"] for what, command in section.commands]
    return markdown_table(["what", "command"], rows) if rows else "Not done yet.\n"


def costs() -> str:
    """What each table and figure costs at each scale."""
    rows = [[f"`{sheet.name}`", *(sheet.cost(scale) for scale in SCALES)] for sheet in in_order()]
    return markdown_table(["name", *SCALES], rows)


def paper(name: str) -> str:
    """The costs of tables and figures, or the commands of a section of the paper."""
    return costs() if name == "costs" else sections(name)


def _plain(value: object) -> str:
    """A default as it is written on the command line."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


MAKE = {
    "equality": equality,
    "fields": fields,
    "results": table,
    "bench": bench,
    "best": lambda pattern: best(records(pattern)).replace("faster-rcnn-", "").replace(" of 600x800", ""),
    "tests": tests,
    "detections": detections,
    "paper": paper,
    "sheets": sheets,
    "gpu": lambda name: aims(records("*-cuda-*"), ROOT / "docs" / "results", name),
}


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
        for number, line in enumerate(fresh.splitlines(), 1):
            if line.lstrip().startswith("|") and len(line) > WIDEST:
                where = f"{file.relative_to(ROOT)}, line {number}"
                troubles.append(f"{where}: the table is {len(line)} characters wide, {WIDEST} at most")
        for target in LINK.findall(text):
            if not (file.parent / target).exists():
                troubles.append(f"{file.relative_to(ROOT)}: the link {target} leads nowhere")
        for module in MODULE.findall(text) if file.name != "CHANGELOG.md" else ():
            if not any((root / module).exists() for root in (ROOT, ROOT / "src" / "deepres")):
                troubles.append(f"{file.relative_to(ROOT)}: there is no module {module}")
    names = {path.name for path in ROOT.rglob("*") if not {".venv", ".venv-floor"} & {*path.parts}}
    for entry in TREE.findall((ROOT / "README.md").read_text()):
        if entry.rstrip("/").split("/")[-1] not in names:
            troubles.append(f"README.md: the tree names {entry}, which is not there")
    for name, file in itertools.product(PUBLISHED, ("README.md", "docs/recipes.md")):
        if f"`{name}`" not in (ROOT / file).read_text():
            troubles.append(f"{file}: the data set {name} is missing")
    lacking = [own for own in SECTIONS if f"<!-- paper: {own.number} -->" not in (ROOT / "docs/paper.md").read_text()]
    troubles += [f"docs/paper.md: the section {own.number}, {own.title}, is missing" for own in lacking]
    print("\n".join(troubles) or "docs are in order")
    return bool(troubles)


sys.exit(main("--write" in sys.argv[1:]))
