"""The pictures that a run may be tested on: none that it was trained on. Changes since its training are told."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from deepres.classification.kind import CLASSIFICATION
from deepres.classification.source import load_source, source_fingerprint
from deepres.data.boxes.index import BoxIndex
from deepres.data.manifest import Manifest, manifest_of
from deepres.data.pictures import Pictures
from deepres.data.sources import placed
from deepres.records import Json, Run
from deepres.runtime.errors import InputError, Say
from deepres.workflows import configure
from deepres.workflows.run_pictures import RunPictures, first, kept, place_of, test_changes


def for_weights(headers: Mapping[Path, Json], pictures: Pictures, say: Say, given: bool) -> Pictures:
    """The test `pictures` without those that a run was trained on; `headers` are the headers of the weights by path.

    `say` is told which pictures were added, removed or changed since the run began, and of older weights that may have
    been trained on some. `given` says that the user named the data. Raises `InputError` where the data of a run hold
    none of its test pictures any more, and where the data of an older run without a list of pictures have changed, so
    that its training pictures are unknown.
    """
    # Runs with a list of their pictures, and others.
    listed = {path: own for path in headers if (own := kept(path)) is not None}
    for path in (path for path in headers if path not in listed):
        if path.is_dir() and Run(path).exists:
            _check_unlisted(path, pictures, say, given)
        elif pictures.division and "recipe" in headers[path] and headers[path].get("division") != "hash":
            say(f"warning: {path} was trained when data were divided otherwise, and may know some of these pictures")
    if not listed:
        return pictures
    # Leave out the pictures that runs with a list were trained on.
    now = manifest_of(pictures.listed, say, pictures.name)
    seen = torch.zeros(len(now.names), dtype=torch.bool)
    for path, own in listed.items():
        seen |= trained_on(path, own, now, (pictures.name, pictures.root), say, given)
    if not seen.any():
        return pictures
    names = [now.names[place] for place in seen.nonzero().flatten().tolist()]
    say(f"left out of the test: {len(names):,} that a run was trained on ({first(names)})")
    return pictures.where((~seen).tolist())


def untrained(paths: Sequence[Path], index: BoxIndex, part: str, data: str, say: Say, given: bool) -> Tensor:
    """The places int64 (N,) of the pictures of an index, the `part` of `data`, that no run at `paths` was trained on.

    Pictures of the training part may have been. `say` is told how many are left out; `given` as `for_weights` has it.
    Raises `InputError` where there is none, or none is left.
    """
    what = "training" if part == "train" else "test"
    nothing = InputError(f"{index.pictures.root} has no {what} pictures; give another --part, or --test-set")
    if not len(index):
        raise nothing
    seen = torch.zeros(len(index), dtype=torch.bool)
    listed = {path: own for path in paths if (own := kept(path)) is not None} if part == "test" else {}
    for path, own in listed.items():
        seen |= trained_on(path, own, index.manifest, (data, index.pictures.root), say, given)
    if seen.any():
        names = [index.names[place] for place in seen.nonzero().flatten().tolist()]
        say(f"left out of the test: {len(names):,} that a run was trained on ({first(names)})")
    places = (~seen).nonzero().flatten()
    if not len(places):
        raise nothing
    return places


def trained_on(path: Path, own: RunPictures, now: Manifest, data: tuple[str, Path], say: Say, given: bool) -> Tensor:
    """Mask, bool (N,), of the pictures that the run was trained on and that were not in its test part.

    `now` are the pictures, and `data` the name and the folder of what they belong to; else as `for_weights`.
    """
    name, root = data
    tested, trained = (torch.isin(now.digests, digests) for digests in (own.test.digests, own.seen))
    same_place = _place(path) == placed(name)
    if not given and same_place and len(own.test.names) and not tested.any():
        raise InputError(
            f"{root} holds none of the {len(own.test.names):,} pictures that {path} was tested on; name the "
            "place of its data, or other data, with --data"
        )
    changed = test_changes(own.test, now)
    if changed and (same_place or tested.any()):  # otherwise these are other data
        say(f"the test pictures are not all that {path} was tested on when it was trained: {changed}")
    if both := int((tested & trained).sum()):
        say(f"warning: {both:,} of the test pictures have the content of pictures that {path} was trained on")
    return trained & ~tested


def _check_unlisted(path: Path, pictures: Pictures, say: Say, given: bool) -> None:
    """Check an older run, which has no list of its pictures, by the fingerprint of all."""
    config = Run(path).config
    ruled = pictures.division in (None, config.get("division", "place"))
    if given or _place(path) != pictures.name or not ruled:
        if pictures.division:
            say(f"warning: {path} keeps no list of its pictures; these may be some that it was trained on")
    elif pictures.division or placed(config["data"]) != config["data"]:
        source = load_source(configure.configure_kind(CLASSIFICATION, [path], None, {}), lambda message: None)
        if source_fingerprint(source) != config.get("fingerprint"):
            raise InputError(
                f"{path} was trained on other pictures than {pictures.root} holds now, and keeps no list that would "
                "tell its training pictures; give pictures that it has not seen with --data"
            )


def _place(path: Path) -> str:
    return place_of(Run(path).config)
