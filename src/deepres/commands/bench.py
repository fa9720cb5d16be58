"""The verb `deepres bench`."""

import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from deepres.bench.job import Job, Task
from deepres.commands.console import print_json, print_lines, say
from deepres.commands.options import AsJson, grouped, require_positive
from deepres.records import Json, write_json
from deepres.runtime.errors import InputError
from deepres.runtime.printing import Console

DETECTORS = ("resnet50", "resnet18")  # the backbones of `bench detector`
OF_DETECTORS: tuple[Task, ...] = ("train", "infer", "memory")  # its contests
DETECTOR_BUDGET = 6.0  # GiB of its contest of memory
Contest = Literal["train", "infer", "load", "dense", "memory", "detector"]
ON_GPU = ("train", "infer")  # the tasks that are also measured on a GPU
BATCH: dict[str, dict[str, int]] = {
    "cifar": {"infer": 1},
    "imagenet": {"train": 32, "infer": 1, "load": 32, "dense": 1, "memory": 32},
}


@dataclass(frozen=True)
class JobOptions:
    """What every contestant does: fields of `bench.job.Job`."""

    batch_size: Annotated[int | None, typer.Option(help="Default: 128; at 224 pixels 32; infer, dense: 1.")] = None
    data: Annotated[str, typer.Option("--data", help="What is trained on or loaded; at 224, a folder of pictures.")] = (
        "cifar10"
    )
    part: Annotated[float, typer.Option(help="This part of the epoch, from above 0 to 1.")] = 1.0
    precision: Annotated[str, typer.Option(help="Of ours and of runtimes: auto, fp32, bf16, int8, fp16 (GPU).")] = (
        "auto"
    )
    memory_budget: Annotated[
        float | None, typer.Option(help="GiB that our side keeps to, for memory and for train at 224.")
    ] = None
    compile: Annotated[bool, typer.Option(help="Let the tuned rival try torch.compile, which takes a while.")] = True
    device: Annotated[str, typer.Option(help="auto (a GPU, if there is one, for train and infer), cpu or cuda.")] = (
        "auto"
    )
    patience: Annotated[float, typer.Option(help="Seconds that tuned may spend on compiling, on a GPU.")] = 120.0


@dataclass(frozen=True)
class ContestOptions:
    """Who runs a job, how often, and where the records go."""

    against: Annotated[
        list[str] | None, typer.Option(help="A rival; repeatable. Default: all that can, but not our own recipe fast.")
    ] = None
    pairs: Annotated[int, typer.Option(help="Turns of each.")] = 7
    warm_up: Annotated[int, typer.Option(help="Turns of each before those that count.")] = 1
    save: Annotated[Path | None, typer.Option(help="A folder for the records, a file a work and rival.")] = None


@grouped
def bench(
    task: Annotated[
        Contest,
        typer.Argument(help="train, infer, load, dense, memory, or detector: train, infer, memory of Faster R-CNN."),
    ],
    job_options: JobOptions,
    how: ContestOptions,
    networks: Annotated[
        list[str] | None, typer.Argument(help="Default: resnet20; detector: backbones resnet50 and resnet18.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Run ours and the rivals in turn (A B A B ...); medians, ratios pair by pair, and the share of the limits.

    A ratio is the rival's time over ours. Example: deepres bench train resnet20 --against textbook --part 0.25
    """
    if task == "detector":
        jobs = _of_detectors(networks or list(DETECTORS), job_options)
    else:
        jobs = [_job(task, network, job_options) for network in networks or ["resnet20"]]
    if how.save is not None:
        how.save.mkdir(parents=True, exist_ok=True)  # where it cannot be made, this is told before the contest
    records = [record for job in jobs for record in _measured(job, how)]
    if json:
        print_json(records)
        return
    for _, of_job in itertools.groupby(records, lambda record: record["work"]):
        _print_job(list(of_job))


def _measured(job: Job, how: ContestOptions) -> list[Json]:
    """The record of the job against each rival, by default against all that take part; kept in the folder `save`."""
    from deepres.bench.contest import contest
    from deepres.bench.contestants import rivals
    from deepres.bench.job import is_detector
    from deepres.bench.limits import asked, limits_of, shares
    from deepres.bench.tables import file_stem

    # The contest, and for speeds the share of what this machine could reach.
    chosen = list(dict.fromkeys(how.against or rivals(job)))
    records = contest(job, chosen, how.pairs, how.warm_up, say)
    if job.task in ("train", "infer") and not is_detector(job):
        limits, need = limits_of(job), asked(job)
        records = [shares(record, limits, need) for record in records]
    for record in records:
        if how.save is not None:
            write_json(how.save / f"{file_stem(record)}.json", record)
    return records


def _print_job(records: list[Json]) -> None:
    """Print the records of one job: a row a contestant, ours first, then their settings and what qualifies them."""
    from deepres.bench.tables import conditions, reached, setting, what

    out, ours = Console(), records[0]["ours"]
    table = Table("", "seconds a turn", "images/s", "ratio", "min to max")
    table.add_row("ours", f"{ours['median']['seconds']:.3f}", f"{ours['images_per_second']:,.1f}", "", "")
    for record in records:
        rival, ratio = record["rival"], record["ratio"]
        seconds, speed = f"{rival['median']['seconds']:.3f}", f"{rival['images_per_second']:,.1f}"
        spread = f"{ratio['min']:.2f} to {ratio['max']:.2f}"
        table.add_row(rival["name"], seconds, speed, f"{ratio['median']:.2f}", spread)
    print_lines(what(records[0]["work"]))
    out.print(table)
    print_lines(*(f"{side['name']}: {setting(side)}" for side in (ours, *(record["rival"] for record in records))))
    share = reached(records[0])
    for line in ([f"ours reaches {share}"] if share else []) + conditions(records):
        out.print(line, style="dim", highlight=False, markup=False, soft_wrap=True)


def _device(task: Task, options: JobOptions) -> str:
    """Where the job is done. Raises `InputError` for a device that has no such contest."""
    from deepres.runtime.device import resolve_device

    device = "cpu" if options.device == "auto" and task not in ON_GPU else resolve_device(options.device)
    if device == "mps" or (device == "cuda" and task not in ON_GPU):
        raise InputError(f"{task} is measured on the processor; give --device cpu")
    return device


def _of_detectors(backbones: list[str], options: JobOptions) -> list[Job]:
    """Training step and test of each detector, and the memory of a step with the first backbone."""
    from deepres.models.registry import DETECTOR

    jobs: list[Job] = []
    for task in OF_DETECTORS:
        budget = options.memory_budget or DETECTOR_BUDGET if task == "memory" else None
        for backbone in backbones[:1] if task == "memory" else backbones:
            jobs.append(_job(task, DETECTOR + backbone, replace(options, memory_budget=budget)))
    return jobs


def _job(task: Task, network: str, options: JobOptions) -> Job:
    """The job for `network`, with its defaults filled in. Raises `InputError` for what makes no sense."""
    from deepres.models.catalog import family
    from deepres.models.registry import DETECTOR
    from deepres.runtime.device import resolve_precision

    if not 0 < options.part <= 1:
        raise InputError(f"--part is {options.part:g}, but must be above 0 and at most 1")
    if task == "dense" and family(network) == "cifar":
        raise InputError(f"dense is for networks at 224 pixels, such as resnet18, not for {network}")
    usual = 1 if network.startswith(DETECTOR) else BATCH[family(network)].get(task, 128)
    size = usual if options.batch_size is None else options.batch_size
    require_positive([("--batch-size", size)])
    device, precision = _device(task, options), options.precision
    if precision in ("int8", "fp16") and task != "infer":
        raise InputError(f"{precision} is for infer alone; give --precision fp32 or bf16")
    halved = precision == "fp16" and device == "cuda"
    resolved = precision if precision == "int8" or halved else resolve_precision(precision, device)
    return Job(task, network, **vars(replace(options, batch_size=size, precision=resolved, device=device)))
