"""Records of contests as a table, for a terminal and for the docs."""

from collections.abc import Sequence

from deepres.bench.job import Job
from deepres.records import Json

GIB, GIGA = 2**30, 1e9
COLUMNS = (
    "work",
    "ours",
    "rival",
    "ratio (min to max, pairs)",
    "images/s: ours, rival",
    "ours, of the machine's limits",
    "how",
)


def what(job: Json) -> str:
    """A job in a few words."""
    name, batch = job["network"], job["batch_size"]
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


def cells(record: Json) -> list[str]:
    """A row of the table, but for the number of its conditions."""
    ours, rival, ratio = record["ours"], record["rival"], record["ratio"]
    return [
        what(record["work"]),
        setting(ours),
        f"`{rival['name']}`: {setting(rival)}",
        f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f}, {ratio['pairs']})",
        f"{ours['images_per_second']:.4g}, {rival['images_per_second']:.4g}",
        reached(record) or "-",
    ]


def reached(record: Json) -> str | None:
    """The share of the machine's limits that ours reaches; None where it was not measured, or is one of other limits.

    Some records in int8 hold shares of the limits in fp32, which say nothing.
    """
    share = record.get("share")
    if share is None or record["work"]["precision"] == "int8":
        return None
    return f"{share['multiply_adds']:.0%} of the multiply-adds, {share['bytes']:.0%} of the bytes a second"


def setting(side: Json) -> str:
    """What a contestant ran, and what was found about it."""
    peak, waited = side["median"].get("peak"), side["median"].get("waited")
    text = side["setting"] + (f"; peak {peak / GIB:.2f} GiB" if peak is not None else "")
    text += f"; waits for batches {waited / side['median']['seconds']:.1%} of the time" if waited is not None else ""
    facts = side["facts"]
    if "largest_change" in facts:
        text += f"; largest change of a score {facts['largest_change']:.1e} of the largest score"
    if "same_top1" in facts:
        text += f", same top-1 {facts['same_top1']:.1%}"
    return text


def conditions(records: Sequence[Json]) -> list[str]:
    """Under which conditions each command was run; one line a command."""
    lines: dict[str, None] = {}
    for record in records:
        env, limits = record["environment"], record.get("limits")
        versions = ", ".join(f"{name} {env['versions'][name]}" for name in ("torch", "torchvision", "python"))
        line = f"`{env['command']}`: {env['cpu']}, {env['threads']} threads, {versions}; commit {env['commit']}; "
        line += env["started"][:10]
        if limits:
            kind = "bf16" if record["work"]["precision"] == "bf16" else "fp32"
            line += f"; the machine showed {limits['multiply_adds'] / GIGA:.0f}e9 multiply-adds a second in {kind} "
            line += f"and {limits['bytes'] / GIGA:.1f} GB/s"
        lines[line] = None
    return list(lines)


def markdown(records: Sequence[Json]) -> str:
    """The table and what it was measured on."""
    lines = conditions(records)
    how = [str(lines.index(conditions([record])[0]) + 1) for record in records]
    rows = [list(COLUMNS), ["---"] * len(COLUMNS)]
    rows += [[*cells(record), number] for record, number in zip(records, how, strict=True)]
    table = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*table, "", *(f"{number}. {line}" for number, line in enumerate(lines, 1))]) + "\n"
