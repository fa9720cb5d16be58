"""Train one network on one data set: from a configuration to the training loop."""

import dataclasses
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import torch

from deepres.models.network import Network
from deepres.records import Json, Run, write_json
from deepres.runtime.environment import describe_environment
from deepres.runtime.errors import InputError
from deepres.runtime.figures import CLASSIFICATION
from deepres.runtime.ranks import ALONE, Ranks
from deepres.training.compile import resolve_compile
from deepres.training.config import Config
from deepres.training.freeze import freeze
from deepres.training.kernels import kernels_work
from deepres.training.kind import Source
from deepres.training.loop import train
from deepres.training.resume import mend_records
from deepres.training.settings import BEFORE, differences
from deepres.training.task import AnyTask
from deepres.training.trainer import Monitor, Setup
from deepres.weights.start import FILE as START
from deepres.weights.start import Start, of_run
from deepres.workflows import kinds, run_pictures
from deepres.workflows.configure import resolve, with_places

# Fields that may differ on resume: data and start weights are compared by fingerprint, the others change no result.
MACHINE = ("device", "kernels", "compile", "capture", "deterministic")  # may differ where the device does
ANY_VALUE = ("data", "data_path", "division", "start", "start_path", "memory_budget", "workers", "skip_bad")


def train_run(
    config: Config,
    run: Run,
    source: Source,
    monitor: Monitor,
    ranks: Ranks = ALONE,
    start: Start | None = None,
) -> Json:
    """Train `config` into `run`, or go on with it; return the final figures.

    `start` has the weights that `config.start` names; the default is to read them from there, or from the run's folder.
    Several `ranks` call this together. Raises `InputError` where the folder holds a run of another configuration,
    naming the fields that differ, where another process is at work on it, and where the batch does not divide
    among the ranks.
    """
    config = with_places(dataclasses.replace(config, recipe=config.recipe.in_iterations(len(source.train))))
    # Refuse wrong input before anything is written.
    _require_parts(config, ranks)
    kind = kinds.kind_of(config)
    kind.check(config, source, ranks, start)
    if kind.class_folders and not run.exists:
        run_pictures.require_outside(config.data_path or config.data, run.path)
    # Lock the folder, read the start weights, and train.
    with ExitStack() as held:
        ranks.by_first(lambda: held.enter_context(run.locked()))
        if config.start is not None and start is None:
            start = of_run(run, config.start_path or config.start, monitor.say)
        if config.start_path is not None:
            run_pictures.tell_start(Path(config.start_path), str(config.data_path), source, monitor.say)
        return _train(config, _Opened(run, source, monitor, ranks, start))


def _require_parts(config: Config, ranks: Ranks) -> None:
    """Raise `InputError` for a batch that does not divide among the ranks, or into micro-batches."""
    own = ranks.part(config.recipe.batch_size)  # raises where it does not divide among the ranks
    count = own.stop - own.start
    if count % config.recipe.accumulate:
        raise InputError(
            f"the {count} images of a rank do not divide into {config.recipe.accumulate} parts; "
            "give another --batch-size or accumulate"
        )


@dataclass(frozen=True)
class _Opened:
    """A run folder that this process has locked, with its data, monitor, ranks and start weights."""

    run: Run
    source: Source
    monitor: Monitor
    ranks: Ranks
    start: Start | None


def _train(config: Config, opened: _Opened) -> Json:
    run, monitor, ranks, start = opened.run, opened.monitor, opened.ranks, opened.start
    asked = config.kernels
    config = resolve(config, run, monitor.say, ranks)
    kind = kinds.kind_of(config)
    task = kind.make_task(config, opened.source, ranks, monitor.say, None if start is None else start.mean)
    with closing(task):
        if not ranks.same(int(task.fingerprint[:15], 16)):
            raise InputError(f"the ranks find different images in {config.data}; give all machines the same")
        # Build the network, with random weights by the seed or with trained weights.
        torch.manual_seed(config.seed)
        net = kind.begin(config, task, start, monitor.say)
        freeze(net, config.freeze or ())
        if run.done is None:
            config = _tried(config, asked, net, task, opened)
        # Write the record of a new run; compare that of a run that has begun.
        facts: Json = {"num_classes": len(task.classes), "in_channels": task.channels, "classes": list(task.classes)}
        facts |= {} if start is None else {"start": config.start, "start_sha256": start.sha256}
        record = config.as_json() | facts | {"fingerprint": task.fingerprint}
        commit, done = ranks.by_first(lambda: open_run(record, opened))
        if done is not None:
            ranks.by_first(lambda: mend_records(run, monitor.say))
            return done
        # Train, with facts for the header of the weights.
        facts |= {"recipe": config.recipe.name, "seed": config.seed, "division": config.division}
        net.mean, net.header = task.mean, net.header | facts | task.facts | {"commit": commit}
        how = Setup(
            config.device,
            config.precision,
            kernels=config.kernels == "on",
            compiled=config.compile == "on",
            memory_budget=config.memory_budget,
            capture=config.capture,
            deterministic=config.deterministic,
        )
        return train(net, config.recipe, task, run, monitor, how, ranks)


def _tried(config: Config, asked: str, net: Network, task: AnyTask, opened: _Opened) -> Config:
    """`config` with what a copy of `net` shows: whether the kernels work, and whether compiling pays."""
    ranks, say = opened.ranks, opened.monitor.say
    works = ranks.by_first(lambda: kernels_work(config, asked, net, task, say))
    config = dataclasses.replace(config, kernels="on" if works else "off")
    compiled = ranks.by_first(lambda: resolve_compile(config, net, task, say))
    return dataclasses.replace(config, compile="on" if compiled else "off")


def open_run(record: Json, opened: _Opened) -> tuple[str | None, Json | None]:
    """Write the configuration, start weights and pictures of a new run; check the configuration of one that has begun.

    Returns the commit of the code, and the final figures of a complete run.
    """
    # A new run needs an empty folder.
    run, source, start = opened.run, opened.source, opened.start
    own = run_pictures.own_pictures(source, record["start_path"])
    if not run.exists and run.path.exists() and any(not file.name.startswith(".") for file in run.path.iterdir()):
        raise InputError(f"{run.path} is not empty and holds no run; give another --run")
    # The configuration. A run without a checkpoint, as after a first step at too high a rate, starts anew.
    if not run.begun:
        for file in (START, run_pictures.FILE):
            (run.path / file).unlink(missing_ok=True)
        write_json(run.path / "config.json", record)
    elif fields := _other_fields(record, run, source):
        raise InputError(
            f"{run.path} holds a run of another configuration ({'; '.join(fields)}); give another --run, or "
            "the recorded values to go on with it"
        )
    else:
        _take_place(record, opened)
    # The start weights, the pictures, and the environment of this start; a complete run is not started again.
    if start is not None:
        start.keep(run)
    if own is not None and not (run.path / run_pictures.FILE).exists():
        own.keep(run)
    starts = run.environment
    environment: Json = describe_environment() | {"ranks": opened.ranks.world}
    if run.done is None:
        write_json(run.path / "environment.json", [*starts, environment])
    return environment["commit"], run.done


def _take_place(record: Json, opened: _Opened) -> None:
    """Record where a run goes on: its data may lie elsewhere now, and it may move to another device, which is said."""
    run, moved = opened.run, record["device"] != opened.run.config["device"]
    now = {name: record[name] for name in ("data_path", *(MACHINE if moved else ()))}
    if moved:
        began = run.config["device"]
        opened.monitor.say(f"the run began on {began} and goes on on {record['device']}, with other bits than there")
    if now != {name: run.config.get(name) for name in now}:
        write_json(run.path / "config.json", run.config | now)


def _other_fields(record: Json, run: Run, source: Source) -> list[str]:
    """The fields of a recorded configuration that differ from `record`; of pictures which ones, where that is known."""
    # Older runs lack fields that were added later, with the values of today unless told otherwise.
    kind = kinds.kind(record.get("task", CLASSIFICATION))
    begun = kind.config(record["network"], record["data"]).as_json()
    recorded = begun | {"compile": "off"} | BEFORE | run.config
    recorded |= {"recipe": begun["recipe"] | recorded["recipe"]}
    fields = {field.split(":")[0]: field for field in differences(record, recorded)}
    if "fingerprint" in fields and (before := run_pictures.kept(run.path)) is not None:
        fields["fingerprint"] = run_pictures.changes(before, source)
    elif "fingerprint" in fields and "division" in fields:  # another rule puts the pictures into other parts
        fields["fingerprint"] += f"; {fields.pop('division')}"
    free = (*ANY_VALUE, *(MACHINE if "device" in fields else ()))
    return [field for name, field in fields.items() if name not in free]
