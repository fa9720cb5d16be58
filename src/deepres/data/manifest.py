"""The manifest of a part of a data set: the name of each picture, and a digest of its content."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import NamedTuple, Self, overload

import torch
from torch import Tensor

from deepres.data.listing import Picture, digest_of, each
from deepres.runtime.errors import Say


@dataclass(frozen=True)
class Strings(Sequence[str]):
    """N strings in two tensors: their UTF-8 `text`, uint8, and the end of each in it, `ends` int64 (N,).

    A list of a million strings takes ten times the memory, and worker processes would copy it.
    """

    text: Tensor
    ends: Tensor

    @classmethod
    def of(cls, strings: Iterable[str]) -> "Strings":
        """The same strings, packed."""
        parts = [os.fsencode(string) for string in strings]
        lengths = torch.tensor([len(part) for part in parts], dtype=torch.int64)
        return cls(torch.frombuffer(bytearray(b"".join(parts) or b"\0"), dtype=torch.uint8), lengths.cumsum(0))

    def __len__(self) -> int:
        return len(self.ends)

    def __iter__(self) -> Iterator[str]:
        """All strings, much faster than one by one."""
        text, start = self.text.numpy().tobytes(), 0
        for end in self.ends.tolist():
            yield os.fsdecode(text[start:end])
            start = end

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        if not 0 <= place < len(self):
            raise IndexError(place)
        start = int(self.ends[place - 1]) if place else 0
        return os.fsdecode(self.text[start : int(self.ends[place])].numpy().tobytes())


class Manifest(NamedTuple):
    """N pictures: `names`, and `digests` int64 (N,), the first eight bytes of the SHA-256 of the encoded bytes.

    That two of a million pictures have the same digest by chance happens once in ten million data sets.
    """

    names: Strings
    digests: Tensor

    @classmethod
    def of(cls, names: Iterable[str], digests: Iterable[bytes]) -> Self:
        """The manifest of pictures with these names and SHA-256 digests."""
        first = [int.from_bytes(digest[:8], "little", signed=True) for digest in digests]
        return cls(Strings.of(names), torch.tensor(first, dtype=torch.int64))

    @property
    def checksum(self) -> str:
        """A SHA-256 of names and digests."""
        tensors = (self.names.text, self.names.ends, self.digests)
        return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest()

    def where(self, chosen: Tensor) -> Self:
        """The pictures of a mask (N,); an unknown manifest stays so."""
        if not len(self.names):
            return self
        return type(self)(Strings.of(compress(self.names, chosen.tolist())), self.digests[chosen])


UNKNOWN = Manifest.of((), ())


def manifest_of(pictures: Iterable[Picture], say: Say, name: str) -> Manifest:
    """The manifest of pictures, all of which are read. `say` is told of the progress with data set `name`."""
    found = [(picture.name, digest) for picture, digest in each(pictures, digest_of, say, name, "compared")]
    return Manifest.of(*(zip(*found, strict=True) if found else ((), ())))
