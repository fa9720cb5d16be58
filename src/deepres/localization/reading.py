"""Whole pictures of an index, decoded by worker processes, one after another."""

from collections.abc import Callable, Generator, Sequence
from typing import Any

from torch import Tensor

from deepres.data.boxes.index import BoxIndex
from deepres.data.crops import whole
from deepres.data.stream.loader import Reading, Samples, in_order


def pictures(
    index: BoxIndex, places: Tensor, reading: Reading, progress: Callable[[int], None] = lambda done: None
) -> Generator[tuple[int, Tensor | None]]:
    """The place of each picture and its pixels, uint8 (3, H, W), upright; None where it does not decode, which is told.

    Raises `InputError` for a picture that does not decode, unless `reading.skip_bad`. `progress` is told how many
    pictures are done.
    """
    samples = Samples[Tensor, list[Tensor]](index.pictures, _decoded, list, _no_target)
    answers = in_order(samples, 1, reading, places)
    for number, (place, answer) in enumerate(zip(places.tolist(), answers, strict=True), 1):
        for name, reason in answer.bad:
            reading.say(f"{name} has no box, since it does not decode ({reason})")
        yield place, answer.batch[0] if answer.batch else None
        progress(number)


def _decoded(encoded: bytes, draws: Sequence[float], target: Any) -> Tensor:
    return whole(encoded)


def _no_target(place: int) -> None:
    """No target: the truth is compared with elsewhere."""
