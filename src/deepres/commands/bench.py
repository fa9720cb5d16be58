"""The verb `deepres bench`."""

import itertools
import json as json_format
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from deepres.bench.job import Task, Work, is_from_disk
from deepres.commands.console import sayer
from deepres.records import Json, write_json
from deepres.runtime.errors import InputError
from deepres.runtime.printing import Console

BATCH: dict[str, dict[str, int]] = {
    "cifar": {"infer": 1},
    "imagenet": {"train": 32, "infer": 1, "load": 32, "dense": 1, "memory": 32},
}


def bench(
    task: Annotated[Task, typer.Argument(help="train, infer, load, dense or memory.")],
    networks: Annotated[list[str] | None, typer.Argument(help="Default: resnet20.")] = None,
    against: Annotated[
        list[str] | None, typer.Option(help="A rival; repeatable. Default: all that can, but not our own recipe fast.")
    ] = None,
    pairs: Annotated[int, typer.Option(help="Turns of each.")] = 7,
    warm_up: Annotated[int, typer.Option(help="Turns of each before those that count.")] = 1,
    batch_size: Annotated[int | None, typer.Option(help="Default: 128; at 224 pixels 32; infer, dense: 1.")] = None,
    data: Annotated[
        str, typer.Option("--data", help="What is trained on or loaded; at 224, a folder of pictures.")
    ] = "cifar10",
    part: Annotated[float, typer.Option(help="This part of the epoch, from above 0 to 1.")] = 1.0,
    precision: Annotated[str, typer.Option(help="Of our side and of runtimes: auto, fp32, bf16, int8.")] = "auto",
    memory_budget: Annotated[
        float | None, typer.Option(help="GiB that our side keeps to, for memory and for train at 224.")
    ] = None,
    compile: Annotated[bool, typer.Option(help="Let the tuned rival try torch.compile, which takes a while.")] = True,
    save: Annotated[Path | None, typer.Option(help="A folder for the records, a file a work and rival.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for another program.")] = False,
) -> None:
    """Run ours and the rivals in turn (A B A B ...); medians, ratios pair by pair, and the share of the limits.

    A ratio is the rival's time over ours. Example: deepres bench train resnet20 --against textbook --part 0.25
    """
    from deepres.bench.contest import contest
    from deepres.bench.contestants import rivals
    from deepres.bench.limits import asked, machine_limits, shares

    say = sayer(Console(stderr=True))
    works = [
        _work(task, network, batch_size, data, part, precision, memory_budget, compile)
        for network in networks or ["resnet20"]
    ]
    if save is not None:
        save.mkdir(parents=True, exist_ok=True)  # refused now, and not after the contest
    records: list[Json] = []
    for work in works:
        chosen = list(dict.fromkeys(against or rivals(work)))
        made = contest(work, chosen, pairs, warm_up, say)
        if task in ("train", "infer"):
            limits, need = machine_limits(work.precision), asked(work)
            made = [shares(record, limits, need) for record in made]
        for record in made:
            if save is not None:
                write_json(save / f"{_name(work)}-{record['rival']['name']}.json", record)
        records += made
    if json:
        typer.echo(json_format.dumps(records, indent=2))
        return
    for made in itertools.groupby(records, lambda record: record["work"]):
        _print(Console(), list(made[1]))


def _print(out: Console, records: list[Json]) -> None:
    """One work: a row a contestant, ours first."""
    from deepres.bench.tables import conditions, reached, setting, what

    ours = records[0]["ours"]
    table = Table("", "seconds a turn", "images/s", "ratio", "min to max")
    table.add_row("ours", f"{ours['median']['seconds']:.3f}", f"{ours['images_per_second']:,.1f}", "", "")
    for record in records:
        rival, ratio = record["rival"], record["ratio"]
        seconds, speed = f"{rival['median']['seconds']:.3f}", f"{rival['images_per_second']:,.1f}"
        table.add_row(
            rival["name"], seconds, speed, f"{ratio['median']:.2f}", f"{ratio['min']:.2f} to {ratio['max']:.2f}"
        )
    out.print(what(records[0]["work"]), highlight=False, markup=False, soft_wrap=True)
    out.print(table)
    for side in (ours, *(record["rival"] for record in records)):
        out.print(f"{side['name']}: {setting(side)}", highlight=False, markup=False, soft_wrap=True)
    share = reached(records[0])
    for line in ([f"ours reaches {share}"] if share else []) + conditions(records):
        out.print(line, style="dim", highlight=False, markup=False, soft_wrap=True)


def _name(work: Work) -> str:
    precision = f"-{work.precision}" if work.precision != "fp32" else ""
    pictures = "-pictures" if is_from_disk(work) else ""
    return f"{work.task}-{work.network}-b{work.batch_size}{precision}{pictures}"


def _work(task: Task, network: str, batch_size: int | None, data: str, part: float, precision: str, *more: Any) -> Work:
    """The work with its defaults filled in. Raises `InputError` for what makes no sense."""
    from deepres.models.catalog import family
    from deepres.runtime.device import resolve_precision

    if not 0 < part <= 1:
        raise InputError(f"--part is {part:g}, but must be above 0 and at most 1")
    if task == "dense" and family(network) == "cifar":
        raise InputError(f"dense is for networks at 224 pixels, such as resnet18, not for {network}")
    size = BATCH[family(network)].get(task, 128) if batch_size is None else batch_size
    if size < 1:
        raise InputError(f"--batch-size is {size}, but must be 1 or more")
    if precision == "int8" and task != "infer":
        raise InputError("int8 is for infer alone; give --precision fp32 or bf16")
    resolved = precision if precision == "int8" else resolve_precision(precision, "cpu")
    return Work(task, network, size, data, part, resolved, *more)
