"""One network on one data set: the hop from a configuration to the training loop."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepres.data.memory import Batches, test_batches
from deepres.data.sets import Data, ImageSet
from deepres.data.sources import load
from deepres.errors import InputError
from deepres.evaluation.accuracy import Scores, percent_wrong, score
from deepres.experiments.exchange import find
from deepres.models import pretrained
from deepres.models.catalog import build, depth
from deepres.models.network import Network
from deepres.records import Json, Run, describe_environment, write_json
from deepres.training.compile import resolve_compile
from deepres.training.device import autocast, resolve_device, resolve_precision
from deepres.training.fast import resolve_kernels
from deepres.training.loop import Monitor, train
from deepres.training.ranks import ALONE, Ranks
from deepres.training.recipe import (
    RECIPES,
    Config,
    differences,
    from_json,
    merge,
    paper_recipe,
    read_settings,
)

TEST_BATCH = 500
Say = Callable[[str], None]


@dataclass(frozen=True)
class Trained:
    """A network ready to use: the net, its mean image (C, H, W), the names of its classes, its header."""

    net: Network
    mean: Tensor | None
    header: Json


ANY_VALUE = ("data", "memory_budget")  # the fingerprint tells, not the place; memory changes no result
FACTS = (
    "num_classes",
    "classes",
    "fingerprint",
)  # recorded beside the configuration, found again from the data


def configure(sources: Sequence[Path], recipe: str | None, changes: Mapping[str, object]) -> Config:
    """A configuration from files and run folders, later ones over earlier ones, then a recipe's name, then `changes`.

    Raises `InputError` where the network or the data is not named anywhere, or a field is wrong.
    """
    settings: dict[str, Any] = {}
    for source in sources:
        read = {name: value for name, value in read_settings(source).items() if name not in FACTS}
        settings |= read | {"recipe": settings.get("recipe", {}) | read.get("recipe", {})}
    settings |= {name: changes[name] for name in ("network", "data") if name in changes}
    for name, how in (
        ("network", "name one, for example resnet20"),
        ("data", "give --data, for example cifar10"),
    ):
        if name not in settings:
            raise InputError(f"no {name} is given; {how}")
    if recipe is not None and recipe not in RECIPES:
        raise InputError(f"unknown recipe {recipe!r}; known: {', '.join(RECIPES)}")
    chosen = RECIPES[recipe] if recipe else paper_recipe(depth(settings["network"]))
    settings["recipe"] = dataclasses.asdict(chosen) | ({} if recipe else settings.get("recipe", {}))
    where = str(sources[-1]) if sources else "the command line"
    return from_json(merge(settings, changes), where)


def default_name(config: Config) -> str:
    """The folder of a run that names none."""
    return f"{config.network}-{slug(config.data)}-seed{config.seed}"


def slug(data: str) -> str:
    """A data set's short name for folders."""
    return data.removeprefix("hf:").rstrip("/").split("/")[-1]


def load_data(config: Config, say: Say, ranks: Ranks = ALONE) -> Data:
    """The data of a configuration; `say` is told what takes time. One rank of a machine decodes for all."""
    size, bad = config.image_size, config.skip_bad
    with ranks.one_first():
        return load(config.data, split=config.split, image_size=size, skip_bad=bad, progress=say)


def train_run(config: Config, run: Run, data: Data, monitor: Monitor, ranks: Ranks = ALONE) -> Json:
    """Train `config` into `run`, or go on with it; return the final figures.

    Several `ranks` call this together. Raises `InputError` where the folder holds a run of another configuration,
    naming the fields that differ, where another process is at work on it, and where the batch does not divide
    among the ranks.
    """
    ranks.part(config.recipe.batch_size)  # refuses one that does not divide, before anything is written
    with ExitStack() as held:
        ranks.by_first(lambda: held.enter_context(run.locked()))
        return _train_run(config, run, data, monitor, ranks)


def resolve(config: Config, run: Run, say: Say, ranks: Ranks = ALONE) -> Config:
    """`config` without `auto`, but for `compile` of a new run, which takes a network to decide."""
    device = resolve_device(config.device)
    precision, compile, asked = resolve_precision(config.precision, device), config.compile, config.kernels
    if compile == "auto":  # an existing run has decided: by measured times, which would decide otherwise now
        compile = ranks.by_first(lambda: run.config.get("compile", "off") if run.exists else "auto")
    if compile == "on" and asked == "auto":
        asked = "off"
    kernels = "on" if resolve_kernels(asked, device, precision, config.recipe.bn_group, say) else "off"
    return dataclasses.replace(config, device=device, precision=precision, kernels=kernels, compile=compile)


def _train_run(config: Config, run: Run, data: Data, monitor: Monitor, ranks: Ranks) -> Json:
    config = resolve(config, run, monitor.say, ranks)
    recipe, device = config.recipe, config.device
    torch.manual_seed(config.seed)
    data = data.with_channels(config.in_channels or data.channels)
    net = build(config.network, len(data.classes), data.channels)
    mean, place, own = data.mean(), torch.device(device), ranks.part(recipe.batch_size)
    batches = Batches(data.train, mean, recipe.batch_size, config.seed, place, augment=recipe.augment, part=own)
    if run.done is None:
        compiled = ranks.by_first(lambda: resolve_compile(config, net, lambda: batches.batch(0), monitor.say))
        config = dataclasses.replace(config, compile="on" if compiled else "off")
    facts = {"num_classes": len(data.classes), "in_channels": data.channels, "classes": list(data.classes)}
    record = config.as_json() | facts | {"fingerprint": data.fingerprint}
    commit, done = ranks.by_first(lambda: open_run(record, run, ranks))
    if done is not None:
        return done
    header = net.header | facts | {"recipe": recipe.name, "seed": config.seed}
    part = spread(data.test, config.test_images)

    def evaluate(net: nn.Module, last: bool) -> Mapping[str, float]:
        return test_figures(net, data.test if last else part, mean, device, config.precision, ranks)

    return train(
        net,
        recipe,
        batches.batch,
        evaluate,
        run,
        monitor,
        device=device,
        precision=config.precision,
        kernels=config.kernels == "on",
        compiled=config.compile == "on",
        memory_budget=config.memory_budget,
        mean=mean,
        header=header | {"commit": commit},
        ranks=ranks,
    )


def test_figures(
    net: nn.Module, images: ImageSet, mean: Tensor, device: str, precision: str, ranks: Ranks
) -> dict[str, float]:
    """Top-1 and top-5 test error in percent: each rank scores every `world`-th image, and each image counts once."""
    own = slice(ranks.rank, None, ranks.world)
    mine = dataclasses.replace(images, images=images.images[own], labels=images.labels[own])
    counts = [0, 0]  # of a rank without an image, where there are more ranks than images
    if len(mine):
        with autocast(precision, device):
            scores = score(net, test_batches(mine, mean, TEST_BATCH, torch.device(device)))
        counts = [scores.correct(), scores.correct(top=5)]
    top1, top5 = (percent_wrong(correct, len(images)) for correct in ranks.sum(counts))
    return {"test_error": top1, "test_top5_error": top5}


def open_run(record: Json, run: Run, ranks: Ranks = ALONE) -> tuple[str | None, Json | None]:
    """Write down the configuration of a new run, or check it against the one that the folder has.

    Returns the commit of the code, and the final figures of a run that is complete.
    """
    if run.exists:
        fields = differences(record, {"compile": "off"} | run.config)  # older runs do not tell, and were not compiled
        fields = [field for field in fields if field.split(":")[0] not in ANY_VALUE]
        if fields:
            raise InputError(
                f"{run.path} holds a run of another configuration ({'; '.join(fields)}); give another --run, or "
                "the recorded values to go on with it"
            )
    else:
        if run.path.exists() and any(not file.name.startswith(".") for file in run.path.iterdir()):
            raise InputError(f"{run.path} is not empty and holds no run; give another --run")
        write_json(run.path / "config.json", record)
    environment: Json = describe_environment() | {"ranks": ranks.world}
    write_json(run.path / "environment.json", [*run.environment, environment])
    return environment["commit"], run.done


def spread(images: ImageSet, count: int) -> ImageSet:
    """`count` images at even distances (all where `count` is 0 or more than there are)."""
    total = len(images.labels)
    if not 0 < count < total:
        return images
    chosen = torch.arange(count) * total // count
    return dataclasses.replace(images, images=images.images[chosen], labels=images.labels[chosen])


def load_trained(path: Path, say: Say, network: str | None = None) -> Trained:
    """A network from a run folder (its newest whole checkpoint), a weights file of any kind, or `hf:owner/name`.

    `network` names the net where neither header nor tensors do. Raises `InputError` for weights of another net.
    """
    net = pretrained.load(find(path, say), network)
    return Trained(net, net.mean, net.header)


def test_scores(trained: Trained, data: Data, device: str, precision: str) -> Scores:
    """Scores of a trained net on the test images of `data`, single view, with the mean image of its training."""
    mean, ends = trained.mean, trained.net.state_dict()
    classes, channels = len(ends["fc.bias"]), ends["conv1.conv.weight"].shape[1]
    if classes != len(data.classes):
        raise InputError(
            f"the weights know {classes} classes, {data.name} has {len(data.classes)}; give the data they were made for"
        )
    data = data.with_channels(channels)
    shape = tuple(data.test.images.shape[1:])
    if mean is not None and tuple(mean.shape) not in (shape, (channels, 1, 1)):
        raise InputError(f"the weights were trained on images of {tuple(mean.shape)}, {data.name} has {shape}")
    target = torch.device(device)
    net = trained.net.to(device=target, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    with autocast(precision, device):
        return score(net, test_batches(data.test, data.mean() if mean is None else mean, TEST_BATCH, target))


def evaluate(
    path: Path, data: str | None, say: Say, network: str | None, device: str, precision: str, **how: Any
) -> Json:
    """Test a run or weights file; `how` is passed to `load`. Errors in percent, confusion counts row by true class.

    Raises `InputError` for weights that do not fit the network or the data.
    """
    trained = load_trained(path, say, network)
    recorded = Run(path).config if data is None and path.is_dir() else {}
    source = data or recorded.get("data")
    if source is None:
        raise InputError(f"{path} does not say which data to test on; give --data")
    recorded = {name: recorded[name] for name in ("split", "image_size", "skip_bad") if name in recorded}
    given = {name: value for name, value in how.items() if value}
    images = load(source, **recorded | given, progress=say)
    device = resolve_device(device)
    scores = test_scores(trained, images, device, resolve_precision(precision, device))
    return {
        "network": trained.header.get("network", network),
        "weights": str(path),
        "data": images.name,
        "images": len(scores.labels),
        "skipped": len(images.test.skipped),
        "top1_error": scores.error(),
        "top5_error": scores.error(top=5),
        "classes": list(images.classes),
        "class_errors": scores.class_errors(),
        "confusion": scores.confusion().tolist(),
    }
