"""One network on one data set: the hop from a configuration to the training loop."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepres.data.sources import placed
from deepres.errors import InputError
from deepres.experiments import pictures
from deepres.experiments import start as starting
from deepres.experiments.batch import require_batch
from deepres.experiments.exchange import ready, require_mean
from deepres.experiments.material import Material, Say, Source, material
from deepres.experiments.start import FILE as START
from deepres.experiments.start import Start, of_run
from deepres.models.catalog import WITHOUT_BN, build, depth, family
from deepres.models.network import Network
from deepres.records import Json, Run, describe_environment, write_json
from deepres.training.compile import resolve_compile
from deepres.training.device import resolve_device, resolve_precision
from deepres.training.fast import resolve_kernels
from deepres.training.freeze import freeze
from deepres.training.loop import train
from deepres.training.ranks import ALONE, Ranks
from deepres.training.recipe import FINETUNE, RECIPES, Config, Recipe, paper_recipe
from deepres.training.resume import mend_records
from deepres.training.settings import BEFORE, differences, from_json, merge, read_settings
from deepres.training.trainer import Monitor


@dataclass(frozen=True)
class Trained:
    """A network ready to use: the net, its mean image, (C, H, W) or (C, 1, 1), and its header."""

    net: Network
    mean: Tensor
    header: Json


# The fingerprint tells, not the place, of data and of start weights; the others change no result.
ANY_VALUE = ("data", "data_path", "division", "start", "start_path", "memory_budget", "workers", "skip_bad")
PLACES = ("data_path", "start_path")
FACTS = (
    "num_classes",
    "classes",
    "fingerprint",
    "start_sha256",
)  # recorded beside the configuration, found again from the data and the start weights


def configure(sources: Sequence[Path], recipe: str | None, changes: Mapping[str, object]) -> Config:
    """A configuration from files and run folders, later ones over earlier ones, then a recipe's name, then `changes`.

    Raises `InputError` where the network or the data is not named anywhere, or a field is wrong.
    """
    settings: dict[str, Any] = {}
    for source in sources:
        read = read_settings(source, FACTS)
        recipe_so_far = settings.get("recipe", {}) | read.get("recipe", {})
        settings = _without_places(settings, read) | read | {"recipe": recipe_so_far}
    settings = _without_places(settings, changes)
    settings |= {name: changes[name] for name in ("network", "data") if name in changes}
    for name, how in (
        ("network", "name one, for example resnet20"),
        ("data", "give --data, for example cifar10"),
    ):
        if name not in settings:
            raise InputError(f"no {name} is given; {how}")
    if recipe is not None and recipe not in RECIPES:
        raise InputError(f"unknown recipe {recipe!r}; known: {', '.join(RECIPES)}")
    whole = changes.get("image_size") or settings.get("image_size")  # images are brought to one size, and stay whole
    papers = paper_recipe(depth(settings["network"]), not whole and family(settings["network"]) == "imagenet")
    chosen = rate_for(settings["network"], RECIPES[recipe] if recipe else papers)
    settings["recipe"] = dataclasses.asdict(chosen) | ({} if recipe else settings.get("recipe", {}))
    where = str(sources[-1]) if sources and not changes else "the command line"
    config = from_json(merge(settings, changes), where)
    learns_lengths = config.network in WITHOUT_BN or config.network.startswith("highway")  # its gates have no BN
    if config.recipe.optimizer == "muon" and learns_lengths:
        raise InputError(
            f"muon keeps the lengths of kernels, which {config.network} learns where it has no batch normalization; "
            "give --set optimizer=sgd, or another recipe than fast"
        )
    return with_places(config)


def _without_places(settings: Mapping[str, Any], newer: Mapping[str, Any]) -> dict[str, Any]:
    """`settings` but for the places of data and start weights that `newer` names anew."""
    return {name: value for name, value in settings.items() if name not in PLACES or name[:-5] not in newer}


def with_places(config: Config) -> Config:
    """`config` with the places of its data and start weights, as found from this working folder, where it has none."""
    return dataclasses.replace(
        config,
        data_path=config.data_path or placed(config.data),
        start_path=config.start_path or (config.start and starting.placed(config.start)),
    )


def rate_for(network: str, recipe: Recipe) -> Recipe:
    """A recipe of crops (Sec. 3.4) for `network`: a tenth of the rate where it has no batch normalization to stand it.

    Of the paper's that is 0.01, the rate of VGG and PReLU-net in their own papers. So with `finetune`; any other recipe
    as it is.
    """
    lower = network in WITHOUT_BN and (recipe.crop or recipe.name == FINETUNE.name)
    return dataclasses.replace(recipe, lr=recipe.lr / 10) if lower else recipe


def default_name(config: Config) -> str:
    """The folder of a run that names none."""
    return f"{config.network}-{slug(config.data)}-seed{config.seed}"


def slug(data: str) -> str:
    """A data set's short name for folders: of a pattern of shards, what is not letters becomes dashes."""
    name = data.removeprefix("hf:").rstrip("/").split("/")[-1]
    if name in (".", ".."):
        name = Path(data).resolve().name
    return re.sub(r"[^\w.-]+", "-", name).strip("-")


def train_run(
    config: Config, run: Run, source: Source, monitor: Monitor, ranks: Ranks = ALONE, start: Start | None = None
) -> Json:
    """Train `config` into `run`, or go on with it; return the final figures.

    `start` is what `config.start` names; where it is not given, it is read from there, or from the run's folder.
    Several `ranks` call this together. Raises `InputError` where the folder holds a run of another configuration,
    naming the fields that differ, where another process is at work on it, and where the batch does not divide
    among the ranks.
    """
    config = with_places(dataclasses.replace(config, recipe=config.recipe.in_iterations(len(source.train))))
    require_batch(config, source, ranks, start)
    if not run.exists:
        pictures.require_outside(config.data_path or config.data, run.path)
    with ExitStack() as held:
        ranks.by_first(lambda: held.enter_context(run.locked()))
        if config.start is not None and start is None:
            start = of_run(run, config.start_path or config.start, monitor.say)
        if config.start_path is not None:
            pictures.tell_start(Path(config.start_path), str(config.data_path), source, monitor.say)
        return _train_run(config, run, source, monitor, ranks, start)


def resolve(config: Config, run: Run, say: Say, ranks: Ranks = ALONE) -> Config:
    """`config` without `auto`, but for `compile` of a new run, which takes a network to decide."""
    device = resolve_device(config.device)
    precision, compile, asked = resolve_precision(config.precision, device), config.compile, config.kernels
    if compile == "auto":  # an existing run has decided: by measured times, which would decide otherwise now
        compile = ranks.by_first(lambda: run.config.get("compile", "off") if run.begun else "auto")
    if asked == "auto" and ranks.by_first(lambda: run.begun and run.config.get("kernels") == "off"):
        asked = "off"  # where they were on, and cannot be any more, the configurations differ
    if compile == "on" and asked == "auto":
        asked = "off"
    kernels = "on" if resolve_kernels(asked, device, config.recipe.bn_group, say) else "off"
    return dataclasses.replace(config, device=device, precision=precision, kernels=kernels, compile=compile)


def _train_run(config: Config, run: Run, source: Source, monitor: Monitor, ranks: Ranks, start: Start | None) -> Json:
    config = resolve(config, run, monitor.say, ranks)
    own = material(config, source, ranks, monitor.say, None if start is None else start.mean)
    with closing(own):
        if not ranks.same(int(own.fingerprint[:15], 16)):
            raise InputError(f"the ranks find different images in {config.data}; give all machines the same")
        return _train_on(own, config, run, monitor, ranks, start, source)


def _train_on(
    own: Material, config: Config, run: Run, monitor: Monitor, ranks: Ranks, start: Start | None, source: Source
) -> Json:
    torch.manual_seed(config.seed)
    if start is None:
        net = build(config.network, len(own.classes), own.channels)
    else:
        net = start.begin(own.classes, own.channels, monitor.say)
    freeze(net, config.freeze or ())
    if run.done is None:
        compiled = ranks.by_first(lambda: resolve_compile(config, net, lambda: own.batch_at(0), monitor.say))
        config = dataclasses.replace(config, compile="on" if compiled else "off")
    facts: Json = {"num_classes": len(own.classes), "in_channels": own.channels, "classes": list(own.classes)}
    origin = {} if start is None else {"start": config.start, "start_sha256": start.sha256}
    record = config.as_json() | facts | origin | {"fingerprint": own.fingerprint}
    commit, done = ranks.by_first(lambda: open_run(record, run, source, start, ranks))
    if done is not None:
        ranks.by_first(lambda: mend_records(run, monitor.say))
        return done
    header = net.header | facts | origin | {"recipe": config.recipe.name, "seed": config.seed}
    header["division"] = config.division
    return train(
        net,
        config.recipe,
        own.batch_at,
        own.evaluate,
        run,
        monitor,
        device=config.device,
        precision=config.precision,
        kernels=config.kernels == "on",
        compiled=config.compile == "on",
        memory_budget=config.memory_budget,
        mean=own.mean,
        header=header | own.facts | {"commit": commit},
        ranks=ranks,
    )


def open_run(
    record: Json, run: Run, source: Source, start: Start | None = None, ranks: Ranks = ALONE
) -> tuple[str | None, Json | None]:
    """Write down the configuration of a new run, its start weights and its pictures; of one that has begun, check it.

    Returns the commit of the code, and the final figures of a run that is complete.
    """
    own = pictures.own_pictures(source, record["start_path"])
    if run.exists:
        if run.begun and (fields := _other_fields(record, run, source)):
            raise InputError(
                f"{run.path} holds a run of another configuration ({'; '.join(fields)}); give another --run, or "
                "the recorded values to go on with it"
            )
        if not run.begun:  # as after a first step at too high a rate: nothing is lost
            for file in (START, pictures.FILE):
                (run.path / file).unlink(missing_ok=True)
            write_json(run.path / "config.json", record)
        elif record["data_path"] != run.config.get("data_path"):  # the same content lies elsewhere now
            write_json(run.path / "config.json", run.config | {"data_path": record["data_path"]})
    else:
        if run.path.exists() and any(not file.name.startswith(".") for file in run.path.iterdir()):
            raise InputError(f"{run.path} is not empty and holds no run; give another --run")
        write_json(run.path / "config.json", record)
    if start is not None:
        start.keep(run)
    if own is not None and not (run.path / pictures.FILE).exists():
        own.keep(run)
    environment: Json = describe_environment() | {"ranks": ranks.world}
    write_json(run.path / "environment.json", [*run.environment, environment])
    return environment["commit"], run.done


def _other_fields(record: Json, run: Run, source: Source) -> list[str]:
    """What a recorded configuration has otherwise than `record`; of other pictures, which ones, where it is known."""
    recorded = {"compile": "off"} | BEFORE | run.config  # older runs do not tell of fields that came later
    begun = Config(record["network"], record["data"]).as_json()["recipe"] | recorded.get("recipe", {})
    fields = {field.split(":")[0]: field for field in differences(record, recorded | {"recipe": begun})}
    if "fingerprint" in fields and (before := pictures.kept(run.path)) is not None:
        fields["fingerprint"] = pictures.changes(before, source)
    elif "fingerprint" in fields and "division" in fields:  # as its pictures are in other parts by another rule
        fields["fingerprint"] += f"; {fields.pop('division')}"
    return [field for name, field in fields.items() if name not in ANY_VALUE]


def load_trained(path: Path, say: Say, network: str | None = None) -> Trained:
    """A network from a run folder (its newest whole checkpoint), a weights file of any kind, or `hf:owner/name`.

    `network` names the net where neither header nor tensors do. Raises `InputError` for weights of another net, and for
    those without a mean.
    """
    net = ready(path, say, network)
    return Trained(net, require_mean(net, path), net.header)
