"""Detectors tested on the pictures of a data set with boxes, alone or as an ensemble."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepres.data.boxes.index import BoxIndex
from deepres.data.boxes.opening import open_boxes
from deepres.data.boxes.truth import Truth
from deepres.data.classes import classes_of, match
from deepres.data.crops import whole
from deepres.data.stream.loader import Reading
from deepres.detection.detection_table import DetectionTable, read_detections, write_detections
from deepres.detection.mean_ap.recall import MOST, ProposalRecall, proposal_recall
from deepres.detection.protocol import Protocol
from deepres.detection.tester import detections, detections_by, proposals_of
from deepres.models.detection.detector import Detector
from deepres.models.detection.outputs import Detections
from deepres.records import Json
from deepres.runtime.device import autocast
from deepres.runtime.environment import describe_environment
from deepres.runtime.errors import InputError, Say
from deepres.runtime.ranks import ALONE, Ranks
from deepres.workflows.box_test import BoxTest, decisive, is_run, with_recorded_data
from deepres.workflows.detect import on_device, spotter
from deepres.workflows.evaluate import Tick
from deepres.workflows.open_network import detector, holds_segmenter, open_network
from deepres.workflows.tested_pictures import untrained

PLAIN_TEST = Protocol()  # by a detector's own settings
KEPT = "detections"  # how the files in a run folder begin that hold what it found in its test pictures
PLAIN = f"{KEPT}.safetensors"


@dataclass(frozen=True, kw_only=True)
class Setting(BoxTest):
    """What detectors are tested on, and how. `network` names the architecture of weights whose file does not."""

    network: str | None = None
    protocol: Protocol = PLAIN_TEST


@dataclass(frozen=True, eq=False)
class Tested:
    """What was found, and the pictures: that of row i of the table is the one at `places[i]` of the `index`.

    `kept_in` is the run folder that holds the table; None where it is kept nowhere. `new` says that the table was made
    by this test, and not by an earlier one.
    """

    table: DetectionTable
    index: BoxIndex
    places: Tensor
    kept_in: Path | None
    new: bool = True

    def picture(self, row: int) -> Tensor:
        """The upright picture of a row, uint8 (3, H, W). Raises what Pillow raises, and `OSError`."""
        return whole(self.index.pictures.encoded(int(self.places[row])))


def evaluate(
    paths: Sequence[Path],
    setting: Setting,
    say: Say,
    tick: Tick,
    ranks: Ranks = ALONE,
    file: Path | None = None,
) -> Tested:
    """What the detectors at `paths`, several of them as an ensemble, find in the test pictures.

    A run that is tested on its own test pictures keeps the detections in its folder, and is not run again as long as
    weights, pictures and settings stay; others keep them in `file`, where it is given. `tick` is told how many pictures
    are done. Several `ranks` share the pictures and all get the whole table. Raises `InputError` for weights and data
    that do not fit each other.
    """
    if setting.part == "all":
        raise InputError("a detector is tested on one part; give --part test, or --part train")
    given = setting.given
    setting = replace(with_recorded_data(setting, paths), execution=setting.execution.resolved())
    index, places = _pictures(paths, setting, given, say, ranks)
    # What is kept of an earlier test.
    own = len(paths) == 1 and not given and setting.part == "test" and is_run(paths[0])
    facts = decisive(paths, setting, index, places) | {"asked": asdict(setting.protocol)}
    file = kept_file(paths[0], setting.protocol) if own else file
    before = ranks.by_first(lambda: _still_right(file, facts, say))
    if before is not None:
        return Tested(before, index, places, paths[0] if own else None, new=False)
    # Test the networks, and keep what they found.
    table = _test(paths, setting, index, places, facts, (say, tick, ranks))
    if file is not None and ranks.first:
        write_detections(file, table)
    return Tested(table, index, places, paths[0] if own else None)


def kept_file(run: Path, protocol: Protocol) -> Path:
    """Where a run folder keeps what was found under a protocol."""
    if protocol == PLAIN_TEST:
        return run / PLAIN
    return run / f"{KEPT}-{hashlib.sha256(json.dumps(asdict(protocol)).encode()).hexdigest()[:8]}.safetensors"


def _still_right(file: Path | None, facts: Json, say: Say) -> DetectionTable | None:
    """The kept table, where it was made of the same weights, pictures and settings."""
    if file is None or not file.exists():
        return None
    try:
        table = read_detections(file)
    except InputError as error:
        say(f"made again, since {error}")
        return None
    same = json.loads(json.dumps({name: fact for name, fact in facts.items() if name != "weights"}))
    if {name: table.facts.get(name) for name in same} != same:
        return None
    say(f"kept from an earlier test: {file}")
    return replace(table, facts=table.facts | {"weights": facts["weights"]})  # the run may be named by another path


def _pictures(paths: Sequence[Path], setting: Setting, given: bool, say: Say, ranks: Ranks) -> tuple[BoxIndex, Tensor]:
    """The index of the tested part, and the places int64 (N,) of the pictures that no run was trained on."""
    data = str(setting.data)
    masks = setting.protocol.gives_masks(len(paths)) and holds_segmenter(paths[0], setting.network)
    with ranks.one_first():
        parts = open_boxes(data, say, setting.train_set, setting.test_set, setting.division, masks)
    index = parts.train if setting.part == "train" else parts.test
    return index, untrained(paths, index, setting.part, data, say, given)


def _test(
    paths: Sequence[Path],
    setting: Setting,
    index: BoxIndex,
    places: Tensor,
    facts: Json,
    heard: tuple[Say, Tick, Ranks],
) -> DetectionTable:
    """The detections of all ranks in the order of the pictures, with the classes of the data."""
    say, _, ranks = heard
    nets = [detector(open_network(path, say, setting.network), path) for path in paths]
    known = classes_of(str(paths[0]), nets[0].header.get("classes"), nets[0].num_classes)
    matched = match(index.classes, str(setting.data), [known], setting.by_place, say)
    found, proposed = map(_joined, zip(*ranks.gather(_seen(nets, setting, index, places, heard)), strict=True))
    # The labels of both sides as places among the classes that count.
    to_truth, to_found = torch.tensor(matched.labels), torch.tensor(matched.columns[0]).argsort()
    truths = [_relabelled(index.truth(place), to_truth) for place in places.tolist()]
    every = [replace(found[place], labels=to_found[found[place].labels]) for place in places.tolist()]
    recalls: tuple[ProposalRecall, ...] = ()
    if proposed:
        recalls = proposal_recall(truths, [proposed[place] for place in places.tolist()])
    names = tuple(index.names[place] for place in places.tolist())
    facts = facts | _told(nets, setting.protocol)
    return DetectionTable(str(setting.data), names, matched.classes, tuple(truths), tuple(every), recalls, facts)


def _seen(
    nets: Sequence[Detector], setting: Setting, index: BoxIndex, places: Tensor, heard: tuple[Say, Tick, Ranks]
) -> tuple[dict[int, Detections], dict[int, Tensor]]:
    """The detections and the proposals of the pictures of this rank, every `world`-th, by place.

    A detector in an exported file does not tell its proposals.
    """
    (say, tick, ranks), execution = heard, setting.execution
    workers = 0 if execution.device == "cpu" else None  # beside the network, they would only take its processors
    own, reading = places[ranks.rank :: ranks.world], Reading(workers, setting.skip_bad, say)

    def progress(done: int) -> None:
        tick(done * ranks.world, len(places))

    if any(net.in_file for net in nets):
        detect = spotter(nets, setting.protocol, execution, say).detect
        return dict(detections_by(detect, index, own, reading, progress)), {}
    nets = [on_device(net, execution.device) for net in nets]
    with autocast(execution.precision, execution.device):
        found = dict(detections(nets, setting.protocol, index, own, reading, progress))
        proposed = {place: boxes for place, boxes, _ in proposals_of(nets[0], index, own, reading, max(MOST))}
    return found, proposed


def _told(nets: Sequence[Detector], protocol: Protocol) -> Json:
    """How detectors were tested, for readers."""
    title = protocol.title(nets[0].plan.context, len(nets))
    environment = describe_environment()
    told: dict[str, Any] = {"network": [net.name for net in nets], "title": title}
    told |= {"protocol": protocol.facts(nets[0].plan)}
    return told | {name: environment[name] for name in ("commit", "cpu")}


def _relabelled(truth: Truth, labels: Tensor) -> Truth:
    return replace(truth, labels=labels[truth.labels])


def _joined(parts: Sequence[Mapping[int, Any]]) -> dict[int, Any]:
    return dict(chain.from_iterable(part.items() for part in parts))
