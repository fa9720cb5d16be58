"""Localizers tested on pictures with one class, with the true class given and with those that classifiers predict."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from deepres.classification.ensemble import average, member_weights
from deepres.classification.scorer import Scorer, scorer
from deepres.data.boxes.index import BoxIndex
from deepres.data.classes import Match, classes_of, match
from deepres.data.stream.loader import Reading
from deepres.localization.error import centre_box, is_right
from deepres.localization.located_table import PREFIX, LocatedTable, read_located, write_located
from deepres.localization.protocol import PLAIN, Protocol
from deepres.localization.reading import pictures
from deepres.localization.source import open_pictures
from deepres.localization.tester import Localizers
from deepres.models.localization.localizer import Localizer
from deepres.models.network import Network
from deepres.records import Json
from deepres.runtime.device import autocast
from deepres.runtime.environment import describe_environment
from deepres.runtime.errors import InputError, Say
from deepres.runtime.ranks import ALONE, Ranks
from deepres.workflows.box_test import BoxTest, decisive, is_run, with_recorded_data
from deepres.workflows.evaluate import Tick
from deepres.workflows.open_network import classifier, localizer, open_network
from deepres.workflows.tested_pictures import untrained

GUESSES = 5  # "top-5"


@dataclass(frozen=True, kw_only=True)
class Setting(BoxTest):
    """What is tested, and how. Classifiers see the views of the same `protocol`, each by the size of its own crops."""

    protocol: Protocol = PLAIN


@dataclass(frozen=True)
class _Networks:
    """The networks of a test, by kind, each with its path; the order is that of the command line."""

    every: Sequence[tuple[Path, Network]]

    @property
    def localizers(self) -> list[Localizer]:
        return [found for _, net in self.every if (found := localizer(net)) is not None]

    @property
    def classifiers(self) -> list[Network]:
        return [classifier(net, path) for path, net in self.every if localizer(net) is None]

    @property
    def title(self) -> str:
        """What is tested, as the rows of Table 13 have it."""
        found = Localizers.of(self.localizers)
        words = ["RPN+RCNN" if found.stages else "RPN"]
        words += [f"ensemble of {len(found.rpns)}"] * (len(found.rpns) > 1)
        return ", ".join(words)


def evaluate(paths: Sequence[Path], setting: Setting, say: Say, tick: Tick, ranks: Ranks = ALONE) -> LocatedTable:
    """The localization error of the networks at `paths`: RPNs, R-CNN stages and classifiers, several of a kind as one.

    The first run that is tested on its own test pictures keeps what was found, and is not run again as long as weights,
    pictures and settings stay. `tick` is told how many pictures are done. Several `ranks` share the pictures, and all
    get the whole table. Raises `InputError` for networks and data that do not fit each other.
    """
    if setting.part == "all":
        raise InputError("a localizer is tested on one part; give --part test, or --part train")
    nets = _Networks([(path, open_network(path, say)) for path in paths])
    title = nets.title  # raises where no RPN is there
    given, own = setting.given, [path for path, net in nets.every if localizer(net)]
    setting = replace(with_recorded_data(setting, own), execution=setting.execution.resolved())
    with ranks.one_first():
        parts = open_pictures(str(setting.data), say, setting.train_set, setting.test_set, setting.division)
    index = parts.train if setting.part == "train" else parts.test
    places = untrained(paths, index, setting.part, str(setting.data), say, given)
    # What is kept of an earlier test.
    facts = decisive(paths, setting, index, places) | {"protocol": asdict(setting.protocol)}
    facts |= {"title": f"{title}, {setting.protocol.views.name}"}
    home = next(filter(is_run, own), None)
    file = None if home is None or given or setting.part != "test" else kept_file(home, facts)
    before = ranks.by_first(lambda: _still_right(file, say))
    if before is not None:
        return before
    # Test the networks, and keep what they found.
    hits = _test(nets, setting, index, places, centre_box(parts.train), (say, tick, ranks))
    environment = describe_environment()
    facts |= {name: environment[name] for name in ("commit", "cpu")}
    table = LocatedTable(
        str(setting.data), hits, facts | {"network": [net.name for _, net in nets.every], "classes": len(index.classes)}
    )
    if file is not None and ranks.first:
        write_located(file, table)
    return table


def kept_file(run: Path, facts: Json) -> Path:
    """Where a run folder keeps a test: the name is made of weights, pictures and settings, not of where they lie."""
    own = {name: fact for name, fact in facts.items() if name != "weights"}
    return run / f"{PREFIX}{hashlib.sha256(json.dumps(own).encode()).hexdigest()[:12]}.json"


def _still_right(file: Path | None, say: Say) -> LocatedTable | None:
    """The kept table, where there is one."""
    if file is None or not file.exists():
        return None
    try:
        table = read_located(file)
    except InputError as error:
        say(f"made again, since {error}")
        return None
    say(f"kept from an earlier test: {file}")
    return table


def _test(
    nets: _Networks,
    setting: Setting,
    index: BoxIndex,
    places: Tensor,
    centre: Tensor,
    heard: tuple[Say, Tick, Ranks],
) -> dict[str, list[bool]]:
    """The hits of all ranks, by name, in the order of the pictures."""
    say, _, ranks = heard
    matched = _matched(nets, setting, index, say)
    tests = _Tests(nets, setting, matched, centre)
    own = _hits(tests, setting, index, places, heard)
    every = dict(chain.from_iterable(part.items() for part in ranks.gather(own)))
    if not every:
        raise InputError(f"none of the pictures of {index.pictures.root} decodes; see which with deepres data check")
    rows = [every[place] for place in sorted(every)]
    return {name: [row[name] for row in rows] for name in rows[0]}


def _matched(nets: _Networks, setting: Setting, index: BoxIndex, say: Say) -> Match:
    """The classes of the data as places among those that all networks know; localizers get these classes alone."""
    known = [classes_of(str(path), net.header.get("classes"), net.header["num_classes"]) for path, net in nets.every]
    matched = match(index.classes, str(setting.data), known, setting.by_place, say)
    for (_, net), columns in zip(nets.every, matched.columns, strict=True):
        if (found := localizer(net)) is not None:
            found.take_classes(columns)
    return matched


class _Tests:
    """The networks on their device, and what is asked of one picture."""

    def __init__(self, nets: _Networks, setting: Setting, matched: Match, centre: Tensor):
        self.labels, self.centre, self.protocol = matched.labels, centre, setting.protocol
        for net in nets.localizers:
            net.eval().to(device=setting.execution.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.localizers = Localizers.of(nets.localizers)
        self.scorers: list[Scorer] = [scorer(net, self.protocol.views, setting.execution) for net in nets.classifiers]
        pairs = zip(nets.every, matched.columns, strict=True)
        self.columns = [columns for (_, net), columns in pairs if localizer(net) is None]

    def hits(self, image: Tensor, label: int, truth: Tensor) -> dict[str, bool]:
        """Which rows of a table are right about a picture, uint8 (3, H, W), of a class of the data and its objects."""
        own = self.labels[label]
        guesses = self._guesses(image)
        asked = list(dict.fromkeys([own, *guesses]))
        found = self.localizers.locate(image, torch.tensor(asked), self.protocol)
        size = torch.tensor([image.shape[2], image.shape[1]]).repeat(2)
        placed = bool(is_right(found.boxes[:1], truth).any())
        hits = {"centre": bool(is_right((self.centre * size)[None], truth).any()), "given": placed}
        if self.scorers:
            hits |= {"class1": own in guesses[:1], "class5": own in guesses}
            hits |= {"top1": hits["class1"] and placed, "top5": hits["class5"] and placed}
        return hits

    def _guesses(self, image: Tensor) -> list[int]:
        """The five best classes of a picture, by the mean of the classifiers' scores; none without a classifier."""
        if not self.scorers:
            return []
        each = [score([image])[:, columns] for score, columns in zip(self.scorers, self.columns, strict=True)]
        together = average(each, member_weights(len(each)))[0]
        return together.topk(min(GUESSES, len(together))).indices.tolist()


def _hits(
    tests: _Tests, setting: Setting, index: BoxIndex, places: Tensor, heard: tuple[Say, Tick, Ranks]
) -> dict[int, dict[str, bool]]:
    """The hits in the pictures of this rank, every `world`-th, by place; pictures that do not decode are left out."""
    (say, tick, ranks), execution = heard, setting.execution
    workers = 0 if execution.device == "cpu" else None  # beside the network, they would only take its processors
    own = places[ranks.rank :: ranks.world]
    reading = Reading(workers, setting.skip_bad, say)
    every = pictures(index, own, reading, lambda done: tick(done * ranks.world, len(places)))
    with autocast(execution.precision, execution.device):
        return {
            place: tests.hits(image, index.pictures.label(place), index.truth(place).boxes)
            for place, image in every
            if image is not None
        }
