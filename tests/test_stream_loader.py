"""The training stream: batches are a function of (seed, step), whoever decodes them and whatever was asked before."""

import os
import signal
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch
from PIL import Image
from torch import Tensor

import images
from deepres.data.augment import CropFlip
from deepres.data.crops import DRAWS, center_crop, scale_crop_flip
from deepres.data.order import Order
from deepres.data.resident import ImageSet
from deepres.data.resident_batches import Batches
from deepres.data.stream.index import Index, open_index
from deepres.data.stream.labelled import Batch, labelled
from deepres.data.stream.loader import Reading, Stream, default_workers, in_order
from deepres.data.stream.photographs import CropColour, Photographs
from deepres.runtime.errors import InputError

CPU = torch.device("cpu")


def labels_only(encoded: bytes, draws: list[float]) -> Tensor:
    """The draws themselves as the picture, so that a test sees which they were."""
    return (torch.tensor(draws[:3]) * 256).to(torch.uint8)[:, None, None]


def as_they_are(batch: Batch, draws: Tensor) -> Batch:
    return batch


def coloured() -> CropColour:
    values, vectors = torch.tensor([0.2, 0.1, 0.05], dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    return CropColour(8, (9, 14), torch.full((3, 8, 8), 0.5), values, vectors)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven training pictures in two classes, of different sizes, JPEG and PNG."""
    root = tmp_path_factory.mktemp("pictures")
    for number in range(11):
        file = root / "train" / ("ant", "bee")[number % 2] / f"{number:02}.{('png', 'jpg')[number % 3 == 0]}"
        file.parent.mkdir(parents=True, exist_ok=True)
        images.picture(number, (20 + number, 30 - number)).save(file)
    images.write_folder(root / "test", {"ant": 2, "bee": 3})
    return root


@pytest.fixture
def index(folder: Path) -> Index:
    return open_index(str(folder), lambda message: None).train


def stream(
    index: Index, batch_size: int = 4, *, seed: int = 0, part: slice = slice(None), workers: int = 0, **how: object
) -> Photographs:
    return Photographs(index, coloured(), Order(seed, batch_size, part), Reading(workers, **how), CPU)


def batches(source: Photographs, *steps: int) -> list[Batch]:
    try:
        return [source.batch(step) for step in steps]
    finally:
        source.close()


def same(a: list[Batch], b: list[Batch]) -> bool:
    pairs = zip(a, b, strict=True)
    return all(torch.equal(x, y) and torch.equal(u, v) for (x, u), (y, v) in pairs)


@pytest.mark.long
@pytest.mark.parametrize(("workers", "context"), [(1, None), (2, None), (2, "spawn")])
def test_workers_change_nothing(index: Index, workers: int, context: str | None):
    """Six steps over two ends of an epoch, then a jump back, bit for bit as without workers."""
    steps = (0, 1, 2, 3, 4, 5, 2)
    expected = batches(stream(index), *steps)
    assert same(batches(stream(index, workers=workers, context=context), *steps), expected)


def test_a_resumed_run_starts_in_the_middle_of_an_epoch(index: Index, monkeypatch: pytest.MonkeyPatch):
    """The same batches from step 4 on, and nothing before them is read."""
    expected = batches(stream(index), 4, 5, 6)
    assert same(batches(stream(index), 0, 1, 4, 5, 6)[2:], expected)
    assert same(batches(stream(index, workers=2), 4, 5, 6), expected)
    read: list[int] = []
    original = Index.encoded
    monkeypatch.setattr(Index, "encoded", lambda own, place: read.append(place) or original(own, place))
    batches(stream(index), 4)
    assert len(read) == 4


def test_two_ranks_share_a_batch(index: Index):
    """Each makes its part, and together they have what one rank has."""
    whole = batches(stream(index, 6), 0, 1, 2, 3)
    halves = [batches(stream(index, 6, part=part), 0, 1, 2, 3) for part in (slice(0, 3), slice(3, 6))]
    joined = [tuple(torch.cat(pair) for pair in zip(*both, strict=True)) for both in zip(*halves, strict=True)]
    assert same(joined, whole)


def test_every_picture_is_seen_once_an_epoch_in_an_order_of_its_own(index: Index):
    """Batches of 4 go on across the end of an epoch of 11; the seed enters the order and the draws."""

    def shown(seed: int) -> Tensor:
        samples, finished = labelled(index, labels_only, draws=3), as_they_are
        source = Stream(samples, finished, Order(seed, 11), Reading(workers=0))
        return torch.stack([source.batch(step)[0].flatten(1) for step in range(3)])

    assert torch.equal(shown(0), shown(0)) and not torch.equal(shown(0), shown(1))
    assert len({tuple(epoch.flatten().tolist()) for epoch in shown(0)}) == 3
    parts = torch.cat([labels for _, labels in batches(stream(index), *range(11))])
    for epoch in parts.view(4, 11):
        assert epoch.bincount().tolist() == index.labels.bincount().tolist()


def test_the_order_and_the_draws_do_not_depend_on_the_batch_size(index: Index):
    """Twelve pictures in batches of 2, 3 and 12."""
    (expected,) = batches(stream(index, 12), 0)
    for size in (2, 3):
        pictures, labels = zip(*batches(stream(index, size), *range(12 // size)), strict=True)
        assert torch.equal(torch.cat(pictures), expected[0]) and torch.equal(torch.cat(labels), expected[1])


def test_the_order_is_that_of_resident_batches(index: Index):
    """The same seed shows the same pictures at the same steps."""
    resident = ImageSet(torch.zeros(11, 3, 8, 8, dtype=torch.uint8), index.labels)
    source = Batches(resident, torch.zeros(3, 8, 8), Order(5, 4), CPU, CropFlip())
    expected = [source.batch(step)[1].tolist() for step in range(6)]
    assert [labels.tolist() for _, labels in batches(stream(index, seed=5), *range(6))] == expected


def test_the_callers_random_state_is_left_alone(index: Index):
    """Otherwise a resumed run, which starts its workers at another time, would draw other numbers."""
    before = torch.get_rng_state()
    batches(stream(index), 0, 3)
    batches(stream(index, workers=1), 0, 3)
    assert torch.equal(torch.get_rng_state(), before)


def test_batches_are_float32_in_channels_last_memory(index: Index):
    """What the convolutions are fastest with."""
    ((pictures, labels),) = batches(stream(index), 0)
    assert pictures.shape == (4, 3, 8, 8) and pictures.dtype == torch.float32 and labels.dtype == torch.int64
    assert pictures.is_contiguous(memory_format=torch.channels_last)


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "resource_tracker" not in " ".join(child.cmdline())]


def test_close_ends_the_workers_and_a_signal_to_all_processes_does_not(index: Index):
    """Ctrl-C and `timeout` reach all processes of a group; the loop ends the run in order, which takes batches."""
    before = children()
    source = stream(index, workers=2)
    first = source.batch(0)
    workers = [child for child in children() if child not in before]
    assert len(workers) == 2
    for number in (signal.SIGINT, signal.SIGTERM):
        for worker in workers:
            os.kill(worker.pid, number)
    time.sleep(0.1)
    source.batch(7)
    source.close()
    gone, alive = psutil.wait_procs(workers, timeout=60)
    assert len(gone) == 2 and not alive
    assert same(batches(source, 0), [first])


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Ten training pictures, of which one is cut short and one a decompression bomb."""
    root = images.write_folder(tmp_path / "set" / "train", {"ant": 5, "bee": 5}, size=(20, 20)).parent
    images.write_folder(root / "test", {"ant": 2, "bee": 2}, size=(20, 20))
    file = root / "train" / "ant" / "004.png"
    file.write_bytes(file.read_bytes()[:100])
    Image.new("1", (9000, 9000)).save(root / "train" / "bee" / "002.png")
    return root


@pytest.mark.parametrize("workers", [0, 2])
def test_a_picture_that_does_not_decode_is_named(damaged: Path, workers: int):
    """The sentence has the place, the reason and what to do; not a traceback of a worker."""
    source = stream(open_index(str(damaged), lambda message: None).train, 10, workers=workers)
    with pytest.raises(InputError, match=r"set: train/(ant/004|bee/002)\.png does not decode .*--skip-bad") as caught:
        source.batch(0)
    source.close()
    assert "Traceback" not in str(caught.value)


def test_a_skipped_picture_leaves_its_place_to_the_next(damaged: Path):
    """Each is named once, with its reason; batches stay whole, and the same for any number of workers."""
    told: list[str] = []
    index = open_index(str(damaged), lambda message: None).train
    got = batches(stream(index, 10, skip_bad=True, say=told.append), 0, 1, 2)
    assert len(told) == 2 and sum("train/ant/004.png" in line for line in told) == 1
    assert any("train/bee/002.png" in line and "9000x9000" in line for line in told)
    assert all(labels.bincount().tolist() == [4, 6] for _, labels in got)  # after the last ant comes a bee
    assert same(batches(stream(index, 10, skip_bad=True, workers=2), 0, 1, 2), got)


def test_a_set_of_which_nothing_decodes_is_refused_also_with_skip_bad(tmp_path: Path):
    """There is nothing to take the place."""
    images.write_folder(tmp_path / "set", {"ant": 5})
    for file in tmp_path.rglob("*.png"):
        file.write_bytes(b"nothing")
    index = open_index(str(tmp_path / "set"), lambda message: None).train
    with pytest.raises(InputError, match="no picture that decodes"):
        stream(index, skip_bad=True).batch(0)


def test_in_order_gives_each_picture_once(folder: Path, damaged: Path):
    """All of a part or every second one; the last answer is shorter; what is bad is told beside the rest."""
    test = open_index(str(folder), lambda message: None).test
    make = partial(center_crop, crop=8, side=8)
    for own in (slice(None), slice(1, None, 2)):
        answers = list(in_order(labelled(test, make), 2, Reading(workers=2), torch.arange(len(test))[own]))
        pictures, labels = (torch.cat(parts) for parts in zip(*(answer.batch for answer in answers), strict=True))
        assert torch.equal(labels, test.labels[own])
        expected = [make(test.encoded(place)) for place in range(len(test))[own]]
        assert torch.equal(pictures, torch.stack(expected))
    samples = labelled(open_index(str(damaged), lambda message: None).train, make)
    answers = list(in_order(samples, 3, Reading(workers=0, skip_bad=True)))
    assert [name for answer in answers for name, _ in answer.bad] == ["train/ant/004.png", "train/bee/002.png"]
    assert sum(len(answer.batch[1]) for answer in answers) == 8


def test_an_empty_batch_is_refused(index: Index):
    """A batch size of 0."""
    with pytest.raises(InputError, match="empty"):
        stream(index, 0)
    assert default_workers() >= 1


def test_tar_shards_and_parquet_stream_alike(tmp_path: Path):
    """The same order and the same views from either, with workers."""
    root = images.write_parquet_set(tmp_path / "parquet")
    for part, (start, count) in {"train": (0, 10), "test": (1000, 4)}.items():
        images.write_tar(tmp_path / f"{part}-0.tar", images.samples(start, count))
    parquet, tars = (
        open_index(name, lambda message: None).train for name in (str(root), f"wds:{tmp_path}/{{train,test}}-0.tar")
    )
    assert same(batches(stream(parquet, 5, workers=1), 0, 1, 2), batches(stream(tars, 5, workers=2), 0, 1, 2))


def test_real_photographs_stream(real_data: Path):
    """Views at the recipe's size, from the middle of an epoch."""
    index = open_index(str(real_data / "flowers"), lambda message: None).train
    samples, finished = labelled(index, scale_crop_flip, DRAWS), as_they_are
    source = Stream(samples, finished, Order(0, 8), Reading(workers=2))
    pictures, labels = source.batch(200)
    source.close()
    assert pictures.shape == (8, 3, 224, 224) and pictures.float().std() > 20 and labels.max() < 5
