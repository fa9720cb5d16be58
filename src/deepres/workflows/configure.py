"""One configuration from files, run folders, a recipe's name and the options of the command line."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepres.acceleration import on_gpu, on_kernels
from deepres.data.sources import placed
from deepres.records import Run
from deepres.runtime.device import resolve_device, resolve_precision
from deepres.runtime.errors import InputError, Say
from deepres.runtime.ranks import ALONE, Ranks
from deepres.training.config import Config
from deepres.training.kind import C, Kind, S
from deepres.training.settings import from_json, merge, read_settings, told_task
from deepres.weights import start as starting
from deepres.workflows import kinds

PLACES = ("data_path", "start_path")
# Recorded beside the configuration, but told by its class, or derived again from the data and the start weights.
FACTS = ("task", "num_classes", "in_channels", "classes", "fingerprint", "start_sha256")


def configure(sources: Sequence[Path], recipe: str | None, changes: Mapping[str, Any]) -> Config:
    """A configuration from files and run folders (a later one overrides), then a recipe's name, then `changes`.

    Its kind is the one of the files, the run folders and the network. Raises `InputError` where these differ, where the
    network or the data is not named anywhere, or a field is wrong.
    """
    told = {str(source): task for source in sources if (task := told_task(source)) is not None}
    if "network" in changes:
        told[changes["network"]] = kinds.task_of(changes["network"])
    return configure_kind(kinds.kind(kinds.agreed(told)), sources, recipe, changes)


def configure_kind(kind: Kind[C, S], sources: Sequence[Path], recipe: str | None, changes: Mapping[str, Any]) -> C:
    """`configure` for one kind of task."""
    # The files and run folders, and what is trained on which data.
    settings: dict[str, Any] = {}
    for source in sources:
        read = read_settings(source, kind.config, FACTS)
        recipe_so_far = settings.get("recipe", {}) | read.get("recipe", {})
        settings = _without_places(settings, read) | read | {"recipe": recipe_so_far}
    changes = kind.settle(settings, changes, recipe)
    settings = _without_places(settings, changes)
    settings |= {name: changes[name] for name in ("network", "data") if name in changes}
    for name, how in (("network", "name one, for example resnet20"), ("data", "give --data, for example cifar10")):
        if name not in settings:
            raise InputError(f"no {name} is given; {how}")
    # The recipe: the one that is named, or the paper's for the network.
    if recipe is not None and recipe not in kind.recipes:
        raise InputError(f"unknown recipe {recipe!r}; known: {', '.join(kind.recipes)}")
    chosen = kind.recipe_of({**settings, **changes}, recipe)
    settings["recipe"] = dataclasses.asdict(chosen) | ({} if recipe else settings.get("recipe", {}))
    # The changes, which override all else.
    where = str(sources[-1]) if sources and not changes else "the command line"
    config = from_json(merge(settings, changes, kind.config), where, kind.config)
    kind.require(config)
    return with_places(config)


def _without_places(settings: Mapping[str, Any], newer: Mapping[str, Any]) -> dict[str, Any]:
    """`settings` without the recorded places of data and start weights where `newer` names others."""
    return {name: value for name, value in settings.items() if name not in PLACES or name[:-5] not in newer}


def with_places(config: C) -> C:
    """`config` with the paths of its data and start weights; missing ones are found from the working folder."""
    return dataclasses.replace(
        config,
        data_path=config.data_path or placed(config.data),
        start_path=config.start_path or (config.start and starting.placed(config.start)),
    )


def default_name(config: Config) -> str:
    """The default name of a run's folder."""
    return f"{config.title}-{slug(config.data)}-seed{config.seed}"


def slug(data: str) -> str:
    """A data set's short name for folders; dashes replace characters that are unusual in names."""
    name = data.removeprefix("hf:").rstrip("/").split("/")[-1]
    if name in (".", ".."):
        name = Path(data).resolve().name
    return re.sub(r"[^\w.-]+", "-", name).strip("-")


def resolve(config: C, run: Run, say: Say, ranks: Ranks = ALONE) -> C:
    """`config` with each `auto` resolved, except `compile` of a new run, which is decided with the network."""
    device = resolve_device(config.device)
    precision, compile, asked = resolve_precision(config.precision, device), config.compile, config.kernels
    begun, recorded = ranks.by_first(lambda: (run.begun, run.config if run.begun else {}))
    if begun and recorded.get("device") != device:  # what was decided for another device does not hold here
        asked, compile = ("auto" if own == recorded.get(name) else own for name, own in _decided(config))
        begun = False
    if compile == "auto" and begun:  # an existing run keeps its decision, as times measured now could differ
        compile = recorded.get("compile", "off")
    if asked == "auto" and begun and recorded.get("kernels") == "off":
        asked = "off"  # a run that began without kernels goes on without them
    if compile == "on" and asked == "auto":
        asked = "off"
    if device == "cuda":
        own = on_gpu.resolve_kernels(asked, config.network, _unknown_to_gpu_kernels(config), say)
    else:
        own = on_kernels.resolve_kernels(asked, device, config.recipe.bn_group, say)
    kernels = "on" if own else "off"
    return dataclasses.replace(config, device=device, precision=precision, kernels=kernels, compile=compile)


def _decided(config: Config) -> tuple[tuple[str, str], ...]:
    """The fields that are decided for a device."""
    return ("kernels", config.kernels), ("compile", config.compile)


def _unknown_to_gpu_kernels(config: Config) -> str | None:
    """A setting for which a network is changed in ways that the kernels for GPUs do not know."""
    settings = {
        "a BN group (--bn-group)": config.recipe.bn_group,
        "a memory budget (--memory-budget)": config.memory_budget,
        "frozen stages (--freeze)": config.freeze,
    }
    return next((name for name, value in settings.items() if value), None)
