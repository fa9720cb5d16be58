"""The classes that a trained network predicts for pictures without labels."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from deepres.classification.scorer import AUTO, Execution, Scorer, channels_and_classes, crop_of, pieces, scorer
from deepres.classification.views import Protocol
from deepres.data.decode import pixels_or_fault
from deepres.data.folders import pictures_below
from deepres.data.listing import Picture
from deepres.data.part_names import IMAGE_SUFFIXES
from deepres.data.pictures import ahead
from deepres.data.walk import Walk, on_disk
from deepres.models.network import Network
from deepres.runtime.errors import InputError, Say, silent
from deepres.runtime.files import listed_names
from deepres.serving.engine import engine as made_engine
from deepres.workflows.evaluate import usual_protocol

AT_ONCE = 64  # pictures that are read before their predictions are given out


@dataclass(frozen=True)
class Prediction:
    """The best classes of a picture, (name, softmax score) best first; or the `fault` for which it has none."""

    name: str
    top: tuple[tuple[str, float], ...] = ()
    fault: str | None = None


@dataclass(frozen=True)
class Predictor:
    """A trained network with a test protocol, from picture files to predictions."""

    classes: tuple[str, ...]
    score: Scorer
    image_size: int | None
    at_once: int

    def predict(self, files: Iterable[Path], top: int = 5) -> Iterator[Prediction]:
        """One prediction for each file, in order; for a file that cannot be read, decoded or scored it has a fault."""

        def decode(file: Path) -> Tensor | str:
            return pixels_or_fault(Picture(str(file), 0, "test", file), self.image_size)

        decoded = ahead(files, decode)
        for piece in pieces(
            decoded, self.at_once, lambda pair: pair[1][0].numel() if isinstance(pair[1], Tensor) else 0
        ):
            found = iter(self._scores([image for _, image in piece if isinstance(image, Tensor)]))
            for file, image in piece:
                scores = next(found) if isinstance(image, Tensor) else image
                if isinstance(scores, str):
                    yield Prediction(str(file), fault=scores)
                else:
                    yield Prediction(str(file), self.best(scores, top))

    def best(self, scores: Tensor, top: int) -> tuple[tuple[str, float], ...]:
        """The `top` best classes, with their scores, of the softmax scores (K,) of a picture."""
        best = scores.topk(min(top, len(scores)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return tuple((self.classes[label], score) for label, score in pairs)

    def _scores(self, images: list[Tensor]) -> list[Tensor | str]:
        """The scores of each image; where the batch raises `InputError`, each is scored alone, or has the sentence."""
        try:
            return list(self.score(images)) if images else []
        except InputError as error:
            return [str(error)] if len(images) == 1 else [self._scores([image])[0] for image in images]


def predictor(
    net: Network, protocol: Protocol | None = None, execution: Execution = AUTO, engine: str = "eager", say: Say = print
) -> Predictor:
    """A network ready to predict, by `protocol`; the default is that of `deepres eval`.

    With the protocol `single`, pictures of another size than the training images are resized by their shorter side
    and cropped at the centre. `engine` is one of `serving.engine`; the dense test runs on `eager` alone, which `auto`
    then means. Raises `InputError` for an engine that cannot run here.
    """
    protocol, crop = protocol or usual_protocol([net]), crop_of(net)
    execution = execution.resolved()
    # Refuse an engine that cannot score these views.
    if engine != "eager" and net.in_file:
        raise InputError(f"a file is run by its own runtime; leave --engine {engine} out")
    fixed = protocol.name != "dense" and execution.device != "mps"  # all views have one size
    if not fixed and engine not in ("auto", "eager"):
        raise InputError(
            f"--engine {engine} takes views of one size on a processor or a GPU of NVIDIA; leave it out for this test"
        )
    # Make the engine, and the function from images to scores.
    views, run = execution.views(crop), None
    if fixed and engine != "eager":
        example = torch.zeros(views, channels_and_classes(net)[0], crop, crop, device=execution.device)
        run = made_engine(net, example, engine, execution.precision, say=say).scores
    score = scorer(net, protocol, execution, run)
    classes = net.header.get("classes") or [str(label) for label in range(channels_and_classes(net)[1])]
    return Predictor(tuple(classes), score, crop if protocol.name == "single" else None, min(views, AT_ONCE))


def files_of(names: Iterable[str], listed: Callable[[], bytes], say: Say = silent) -> Iterator[Path]:
    """The files that `names` stand for: a file itself, the pictures of a folder sorted, or for `-` the files `listed`.

    A list has one name on each line, in the system's encoding or in UTF-16 with a byte order mark. Names of no file are
    kept, and `say` is told which files of a folder are not read. Raises `InputError` for a folder without
    pictures, and for an empty list.
    """
    for name in names:
        path = on_disk(Path(name))
        if name == "-":
            lines = listed_names(listed())
            if not lines:
                raise InputError("- takes file names from standard input, a line each, and none came")
            yield from (on_disk(Path(line)) for line in lines)
        elif path.is_dir():
            yield from pictures_under(path, say)
        else:
            yield path


def pictures_under(folder: Path, say: Say = silent) -> list[Path]:
    """All picture files in a folder and its subfolders, sorted; `say` is told which files are not read.

    Raises `InputError` where there are none.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; check the path")
    walk = Walk()
    try:
        found = [Path(path) for path in pictures_below(folder, walk)]
    except OSError as error:
        raise InputError(f"{folder} cannot be read ({error}); check its permissions") from None
    if not found:
        raise InputError(f"{folder} holds no pictures ({', '.join(sorted(IMAGE_SUFFIXES))}); give another folder")
    for note in walk.notes():
        say(f"{folder}: {note}")
    return found
