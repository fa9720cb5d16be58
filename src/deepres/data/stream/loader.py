"""Batches from an index: read and decoded by worker processes, ahead of the step that asks for them."""

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepres.data.listing import refusal
from deepres.data.order import epoch_generator, epoch_pieces
from deepres.data.rgb import fault
from deepres.data.stream.index import Index
from deepres.data.stream.workers import answers
from deepres.runtime.errors import InputError
from deepres.runtime.say import Say

Make = Callable[[bytes, Sequence[float]], Tensor]
Finish = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Request:
    """Pictures that one worker makes: `places` int64 (n,) in the index, `draws` float32 (n, k) from 0 to below 1."""

    places: NDArray[np.int64]
    draws: NDArray[np.float32]


@dataclass(frozen=True)
class Answer:
    """What became of a request: `made` uint8 (n, C, H, W), `labels` (n,), `draws` (n, k), all of what decodes.

    `bad` has the names and faults of the rest. The memory of `made` is channels-last.
    """

    made: Tensor
    labels: Tensor
    draws: Tensor
    bad: list[tuple[str, str]]


@dataclass(frozen=True, eq=False)
class _Pictures:
    """Turns a request into the pixels (n, H, W, C) and the rest of its answer, in a worker process.

    With `substitute`, a picture that does not decode gives its place to the next in the index that does.
    """

    index: Index
    make: Make
    substitute: bool = False

    def __call__(self, request: Request) -> tuple[Tensor, Any]:
        made: list[Tensor] = []
        kept: list[int] = []
        used: list[int] = []
        bad: list[tuple[str, str]] = []
        for row, (first, draws) in enumerate(zip(request.places.tolist(), request.draws.tolist(), strict=True)):
            for place in self._candidates(first):
                try:
                    made.append(self.make(self.index.read(place), draws))
                except Exception as error:  # Pillow's decoders raise almost any exception for a damaged file
                    bad.append((self.index.names[place], fault(error)))
                else:
                    kept.append(row)
                    used.append(place)
                    break
        images = torch.stack([picture.permute(1, 2, 0) for picture in made]) if made else torch.empty(0, 0, 0, 0)
        return images, (self.index.labels[used].numpy(), request.draws[kept], bad)

    def _candidates(self, first: int) -> Iterator[int]:
        for offset in range(len(self.index) if self.substitute else 1):
            yield (first + offset) % len(self.index)


class _Epochs:
    """The order of each epoch and the `count` draws at each position: functions of (seed, epoch) alone."""

    def __init__(self, total: int, seed: int, count: int):
        self.total, self.seed, self.count = total, seed, count
        self.newest: tuple[int, Tensor, Tensor] | None = None

    def request(self, step: int, batch_size: int, part: slice) -> Request:
        pieces = epoch_pieces(step, batch_size, self.total)
        cut = [(order[piece], draws[piece]) for number, piece in pieces for order, draws in [self._epoch(number)]]
        places, draws = (torch.cat(parts)[part] for parts in zip(*cut, strict=True))
        return Request(places.numpy(), draws.numpy())

    def _epoch(self, number: int) -> tuple[Tensor, Tensor]:
        if self.newest is None or self.newest[0] != number:
            generator = epoch_generator(self.seed, number)
            order = torch.randperm(self.total, generator=generator)
            self.newest = (number, order, torch.rand(self.total, self.count, generator=generator))
        return self.newest[1:]


def _answers(
    pictures: _Pictures, requests: Iterator[Request], workers: int, say: Say, context: str | None = None
) -> Generator[Answer]:
    for made, (labels, draws, bad) in answers(pictures, requests, workers, str(pictures.index.root), say, context):
        yield Answer(made.permute(0, 3, 1, 2), torch.from_numpy(labels), torch.from_numpy(draws), bad)


class Stream:
    """Training batches as a pure function of (seed, step), as `memory.Batches` gives them, from pictures on disk.

    The stream of epochs, the batches that go on across their ends and `part` (a rank's slice of each batch) are
    those of `Batches`. `make(encoded, draws)` turns one picture into uint8 (3, H, W), of one size for all, in a
    worker process; `finish(images, draws)` turns the batch into what the network takes, on `device`. Both are
    handed the picture's own `draws` numbers, uniform from 0 to below 1, which depend on (seed, epoch, position)
    alone: not on workers, ranks or batch size. A resumed run asks for its next step; nothing before it is read.

    `workers` processes (0: none) decode ahead; `context` is how they start, as `multiprocessing` names it. A picture
    that does not decode ends the training with `InputError`; with `skip_bad` it is told to `say` and the next one of
    the index that decodes takes its place. Raises `InputError` for an empty batch.
    """

    def __init__(
        self,
        index: Index,
        make: Make,
        finish: Finish,
        batch_size: int,
        seed: int,
        device: torch.device,
        *,
        draws: int,
        part: slice = slice(None),
        workers: int | None = None,
        skip_bad: bool = False,
        say: Say = lambda message: None,
        context: str | None = None,
    ):
        if not len(index) or batch_size < 1:
            raise InputError(f"a batch of {batch_size} out of {len(index)} images is empty; give a batch size above 0")
        self.index, self.finish, self.device, self.say, self.skip_bad = index, finish, device, say, skip_bad
        epochs = _Epochs(len(index), seed, draws)
        self._request = partial(epochs.request, batch_size=batch_size, part=part)
        self._workers, self._context = default_workers() if workers is None else workers, context
        self._pictures = _Pictures(index, make, substitute=skip_bad)
        self._answers: Generator[Answer] | None = None
        self._next = 0
        self._told: set[str] = set()

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """What `finish` makes of batch `step`, and its labels int64 (n,), on the device.

        The step after the last one asked for is ready or under way; any other starts the workers anew.
        """
        if self._answers is None or step != self._next:
            self.close()
            requests = map(self._request, count(step))
            self._answers = _answers(self._pictures, requests, self._workers, self.say, self._context)
        answer = next(self._answers)
        self._next = step + 1
        for name, reason in answer.bad:
            if not self.skip_bad:
                raise refusal(self.index.root, name, reason)
            if name not in self._told:
                self.say(f"left out {name}, which does not decode ({reason})")
                self._told.add(name)
        if not len(answer.labels):
            raise InputError(f"{self.index.root} has no picture that decodes; give a folder of images")
        return self.finish(answer.made.to(self.device), answer.draws), answer.labels.to(self.device)

    def close(self) -> None:
        """End the worker processes. A later `batch` starts new ones."""
        if self._answers is not None:
            self._answers.close()
        self._answers = None


def in_order(
    index: Index,
    make: Make,
    *,
    batch_size: int,
    workers: int | None = None,
    places: Tensor | None = None,
    say: Say = lambda message: None,
) -> Generator[Answer]:
    """All pictures of the index in order (or those at `places`, int64 (n,)), each made once without draws.

    The last answer may be shorter. What does not decode is in the answers' `bad`. `say` is told of long waits.
    """
    pieces = (torch.arange(len(index)) if places is None else places).split(batch_size)
    requests = [Request(places.numpy(), np.empty((len(places), 0), np.float32)) for places in pieces]
    workers = min(default_workers() if workers is None else workers, len(requests))
    return _answers(_Pictures(index, make), iter(requests), workers, say)


def default_workers() -> int:
    """Worker processes where none are asked for: one for each processor that this process may use, at most 8."""
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
