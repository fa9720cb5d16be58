"""Records of contests as tables, for a terminal and for the docs."""

import re
from collections.abc import Iterable, Sequence

from deepres.bench.job import Job, is_from_disk
from deepres.models.registry import DETECTOR
from deepres.records import Json

GIB, GIGA = 2**30, 1e9
COLUMNS = ("machine", "precision", "rival", "ratio (min to max, pairs)", "images/s: ours, rival", "note")
BEST = ("machine and work", "precision", "images/s", "times as fast as")


def file_stem(record: Json) -> str:
    """The name of a record's file, without its suffix."""
    work = record["work"]
    job = Job(**{name: value for name, value in work.items() if name != "epoch"})
    marks = [job.precision] * (job.precision != "fp32") + [job.device] * (job.device != "cpu")
    marks += ["pictures"] * is_from_disk(job) + [record["rival"]["name"]]
    return "-".join([job.task, job.network, f"b{job.batch_size}", *marks])


def what(job: Json) -> str:
    """A job in a few words."""
    name, batch = job["network"], job["batch_size"]
    if name.startswith(DETECTOR):
        work = {"train": "a training step", "infer": "the test", "memory": "two training steps"}[job["task"]]
        return f"{name}, {work} of {batch} picture{'s' if batch > 1 else ''} of 600x800"
    if job["task"] == "load":
        return f"batches of {job['data']}, {batch} images" + _part(job)
    if job["task"] == "memory":
        return f"{name}, two training steps of {batch} images"
    if job["task"] == "dense":
        return f"{name}, the dense test at five scales of {batch} picture{'s' if batch > 1 else ''}"
    if job["task"] == "infer":
        return f"{name}, scores of {batch} image{'s' if batch > 1 else ''}"
    if job["epoch"]:
        return f"{name}, an epoch of {job['data']}, batches of {batch}" + _part(job)
    if job["data"] != Job.data:
        return f"{name}, training on the pictures of {job['data']}, batches of {batch}" + _part(job)
    return f"{name}, a training step of {batch} images"


def _part(job: Json) -> str:
    return f", {job['part']:.3g} of the images" if job["part"] != 1 else ""


def machine(record: Json) -> str:
    """The processor, or the GPU, that did the work."""
    on_cpu = record["work"].get("device", "cpu") == "cpu"
    return record["environment"]["cpu" if on_cpu else "gpu"]


def cells(record: Json) -> list[str]:
    """A row of the table, without the number of its note."""
    ours, rival, ratio = record["ours"], record["rival"], record["ratio"]
    return [
        machine(record),
        record["work"]["precision"],
        f"`{rival['name']}`",
        f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f}, {ratio['pairs']})",
        f"{ours['images_per_second']:.4g}, {rival['images_per_second']:.4g}",
    ]


def reached(record: Json) -> str | None:
    """The share of the machine's limits that ours reaches; None where it was not measured, and for int8.

    Some records of int8 hold shares of the limits of fp32, which say nothing about int8.
    """
    share = record.get("share")
    if share is None or record["work"]["precision"] == "int8":
        return None
    return f"{share['multiply_adds']:.0%} of the multiply-adds, {share['bytes']:.0%} of the bytes a second"


def setting(side: Json) -> str:
    """What a contestant ran: its setting, peak memory, waiting time, and how far its scores differ."""
    peak, waited = side["median"].get("peak"), side["median"].get("waited")
    text = side["setting"] + (f"; peak {peak / GIB:.2f} GiB" if peak is not None else "")
    text += f"; waits for batches {waited / side['median']['seconds']:.1%} of the time" if waited is not None else ""
    if (resident := side["median"].get("resident")) is not None:
        text += f", {side['images_per_second'] / resident:.2f} of the {resident:,.0f} images/s of a batch in memory"
    facts = side["facts"]
    text += f"; begins after {facts['start']:.0f} s" if "start" in facts else ""
    if "largest_change" in facts:
        text += f"; largest change of a score {facts['largest_change']:.1e} of the largest score"
    if "same_top1" in facts:
        text += f", same top-1 {facts['same_top1']:.1%}"
    return text


def conditions(records: Sequence[Json]) -> list[str]:
    """The conditions of each command (machine, versions, commit, day), one line per command."""
    lines: dict[str, None] = {}
    for record in records:
        env, limits = record["environment"], record.get("limits")
        where = machine(record) + (f", {env['threads']} threads" if machine(record) == env["cpu"] else "")
        versions = ", ".join(f"{name} {env['versions'][name]}" for name in ("torch", "torchvision", "python"))
        command = re.sub(r"(?<=--save )/\S*/", "", env["command"])  # an absolute path is the machine's own affair
        line = f"`{command}`: {where}, {versions}; commit {env['commit']}; "
        line += env["started"][:10]
        if limits:
            kind = "bf16" if record["work"]["precision"] == "bf16" else "fp32"
            line += f"; the machine showed {limits['multiply_adds'] / GIGA:.0f}e9 multiply-adds a second in {kind} "
            line += f"and {limits['bytes'] / GIGA:.1f} GB/s"
        lines[line] = None
    return list(lines)


def markdown(records: Sequence[Json]) -> str:
    """The contests of one job as a table; below it a note per command: its conditions, and what each side ran."""
    # A row a contest; contests of one command share a note.
    notes: dict[str, list[str]] = {}
    rows = []
    for record in records:
        (line,) = conditions([record])
        share = reached(record)
        ours = f"ours: {setting(record['ours'])}" + (f"; reaches {share}" if share else "")
        notes.setdefault(line, [ours]).append(f"`{record['rival']['name']}`: {setting(record['rival'])}")
        rows.append([*cells(record), str(list(notes).index(line) + 1)])
    # The table, then the notes.
    text = markdown_table(COLUMNS, rows)
    for number, (line, sides) in enumerate(notes.items(), 1):
        text += f"\n{number}. {line}\n" + "".join(f"   - {side}\n" for side in sides)
    return text


def best(records: Sequence[Json]) -> str:
    """For each machine a row a contest: our speed in it, and the median ratios to its rivals, the fastest first."""
    # Group by contest: the records of one command were measured in turn, and ours is the same in all of them.
    # `plain`, our network without an engine, and `fast`, our other recipe, are no rivals.
    machines: dict[str, dict[tuple[str, str, str], list[Json]]] = {}
    for record in sorted(records, key=lambda record: record["ratio"]["median"]):
        if record["rival"]["name"] not in ("plain", "fast"):
            work, env = record["work"], record["environment"]
            contest = what(work | {"part": 1}), work["precision"], env["started"]
            machines.setdefault(machine(record), {}).setdefault(contest, []).append(record)
    # A line for each machine, the newest first by its name, then a row per contest.
    rows = []
    for cpu, contests in sorted(machines.items(), reverse=True):
        rows.append([f"**{cpu}**", "", "", ""])
        for (name, precision, _), found in sorted(contests.items()):
            speed = found[0]["ours"]["images_per_second"]
            ratios = [f"{record['ratio']['median']:.2f} {record['rival']['name']}" for record in found]
            shown = f"{speed:,.0f}" if speed >= 100 else f"{speed:.3g}"
            rows.append([name, precision, shown, ", ".join(ratios) + _peaks(found[0])])
    return markdown_table(BEST, rows)


def _peaks(record: Json) -> str:
    """The peak memory of both sides, if the contest measured it."""
    peaks = [record[side]["median"].get("peak") for side in ("ours", "rival")]
    return "" if None in peaks else "; peak {:.2f} GiB, not {:.2f}".format(*(peak / GIB for peak in peaks))


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The lines of a table in Markdown."""
    return "".join(f"| {' | '.join(row)} |\n" for row in (heads, ["---"] * len(heads), *rows))
