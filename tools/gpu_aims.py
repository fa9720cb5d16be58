"""The aims on one GPU and what was reached, from the records of benchmarks/gpu.py; what is lacking was not run."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from deepres.bench.tables import markdown_table
from deepres.records import Json

NOT_RUN = "not run"
HEADS = ("work", "aim", "reached")


@dataclass(frozen=True)
class Aims:
    """The aims of one contest: milliseconds or images a second of ours, and ratios to rivals."""

    what: str
    task: str
    network: str
    batch: int
    step_ms: float | None = None
    speed: float | None = None
    rivals: tuple[tuple[str, float], ...] = ()


CONTESTS = (
    Aims("`resnet20`, a step of 128 images", "train", "resnet20", 128, 0.9, None, (("textbook", 10), ("tuned", 1.5))),
    Aims("`resnet56`, the same", "train", "resnet56", 128, None, None, (("tuned", 1.5),)),
    Aims("`resnet110`, the same", "train", "resnet110", 128, 5, None, (("tuned", 1.5),)),
    Aims(
        "`resnet50` at 224, a step of 256 images",
        "train",
        "resnet50",
        256,
        None,
        6_600,
        (("tuned", 1.1), ("torchvision", 3.4)),
    ),
    *(
        Aims(f"`resnet50` at 224, scores of {batch}", "infer", "resnet50", batch, None, None, (("tuned", 1.0),))
        for batch in (1, 32, 256)
    ),
)


def aims(records: Sequence[Json], results: Path, name: str) -> str:
    """The table: contests, then Table 6, the recipe `fast` and the exact resume from docs/results/NAME*.json."""
    rows = [row for contest in CONTESTS for row in _contest(contest, records)]
    rows += _pictures(records)
    rows += _table6(results / f"{name}-table6.json")
    found = _read(results / f"{name}.json") or {}
    rows += _others(found)
    return markdown_table(HEADS, rows) + _note(found)


def _contest(contest: Aims, records: Sequence[Json]) -> Iterator[list[str]]:
    """A row for each aim of a contest."""
    work = {"task": contest.task, "network": contest.network, "batch_size": contest.batch}
    own = [record for record in records if work.items() <= record["work"].items() and not _from_disk(record)]
    speed = own[0]["ours"]["images_per_second"] if own else None
    step = f"{1000 * contest.batch / speed:.3g} ms, {speed:,.0f} images/s" if speed else NOT_RUN
    first = f"{contest.step_ms} ms" if contest.step_ms else f"{contest.speed:,.0f} images/s" if contest.speed else ""
    yield [contest.what, first, step]
    for rival, ratio in contest.rivals:
        found = next((record for record in own if record["rival"]["name"] == rival), None)
        yield ["", f"{ratio} x {rival}", f"{found['ratio']['median']:.2f}" if found else NOT_RUN]


def _from_disk(record: Json) -> bool:
    return "resident" in record["ours"]["median"]


def _pictures(records: Sequence[Json]) -> list[list[str]]:
    """Training from JPEG files: the share of the speed of a batch in memory, and of the time that the GPU waits."""
    reached = NOT_RUN
    for record in filter(_from_disk, records):
        ours = record["ours"]
        speed, share = ours["images_per_second"], ours["images_per_second"] / ours["median"]["resident"]
        waits = ours["median"]["waited"] / ours["median"]["seconds"]
        reached = f"{share:.2f} ({speed:,.0f} images/s, waits {waits:.0%} of the time)"
    return [["`resnet50` at 224 from a folder of JPEG files", "0.8 of a batch in memory", reached]]


def _table6(file: Path) -> list[list[str]]:
    runs = _read(file) or []
    names = ", ".join(run["network"].removeprefix("resnet") for run in runs)
    took = sum(run["seconds"] for run in runs) / 60
    reached = f"{took:.1f} minutes for {names} layers" if runs else NOT_RUN
    return [["Table 6, 20 to 110 layers, one seed, full recipe", "15 minutes in all", reached]]


def _others(found: Json) -> list[list[str]]:
    fast, resume = found.get("fast"), found.get("resume") or []
    reached = f"{fast['whole']:.1f} s, {fast['test_error']:.2f} %" if fast else NOT_RUN
    rows = [["recipe `fast`, `resnet20`, command line to last checkpoint", "12 s", reached]]
    for one in resume or [{}]:
        setting = f"deterministic={one['deterministic']}" if one.get("deterministic") else "a run that was stopped"
        reached = f"{one['same']}; {one['step_ms']:.3g} ms a step" if one else NOT_RUN
        rows.append([f"resume, {setting}", "the same bits", reached])
    return rows


def _note(found: Json) -> str:
    """The card, its versions and its limits."""
    if not found:
        return "\nNothing was run yet.\n"
    env, limits = found["environment"], found.get("limits")
    text = f"{env['gpu']}, torch {env['versions']['torch']}, {env['started'][:10]}"
    if limits:
        product, stream = 2 * limits["product_multiply_adds"] / 1e12, limits["bytes"] / 1e12
        text += f"; a bf16 product of 8192 ran at {product:.0f} TFLOP/s, a copy at {stream:.2f} TB/s"
    return f"\n{text}.\n"


def _read(file: Path) -> Json | list[Json] | None:
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
