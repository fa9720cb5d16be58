"""Masks of objects, kept as COCO keeps them: run lengths along the columns, as compressed text."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CHARACTERS = range(48, 112)  # of compressed run lengths, six bits each
GROUP = 7  # characters of one number at most: 35 bits


class Rle(TypedDict):
    """One mask as the functions of COCO take it: (height, width) of its picture, and its run lengths as text."""

    size: list[int]
    counts: bytes


@dataclass(frozen=True, eq=False)
class Masks:
    """The masks of n objects, each as large as the picture of its object.

    `text` uint8 (t,) holds the compressed run lengths of all masks, one after another, those of mask i up to `ends[i]`,
    int64 (n,). `sizes` int64 (n, 2) are height and width. An object of which no mask is known has no text; a mask that
    covers no pixel has. All are on the processor.
    """

    text: Tensor
    ends: Tensor
    sizes: Tensor

    @classmethod
    def of(cls, texts: Iterable[bytes], sizes: Sequence[Sequence[int]]) -> Self:
        """Masks of these compressed run lengths; b"" for one that is not known. `sizes` are (height, width)."""
        every = list(texts)
        lengths = torch.tensor([len(own) for own in every], dtype=torch.int64)
        text = torch.from_numpy(np.frombuffer(b"".join(every), np.uint8).copy())
        return cls(text, lengths.cumsum(0), torch.tensor(sizes, dtype=torch.int64).view(-1, 2))

    @classmethod
    def joined(cls, each: Sequence["Masks"]) -> Self:
        """The masks of several pictures, one after another."""
        sizes = [size for own in each for size in own.sizes.tolist()]
        return cls.of([text for own in each for text in own.texts], sizes)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, own: slice | Tensor) -> "Masks":
        """Some of the masks: a range of them without a step, or by a bool (n,) or an int64 (k,) tensor."""
        if isinstance(own, slice):
            first, last, _ = own.indices(len(self))
            begin = int(self.ends[first - 1]) if first else 0
            end = int(self.ends[last - 1]) if last > first else begin
            return Masks(self.text[begin:end], self.ends[own] - begin, self.sizes[own])
        starts = self._starts
        own = own.cpu()
        pairs = zip(starts[own].tolist(), self.ends[own].tolist(), strict=True)
        text = torch.cat([self.text[:0], *(self.text[begin:end] for begin, end in pairs)])
        return Masks(text, (self.ends - starts)[own].cumsum(0), self.sizes[own])

    @property
    def known(self) -> Tensor:
        """Whether each mask is known, bool (n,)."""
        return self.ends > self._starts

    @property
    def texts(self) -> list[bytes]:
        """The compressed run lengths of each mask."""
        text = self.text.numpy().tobytes()
        return [text[begin:end] for begin, end in zip(self._starts.tolist(), self.ends.tolist(), strict=True)]

    def rles(self) -> list[Rle]:
        """Each mask as the functions of COCO take it."""
        return [{"size": size, "counts": text} for size, text in zip(self.sizes.tolist(), self.texts, strict=True)]

    @property
    def _starts(self) -> Tensor:
        return torch.cat([self.ends.new_zeros(1), self.ends[:-1]]) if len(self.ends) else self.ends


def run_lengths(text: bytes) -> NDArray[np.int64]:
    """The run lengths in compressed text. Raises `ValueError` for what is none.

    Each character has six bits: five of a number, the lowest first, and one that says that more of it follow. From the
    fourth on, numbers are differences to the last but one.
    """
    values = np.frombuffer(text, np.uint8).astype(np.int64) - CHARACTERS.start
    last = (values & 32) == 0
    if not len(values) or values.min() < 0 or values.max() >= len(CHARACTERS) or not last[-1]:
        raise ValueError("a mask has text that is no run lengths")
    ends = np.flatnonzero(last)
    starts = np.concatenate(([0], ends[:-1] + 1))
    if (ends - starts).max() >= GROUP:
        raise ValueError("a mask has a run length of too many digits")
    digits = np.arange(len(values)) - np.repeat(starts, ends - starts + 1)
    numbers = np.add.reduceat((values & 31) << 5 * digits, starts)
    numbers -= np.where(values[ends] & 16, 1 << 5 * (ends - starts + 1), 0)  # the sign
    numbers[1::2] = numbers[1::2].cumsum()
    numbers[2::2] = numbers[2::2].cumsum()
    return numbers


def checked(masks: Masks, count: int) -> Masks:
    """The same masks, of which others may have written the tensors. Raises `ValueError` where they are not `count`."""
    text, ends, sizes = masks.text, masks.ends, masks.sizes
    kinds = (text.dtype, ends.dtype, sizes.dtype) == (torch.uint8, torch.int64, torch.int64)
    if not kinds or text.dim() != 1 or ends.shape != (count,) or sizes.shape != (count, 2):
        raise ValueError(f"the masks of {count} objects have other shapes")
    bounds = [0, *ends.tolist()]
    if sorted(bounds) != bounds or bounds[-1] != len(text):
        raise ValueError("the text of masks has another length")
    for place, (own, (height, width)) in enumerate(zip(masks.texts, sizes.tolist(), strict=True)):
        if own and (min(counts := run_lengths(own)) < 0 or height < 0 or sum(counts.tolist()) != height * width):
            raise ValueError(f"mask {place} does not fit its picture")
    return masks


def encoded(maps: Tensor) -> Masks:
    """The masks of n pixel maps, uint8 or bool (n, height, width): all pixels that are not 0 belong to the object."""
    coco, (count, height, width) = _coco(), maps.shape
    if not maps.numel():
        return Masks.of([b""] * count, [(height, width)] * count)
    pixels = np.asfortranarray((maps != 0).to(torch.uint8).cpu().numpy().transpose(1, 2, 0))
    return Masks.of([own["counts"] for own in coco.encode(pixels)], [(height, width)] * count)


def decoded(masks: Masks) -> Tensor:
    """The pixel maps of masks of one size, uint8 (n, height, width), 1 inside; those not known are 0.

    Raises `ValueError` for masks of several sizes.
    """
    if len(set(map(tuple, masks.sizes.tolist()))) > 1:
        raise ValueError("masks of pictures of several sizes make no tensor")
    height, width = masks.sizes[0].tolist() if len(masks) else (0, 0)
    maps, known = torch.zeros(len(masks), height, width, dtype=torch.uint8), masks.known
    if known.any():
        pixels = _coco().decode(masks[known].rles())
        maps[known] = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    return maps


def mask_areas(masks: Masks) -> Tensor:
    """The pixels of each mask, int64 (n,); 0 for one that is not known."""
    areas, known = torch.zeros(len(masks), dtype=torch.int64), masks.known
    if known.any():
        areas[known] = torch.from_numpy(np.asarray(_coco().area(masks[known].rles()), np.int64))
    return areas


def mask_boxes(masks: Masks) -> Tensor:
    """The box around each mask, float32 (n, 4), in continuous coordinates; zeros for an empty one and one not known."""
    boxes, known = torch.zeros(len(masks), 4), masks.known
    if known.any():
        boxes[known] = torch.from_numpy(np.asarray(_coco().toBbox(masks[known].rles()), np.float32)).view(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def mask_overlaps(masks: Masks, others: Masks) -> Tensor:
    """The IoU of each of k masks with each of n others of the same picture, float64 (k, n); 0 for one not known."""
    return _overlaps(masks, others, crowd=False)


def mask_shares(masks: Masks, regions: Masks) -> Tensor:
    """The share of each of k masks that lies inside each of n regions, float64 (k, n); 0 for one not known."""
    return _overlaps(masks, regions, crowd=True)


def mirrored(masks: Masks) -> Masks:
    """The masks of the pictures mirrored left and right."""
    each = (masks[place : place + 1] for place in range(len(masks)))  # one by one, to save memory
    texts = [encoded(decoded(own).flip(2)).texts[0] if own.known else b"" for own in each]
    return Masks.of(texts, masks.sizes.tolist())


def _overlaps(masks: Masks, others: Masks, crowd: bool) -> Tensor:
    found = torch.zeros(len(masks), len(others), dtype=torch.float64)
    rows, columns = masks.known.nonzero().flatten(), others.known.nonzero().flatten()
    if len(rows) and len(columns):
        values = _coco().iou(masks[rows].rles(), others[columns].rles(), [int(crowd)] * len(columns))
        found[rows[:, None], columns] = torch.from_numpy(np.asarray(values, np.float64))
    return found.nan_to_num(0)


def _coco() -> Any:
    """COCO's functions of masks."""
    from faster_coco_eval.core import mask

    return mask
