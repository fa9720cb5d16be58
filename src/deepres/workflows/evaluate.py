"""Networks tested by the paper's protocols, alone or as an ensemble, and the report of the errors."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepres.acceleration.on_kernels import accelerate, resolve_kernels, runs_on_kernels
from deepres.classification import score_table
from deepres.classification.accuracy import Scores
from deepres.classification.ensemble import average, member_weights
from deepres.classification.score_table import Member, ScoreTable
from deepres.classification.scorer import AUTO, Execution, channels_and_classes, crop_of, is_cropped, pieces, scorer
from deepres.classification.views import Protocol
from deepres.data.boxes.layouts import told_of_boxes
from deepres.data.classes import classes_of, match
from deepres.data.division import Division
from deepres.data.pictures import Decoded, Pictures, Tested, pictures_of
from deepres.data.resident import tell_lacking
from deepres.data.sources import still_there
from deepres.models.blocks import Block
from deepres.models.network import Network
from deepres.records import Json, Run
from deepres.runtime.environment import describe_environment
from deepres.runtime.errors import InputError, Say
from deepres.runtime.ranks import ALONE, Ranks
from deepres.workflows import tested_pictures
from deepres.workflows.open_network import classifier, open_network
from deepres.workflows.run_pictures import place_of

MOST_IMAGES = 500  # decoded at a time
DIGITS = 4  # of a percentage behind the point
SHOWN_CLASSES = 100  # a larger confusion matrix is left out of the report
Tick = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Setting:
    """What networks are tested on, and how. The default `data` are those of the first run among the networks.

    The default `protocol` is `single` for networks trained on whole images (of 32 pixels, and runs with an
    `image_size`, which is for `single` alone), and `center` for others. `network` names the architecture of weights
    whose file does not. `part` is the part of the data that is tested; `division` is the rule that divides data
    without a test part. `by_place` matches classes of different names by their place.
    """

    data: str | None = None
    protocol: Protocol | None = None
    network: str | None = None
    split: str | None = None
    image_size: int | None = None
    skip_bad: bool = False
    execution: Execution = AUTO
    kernels: str = "auto"
    part: Tested = "test"
    division: Division = "hash"
    by_place: bool = False


def evaluate(sources: Sequence[Path], setting: Setting, say: Say, tick: Tick, ranks: Ranks = ALONE) -> ScoreTable:
    """The scores of runs, weights files and scores files, in their order, on the same test images.

    `tick` is told how many images are done, and of how many where that is known. Several `ranks` share the images
    and all get the whole table. Raises `InputError` for weights that do not fit the network or the data, for members
    that do not fit each other, and for settings of networks where all `sources` are files of scores.
    """
    if setting.image_size and setting.protocol and setting.protocol.name != "single":
        raise InputError(f"--protocol {setting.protocol.name} takes pictures at their own size; leave --image-size out")
    # Read the files of scores, test the networks, and join both.
    stored = {path: score_table.read_scores(path) for path in sources if score_table.is_scores(path)}
    paths = [path for path in sources if path not in stored]
    given = [name for name in _changed_fields(setting) if name != "by_place"]  # which holds for files of scores as well
    if given and not paths:
        option = f"--{given[0].replace('_', '-')}"
        raise InputError(f"{option} is for networks; files of scores say what they were made with, so leave it out")
    if paths:
        tested = _test_networks(paths, setting, say, tick, ranks)
        stored |= {path: replace(tested, members=(own,)) for path, own in zip(paths, tested.members, strict=True)}
    return score_table.joined([stored[path] for path in sources], setting.by_place, say)


def _changed_fields(setting: Setting | Execution) -> Iterator[str]:
    """The names of the fields that are not at their defaults."""
    for field in fields(setting):
        value = getattr(setting, field.name)
        if isinstance(value, Execution):
            yield from _changed_fields(value)
        elif value != field.default:
            yield field.name


def report(table: ScoreTable, weights: Sequence[float] | None = None) -> Json:
    """Errors of the ensemble and of each member, errors of each class, and confusions, ready for JSON; in percent.

    Several members form an ensemble by the mean of their softmax scores, by default with equal `weights`. A difference
    is an error minus that of the first member, with its interval. The error of a class without images is None.
    """
    # The errors of each member and of all together.
    shares = member_weights(len(table.members), weights)
    together = Scores(average([own.scores for own in table.members], shares), table.labels)
    each = [Scores(own.scores, table.labels) for own in table.members]
    members = [
        own.facts | {"weight": share} | _error_figures(found, each[0])
        for own, share, found in zip(table.members, shares, each, strict=True)
    ]
    alone = members[0] if len(members) == 1 else {"network": f"ensemble of {len(members)}"}
    # The classes that are confused most, and the whole report.
    names = table.classes
    confused = [
        {"true": names[true], "predicted": names[predicted], "images": images}
        for true, predicted, images in together.confused()
    ]
    found: Json = {
        **{name: value for name, value in alone.items() if name != "weight"},
        "data": table.data,
        "part": table.part,
        "images": len(table.labels),
        "skipped": len(table.skipped),
        **_error_figures(together, each[0]),
        "members": members,
        "classes": list(names),
        "class_errors": [None if math.isnan(error) else error for error in together.class_errors()],
        "confused": confused,
        "confusion": together.confusion().tolist() if len(names) <= SHOWN_CLASSES else None,
    }
    return {name: _rounded(value) for name, value in found.items()}


def _rounded(value: Any) -> Any:
    """A report with its numbers rounded to `DIGITS`: in percent, one image among a million changes the last digit."""
    if isinstance(value, float):
        return round(value, DIGITS) + 0.0  # not -0.0
    if isinstance(value, list):
        return [_rounded(entry) for entry in value]
    return {name: _rounded(entry) for name, entry in value.items()} if isinstance(value, dict) else value


def _error_figures(found: Scores, first: Scores) -> Json:
    """Top-1 and top-5 error, each with its interval and its difference to the `first` member."""
    errors: Json = {}
    for top in (1, 5):
        errors |= {f"top{top}_error": found.error(top), f"top{top}_interval": list(found.interval(top))}
        errors |= {f"top{top}_difference": list(found.difference(first, top))}
    return errors


def _test_networks(paths: Sequence[Path], setting: Setting, say: Say, tick: Tick, ranks: Ranks) -> ScoreTable:
    """The scores of networks. Each rank decodes every `world`-th picture, once for all networks."""
    # Open the networks, and find the pictures to test on.
    opened = [(path, open_network(path, say, setting.network, setting.execution.device)) for path in paths]
    by_path = [(path, classifier(net, path)) for path, net in opened]
    nets = [net for _, net in by_path]
    given = setting.data is not None
    setting = _with_recorded_data(paths, setting, say)
    protocol = setting.protocol or usual_protocol(nets, setting.image_size)
    size = setting.image_size if protocol.name == "single" else None
    setting = replace(setting, protocol=protocol, image_size=size)
    pictures = _pictures(dict(by_path), setting, given, say, ranks)
    # Match the classes of the pictures with those of the networks.
    known = [classes_of(str(path), net.header.get("classes"), channels_and_classes(net)[1]) for path, net in by_path]
    matched = match(pictures.classes, pictures.name, known, setting.by_place, say)
    # Score the pictures: the scores of all ranks, in the order of the pictures.
    setting = replace(setting, execution=setting.execution.resolved())
    _use_kernels(nets, setting, say)
    seen, found = _score_pictures(nets, pictures, setting, len(matched.labels), tick, ranks)
    if not seen:
        what = {"train": "training ", "test": "test ", "all": ""}[setting.part]
        raise InputError(f"{pictures.root} has no {what}pictures; add some, or give another --part, or --split")
    skipped = tuple(chain(*ranks.gather(pictures.skipped)))
    # Make the table, with the classes that the networks know.
    taken = torch.tensor([image.label for image in seen])
    own = pictures.classes or [matched.classes[label] for label in matched.labels]
    kind = {"train": "training", "test": "test", "all": "tested"}[setting.part]
    tell_lacking(pictures.name, kind, own, taken, say)
    environment, execution = describe_environment(), setting.execution
    how: Json = {"device": execution.device, "precision": execution.precision}
    how |= {name: environment[name] for name in ("commit", "cpu")}
    members = tuple(
        Member({"network": net.name, "weights": str(path)} | _test_facts(net, protocol, how), own[:, columns])
        for (path, net), own, columns in zip(by_path, found, matched.columns, strict=True)
    )
    labels, names = torch.tensor(matched.labels)[taken], tuple(image.name for image in seen)
    return ScoreTable(pictures.name, names, labels, matched.classes, members, skipped, setting.part)


def member_count(sources: Sequence[Path]) -> int:
    """How many members `evaluate` will find: those of each scores file, and one for any other source."""
    return sum(len(score_table.read_scores(path).members) if score_table.is_scores(path) else 1 for path in sources)


def _pictures(nets: Mapping[Path, Network], setting: Setting, given: bool, say: Say, ranks: Ranks) -> Pictures:
    """The pictures to test on; without those of a test part that a network was trained on.

    `given` says that the user named the data. One rank goes first, and fetches and lists the data for the others.
    """
    with ranks.one_first(), told_of_boxes(str(setting.data)):
        pictures = pictures_of(str(setting.data), setting.part, setting.split, setting.skip_bad, say, setting.division)
        if setting.part != "test":
            return pictures
        return tested_pictures.for_weights({path: net.header for path, net in nets.items()}, pictures, say, given)


def _use_kernels(nets: Sequence[Network], setting: Setting, say: Say) -> None:
    """Run the blocks of the networks on our kernels where the setting and the device allow it."""
    blocks = any(isinstance(module, Block) for net in nets for module in net.modules())
    if resolve_kernels(setting.kernels if blocks else "off", setting.execution.device, 0, say):
        for net in nets:
            accelerate(net)


def _test_facts(net: Network, protocol: Protocol, how: Json) -> Json:
    """How a network was tested, for the record; `how` holds what all networks have in common."""
    facts = protocol.facts(crop_of(net)) | how | {"kernels": "on" if runs_on_kernels(net) else "off"}
    return facts | ({name: net.header[name] for name in ("device", "precision")} if net.in_file else {})


def _score_pictures(
    nets: Sequence[Network], pictures: Pictures, setting: Setting, classes: int, tick: Tick, ranks: Ranks
) -> tuple[list[Decoded], Tensor]:
    """The pictures of all ranks in order, without pixels, and their scores by all networks, float32 (networks, N, K).

    Raises `InputError` for a picture whose label is none of the `classes` of the data.
    """
    assert setting.protocol is not None
    scorers = [scorer(net, setting.protocol, setting.execution) for net in nets]
    at_once = min(MOST_IMAGES, *(setting.execution.views(crop_of(net)) for net in nets))
    decoded = pictures.decoded(
        image_size=setting.image_size, skip_bad=setting.skip_bad, first=ranks.rank, step=ranks.world
    )
    seen: list[Decoded] = []
    found: list[Tensor] = []
    # Score this rank's pictures, a few at a time.
    for images in pieces(decoded, at_once, lambda image: image.pixels[0].numel()):
        _require_known(images, classes, pictures)
        pixels = [image.pixels for image in images]
        found.append(torch.stack([score(pixels).float() for score in scorers]))
        seen += [image._replace(pixels=torch.empty(0)) for image in images]
        tick(images[-1].place + 1, pictures.count)
    # Gather those of all ranks, and put them in order.
    seen, found = list(chain(*ranks.gather(seen))), list(chain(*ranks.gather(found)))
    order = sorted(range(len(seen)), key=lambda index: seen[index].place)
    return [seen[index] for index in order], torch.cat(found, dim=1)[:, order] if found else torch.empty(0)


def _require_known(images: Sequence[Decoded], classes: int, pictures: Pictures) -> None:
    for image in images:
        if not 0 <= image.label < classes:
            raise InputError(
                f"{pictures.root}: {image.name} has the label {image.label}, but the weights know {classes} "
                "classes; give the data they were made for"
            )


def _with_recorded_data(paths: Sequence[Path], setting: Setting, say: Say) -> Setting:
    """`setting` with the data, split, image size and `skip_bad` that the first run recorded, where not given.

    Where data are given, `setting` is returned unchanged. Raises `InputError` for runs that were trained on different
    splits: one of them would be tested on its own training images.
    """
    if setting.data is not None:
        return setting
    runs = [Run(path) for path in paths if path.is_dir() and Run(path).exists]
    configs = {run.path: run.config | {"data": run.field("data")} for run in runs}
    if not configs:
        raise InputError(f"{paths[0]} does not say which data to test on; give --data")
    first, config = next(iter(configs.items()))
    for path, other in configs.items():
        if other.get("split") != config.get("split") and setting.split is None:
            splits = " and ".join(f"{own.get('split') or 'no split'} ({name})" for name, own in configs.items())
            raise InputError(f"the runs were trained on different splits, {splits}; give --data to test them on")
        if place_of(other) != place_of(config):
            say(f"{path} was trained on {place_of(other)}, and is tested on {place_of(config)}, as {first} was trained")
    return replace(
        setting,
        data=still_there(place_of(config), str(first)),
        division=config.get("division", "place"),
        split=setting.split or config.get("split"),
        image_size=setting.image_size or config.get("image_size"),
        skip_bad=setting.skip_bad or config.get("skip_bad", False),
    )


def usual_protocol(nets: Iterable[Network], image_size: int | None = None) -> Protocol:
    """The default protocol of a test: `center` where a network was trained on crops, else `single`."""
    cropped = image_size is None and any(map(is_cropped, nets))
    return Protocol("center" if cropped else "single")
