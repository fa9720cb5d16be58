"""Batches from an index: read and decoded by worker processes, ahead of the step that asks for them."""

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepres.data.listing import refusal
from deepres.data.order import Order, grouped
from deepres.data.rgb import fault
from deepres.data.stream.index import Index
from deepres.data.stream.workers import answers
from deepres.runtime.errors import InputError, Say, silent

S = TypeVar("S")  # a sample
B = TypeVar("B")  # a batch of samples
F = TypeVar("F")  # a batch as the network takes it


@dataclass(frozen=True, eq=False)
class Samples(Generic[S, B]):
    """The pictures of an index, and how worker processes make batches of them.

    `make(encoded, draws, target)` makes a sample of the encoded bytes of a picture, of `draws` uniform numbers from 0
    to below 1, and of `target_of(place)`, whatever that is: a label, boxes, a mask. `collate` makes a batch of a list
    of samples. All of them and the batches have to pickle; the tensors of a batch reach the training process without a
    copy through a pipe. Where there are `groups`, int64 (N,), the pictures of a training batch are of one group.
    """

    index: Index
    make: Callable[[bytes, Sequence[float], Any], S]
    collate: Callable[[list[S]], B]
    target_of: Callable[[int], Any]
    draws: int = 0
    groups: Tensor | None = None


@dataclass(frozen=True)
class Reading:
    """How pictures are read: `workers` processes (0: none) decode ahead; None is one for each processor, at most 16.

    A picture that does not decode raises `InputError`; with `skip_bad` it is left out. `say` is told of what is left
    out, and of long waits. `context` is the start method of the processes, as `multiprocessing` names it. Batches of
    processes arrive in pinned memory, from which a GPU copies, where `pinned`.
    """

    workers: int | None = None
    skip_bad: bool = False
    say: Say = silent
    context: str | None = None
    pinned: bool = False

    @property
    def count(self) -> int:
        """The number of worker processes."""
        return default_workers() if self.workers is None else self.workers


@dataclass(frozen=True)
class Request:
    """Pictures that one worker makes: `places` int64 (n,) in the index, `draws` float32 (n, k) from 0 to below 1."""

    places: NDArray[np.int64]
    draws: NDArray[np.float32]


@dataclass(frozen=True)
class Answer(Generic[B]):
    """The answer to a request: the `batch` of the pictures that decode, or None where none does.

    `draws` float32 (n, k) are those of these pictures; `bad` has the names and faults of the others.
    """

    batch: B | None
    draws: Tensor
    bad: list[tuple[str, str]]


@dataclass(frozen=True, eq=False)
class _Answering(Generic[S, B]):
    """Answers requests, in a worker process.

    With `substitute`, the next picture of the index that decodes takes the place of one that does not.
    """

    samples: Samples[S, B]
    substitute: bool = False

    def __call__(self, request: Request) -> Answer[B]:
        own, made, kept = self.samples, list[S](), list[int]()
        total, tries = len(own.index), len(own.index) if self.substitute else 1
        bad: list[tuple[str, str]] = []
        for row, (first, draws) in enumerate(zip(request.places.tolist(), request.draws.tolist(), strict=True)):
            for place in ((first + further) % total for further in range(tries)):
                target = own.target_of(place)
                try:
                    made.append(own.make(own.index.encoded(place), draws, target))
                except Exception as error:  # Pillow's decoders raise almost any exception for a damaged file
                    bad.append((own.index.names[place], fault(error)))
                else:
                    kept.append(row)
                    break
        return Answer(own.collate(made) if made else None, torch.from_numpy(request.draws[kept]), bad)


class _Epochs:
    """The requests of a training run: the order of each epoch, and `count` random numbers at each position."""

    def __init__(self, order: Order, total: int, count: int, groups: Tensor | None = None):
        self.order, self.total, self.count, self.groups = order, total, count, groups
        self.newest: tuple[int, Tensor, Tensor] | None = None

    def request(self, step: int) -> Request:
        # A batch may reach over the end of an epoch.
        epochs = [(*self._epoch(number), piece) for number, piece in self.order.pieces(step, self.total)]
        places = torch.cat([places[piece] for places, _, piece in epochs])[self.order.part]
        draws = torch.cat([draws[piece] for _, draws, piece in epochs])[self.order.part]
        return Request(places.numpy(), draws.numpy())

    def _epoch(self, number: int) -> tuple[Tensor, Tensor]:
        if self.newest is None or self.newest[0] != number:
            generator = self.order.generator(number)
            places = torch.randperm(self.total, generator=generator)
            if self.groups is not None:
                size = self.order.batch_size
                places = grouped(places, self.groups[places], size, -number * self.total % size, generator)
            self.newest = (number, places, torch.rand(self.total, self.count, generator=generator))
        return self.newest[1:]


class Stream(Generic[F]):
    """Training batches as a pure function of (seed, step), as those of `resident_batches`, from pictures on disk.

    The samples are made and collated in worker processes; `finish(batch, draws)` turns the batch into what the network
    takes, in this process. `make` and `finish` are given the same random numbers of each picture. These depend on
    (seed, epoch, position) alone, not on workers, ranks or the batch size; with groups, the order depends on that, too.
    A resumed run asks for its next step; nothing before it is read. Raises `InputError` for an empty batch.
    """

    def __init__(self, samples: Samples[Any, B], finish: Callable[[B, Tensor], F], order: Order, reading: Reading):
        order.check(len(samples.index))
        self._samples: Samples[Any, Any] = samples
        self._finish: Callable[[Any, Tensor], F] = finish
        self._reading = reading
        self._request = _Epochs(order, len(samples.index), samples.draws, samples.groups).request
        self._answers: Generator[Answer[Any]] | None = None
        self._next = 0
        self._told: set[str] = set()

    def batch(self, step: int) -> F:
        """Batch `step`, made by `finish`.

        The step after the last one asked for is ready or under way; any other starts the workers anew.
        """
        if self._answers is None or step != self._next:
            self.close()
            work = _Answering(self._samples, substitute=self._reading.skip_bad)
            self._answers = _answers(work, map(self._request, count(step)), self._reading)
        answer = next(self._answers)
        self._next = step + 1
        for name, reason in answer.bad:
            if name not in self._told:
                self._reading.say(f"left out {name}, which does not decode ({reason})")
                self._told.add(name)
        if answer.batch is None:
            raise InputError(f"{self._samples.index.root} has no picture that decodes; give a folder of images")
        return self._finish(answer.batch, answer.draws)

    def close(self) -> None:
        """End the worker processes. A later `batch` starts new ones."""
        if self._answers is not None:
            self._answers.close()
        self._answers = None


def in_order(
    samples: Samples[S, B], batch_size: int, reading: Reading, places: Tensor | None = None
) -> Generator[Answer[B]]:
    """All pictures of the index in order (or those at `places`, int64 (n,)), each once and without random numbers.

    The last answer may be shorter. Raises `InputError` for a picture that does not decode, or with `skip_bad`, tells
    of it in `bad` of its answer.
    """
    pieces = (torch.arange(len(samples.index)) if places is None else places).split(batch_size)
    requests = [Request(piece.numpy(), np.empty((len(piece), 0), np.float32)) for piece in pieces]
    reading = replace(reading, workers=min(reading.count, len(requests)))
    return _answers(_Answering(samples), iter(requests), reading)


def default_workers() -> int:
    """Worker processes where none are asked for: one for each processor that this process may use, at most 16."""
    return min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def _answers(work: _Answering[S, B], requests: Iterator[Request], reading: Reading) -> Generator[Answer[B]]:
    """The answers to the requests. Raises `InputError` for a picture that does not decode, unless `skip_bad`."""
    root = work.samples.index.root
    how = (reading.count, str(root), reading.say, reading.context, reading.pinned)
    with closing(answers(work, requests, *how)) as found:
        for answer in found:
            if answer.bad and not reading.skip_bad:
                raise refusal(root, *answer.bad[0])
            yield answer
