"""The stream with other targets than labels: pictures of different sizes, each with its own number of boxes."""

import io
import multiprocessing
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from PIL import Image
from torch import Tensor

import images
from deepres.data.crops import whole
from deepres.data.order import Order
from deepres.data.stream import transport, workers
from deepres.data.stream.index import Index, open_index
from deepres.data.stream.loader import Reading, Samples, Stream


class Boxed(NamedTuple):
    """A picture uint8 (3, H, W) of a size of its own, its boxes float32 (n, 4) as (x1, y1, x2, y2), and a mask."""

    picture: Tensor
    boxes: Tensor
    mask: Tensor


@dataclass
class Scenes:
    """A batch for a detector: lists, since neither sizes nor numbers of boxes agree."""

    pictures: list[Tensor]
    boxes: list[Tensor]
    masks: list[Tensor]
    draws: Tensor | None = None


def boxes_of(sizes: list[tuple[int, int]], place: int) -> Tensor:
    """As many boxes as the place's remainder by 4, so that some pictures have none."""
    width, height = sizes[place]
    return torch.tensor([[k, k + 1, width - k, height - k] for k in range(place % 4)], dtype=torch.float32).view(-1, 4)


def flipped(encoded: bytes, draws: Sequence[float], boxes: Tensor) -> Boxed:
    """The picture and its boxes, both mirrored where the draw says so."""
    picture, boxes = whole(encoded), boxes.clone()
    if draws[0] < 0.5:
        picture = picture.flip(-1)
        boxes[:, [0, 2]] = picture.shape[-1] - boxes[:, [2, 0]]
    mask = torch.zeros(picture.shape[1:], dtype=torch.bool)
    for left, top, right, bottom in boxes.int().tolist():
        mask[top:bottom, left:right] = True
    return Boxed(picture, boxes, mask)


def listed(samples: list[Boxed]) -> Scenes:
    return Scenes(*map(list, zip(*samples, strict=True)))


def with_draws(scenes: Scenes, draws: Tensor) -> Scenes:
    scenes.draws = draws
    return scenes


def scenes_of(index: Index, part: slice = slice(None), **how: object) -> Stream[Scenes]:
    """Batches of four, of which a rank makes its part."""
    sizes = [Image.open(io.BytesIO(index.encoded(place))).size for place in range(len(index))]
    samples = Samples(index, flipped, listed, partial(boxes_of, sizes), draws=2)
    return Stream(samples, with_draws, Order(3, 4, part), Reading(**how))


def taken(source: Stream[Scenes], *steps: int) -> list[Scenes]:
    try:
        return [source.batch(step) for step in steps]
    finally:
        source.close()


def flat(batches: list[Scenes]) -> list[Tensor]:
    return [
        tensor
        for scenes in batches
        for kind in (scenes.pictures, scenes.boxes, scenes.masks, scenes.draws.unbind())
        for tensor in kind
    ]


def assert_same(got: list[Scenes], expected: list[Scenes]) -> None:
    for one, other in zip(flat(got), flat(expected), strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """Eleven pictures of eleven sizes."""
    for number in range(11):
        file = tmp_path / "train" / ("ant", "bee")[number % 2] / f"{number:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        images.picture(number, (20 + number, 40 - 2 * number)).save(file)
    images.write_folder(tmp_path / "test", {"ant": 1, "bee": 1})
    return open_index(str(tmp_path), lambda message: None).train


@pytest.mark.parametrize("how", [{"workers": 1}, {"workers": 2}, {"workers": 2, "context": "spawn"}])
def test_boxes_and_pictures_of_any_size_are_the_same_for_any_number_of_workers(index: Index, how: dict[str, object]):
    """Over two ends of an epoch; every picture has the boxes that are its own, mirrored with it."""
    expected = taken(scenes_of(index, workers=0), 0, 1, 2, 3, 4, 5)
    assert_same(taken(scenes_of(index, **how), 0, 1, 2, 3, 4, 5), expected)
    seen = [boxes for scenes in expected for boxes in scenes.boxes]
    assert {len(boxes) for boxes in seen} == {0, 1, 2, 3}
    assert len({picture.shape for scenes in expected for picture in scenes.pictures}) == 11
    known = {tuple(whole(index.encoded(place)).shape): boxes_of([(0, 0)] * 11, place) for place in range(11)}
    for scenes in expected:
        for picture, boxes, mask, draws in zip(scenes.pictures, scenes.boxes, scenes.masks, scenes.draws, strict=True):
            assert len(boxes) == len(known[tuple(picture.shape)])
            assert bool(mask.any()) == bool(len(boxes)) and mask.shape == picture.shape[1:]
            if len(boxes):  # the first box goes from the left edge to the right one, either way round
                assert boxes[0].tolist() == [0, 1, picture.shape[2], picture.shape[1]]
            if len(boxes) > 1 and draws[0] < 0.5:
                assert boxes[1].tolist() == [1, 2, picture.shape[2] - 1, picture.shape[1] - 1]


def test_a_resumed_run_has_the_batches_of_an_undisturbed_one(index: Index):
    expected = taken(scenes_of(index, workers=0), 0, 1, 2, 3, 4, 5)
    assert_same(taken(scenes_of(index, workers=2), 3, 4, 5), expected[3:])
    assert_same(taken(scenes_of(index, workers=2), 0, 1, 4, 5), [*expected[:2], *expected[4:]])


@pytest.mark.parametrize("count", [0, 2])
def test_two_ranks_have_together_the_batch_of_one(index: Index, count: int):
    expected = taken(scenes_of(index, workers=0), 2, 3)
    first, second = (taken(scenes_of(index, part, workers=count), 2, 3) for part in (slice(0, 2), slice(2, 4)))
    for whole_batch, one, other in zip(expected, first, second, strict=True):
        joined = Scenes(
            one.pictures + other.pictures,
            one.boxes + other.boxes,
            one.masks + other.masks,
            torch.cat([one.draws, other.draws]),
        )
        assert_same([joined], [whole_batch])


def test_pixels_are_not_pickled():
    """What goes through the pipe itself is small, whatever the size of the pictures."""
    ours, theirs = multiprocessing.Pipe()
    transport.send(theirs, listed([Boxed(torch.ones(3, 300, 300), torch.ones(2, 4), torch.ones(300, 300))]))
    pickled, sizes, in_file = ours.recv()
    assert len(pickled) < 1000 and sizes == [4 * 3 * 300 * 300, 4 * 2 * 4, 4 * 300 * 300]
    assert in_file == (sys.platform == "linux")


def odd(request: int) -> dict[str, object]:
    """Tensors of all kinds, some with gaps in their memory."""
    grid = torch.arange(request * 24).view(request, 2, 3, 4)
    return {
        "gaps": grid[:, :, :, ::2],
        "strides": grid.permute(0, 3, 1, 2),
        "tail": grid.flatten()[-3:],
        "scalar": torch.tensor(1.5, dtype=torch.float64),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "empty": [torch.zeros(0, 4), torch.zeros(2, 0, dtype=torch.int64)],
        "flags": torch.tensor([True, False]),
        "text": "a picture",
        "numbers": grid.numpy()[0].T,
    }


@pytest.mark.parametrize("nameless", [True, False])
def test_tensors_of_any_kind_keep_values_types_and_memory_order(monkeypatch: pytest.MonkeyPatch, nameless: bool):
    if not nameless:
        monkeypatch.setattr(transport, "_nameless_file", lambda pieces: None)
    for request, got in zip((1, 2, 500), workers.answers(odd, [1, 2, 500], 1, "", print), strict=True):
        expected = odd(request)
        assert got.keys() == expected.keys() and got["text"] == "a picture"
        assert (got["numbers"] == expected["numbers"]).all()
        for name in ("gaps", "strides", "tail", "scalar", "half", "flags"):
            one, other = got[name], expected[name]
            assert one.dtype == other.dtype and torch.equal(one, other), name
            one += one  # its memory can be written to
        assert got["strides"].stride() == expected["strides"].stride()
        shapes = [(tuple(tensor.shape), tensor.dtype) for tensor in got["empty"]]
        assert shapes == [((0, 4), torch.float32), ((2, 0), torch.int64)]
