"""Photographs on a GPU: the processor's batches, nvJPEG's against them, and runs that go on with the same bits."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import ImageFilter
from safetensors.torch import load_file

import images
from cuts import parts_of_pictures
from deepres.classification.recipe import IMAGENET, ClassificationConfig
from deepres.data.order import Order
from deepres.data.resampling import resampled, resamples
from deepres.data.stream.index import Index, open_index
from deepres.data.stream.loader import Reading
from deepres.data.stream.photographs import CropColour, Decode, Photographs
from deepres.data.stream.uncut import require_nvjpeg
from deepres.records import Run
from deepres.runtime.errors import InputError
from deepres.training.loop import StoppedError
from deepres.workflows.train import train_run
from runs import last_weights

GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]
CROP = 64


def on_gpu(test):
    for mark in GPU:
        test = mark(test)
    return test


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty smooth JPEG photographs of several sizes, and one PNG in eight."""
    root = tmp_path_factory.mktemp("photographs")
    for part, count in (("train", 40), ("test", 8)):
        for number in range(count):
            image = images.picture(number, (100 + 5 * number, 200 - 2 * number)).filter(ImageFilter.GaussianBlur(4))
            file = root / part / ("ant", "bee")[number % 2] / f"{number:02}.{'png' if number % 8 == 7 else 'jpg'}"
            file.parent.mkdir(parents=True, exist_ok=True)
            image.save(file, **({} if file.suffix == ".png" else {"quality": 90, "subsampling": number % 3}))
    return root


@pytest.fixture
def index(folder: Path) -> Index:
    return open_index(str(folder), lambda message: None).train


def photographs(index: Index, device: str, decode: Decode = "cpu", workers: int = 0) -> Photographs:
    values, vectors = torch.tensor([0.2, 0.1, 0.05], dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    own = CropColour(CROP, (70, 120), torch.full((3, CROP, CROP), 0.45), values, vectors)
    return Photographs(index, own, Order(0, 12), Reading(workers), torch.device(device), decode)


@on_gpu
def test_the_kernel_has_pillows_bits():
    """Sixty parts of pictures: the plain code, which has Pillow's bits, runs on the processor."""
    _, parts, cuts = parts_of_pictures(60)
    assert resamples()
    got = resampled([part.cuda() for part in parts], cuts, 9)
    assert torch.equal(got.cpu(), resampled(parts, cuts, 9))


@on_gpu
@pytest.mark.parametrize("workers", [0, 3])
def test_batches_are_those_of_the_processor(index: Index, workers: int):
    """Twelve steps ahead of a GPU that is slow at its own work: no batch is overwritten before it was taken."""
    source, expected = photographs(index, "cuda", workers=workers), photographs(index, "cpu")
    taken, crops = [], []
    heavy = torch.rand(4096, 4096, device="cuda")
    for step in range(12):
        raw = source.raw(step)
        for _ in range(10):
            heavy = (heavy @ heavy).clamp(0, 1)
        taken.append(tuple(tensor.clone() for tensor in source.ready(raw)))
        crops.append(raw[0].clone())
        del raw
    source.close()
    for step, (pictures, labels) in enumerate(taken):
        there, known = expected.batch(step)
        assert torch.allclose(pictures.cpu(), there, atol=1e-6) and torch.equal(labels.cpu(), known)
        assert torch.equal(crops[step].cpu(), expected.raw(step)[0])
        assert pictures.is_contiguous(memory_format=torch.channels_last)


@on_gpu
def test_ready_is_captured(index: Index):
    """A CUDA graph of `ready` gives the batches of later steps."""
    source = photographs(index, "cuda")
    static = tuple(tensor.clone() for tensor in source.raw(0))
    source.ready(static)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        pictures, labels = source.ready(static)
    for step in (1, 2, 5):
        for own, new in zip(static, source.raw(step), strict=True):
            own.copy_(new)
        graph.replay()
        there, known = source.batch(step)
        assert torch.equal(pictures, there) and torch.equal(labels, known)


@on_gpu
def test_nvjpeg_decodes_nearly_as_the_processor(index: Index):
    """Half a level on average, in every picture; the same draws, labels and PNG pictures; the same bits again."""
    require_nvjpeg(torch.device("cuda"))
    ours, theirs = photographs(index, "cuda"), photographs(index, "cuda", "gpu", workers=2)
    for step in (0, 1, 2, 3, 1):
        crops, shift, labels = ours.raw(step)
        got, own_shift, own_labels = theirs.raw(step)
        assert torch.equal(shift, own_shift) and torch.equal(labels, own_labels)
        assert (got.float() - crops.float()).abs().mean((1, 2, 3)).max() < 1
    again = photographs(index, "cuda", "gpu")
    assert torch.equal(again.raw(1)[0], got)
    theirs.close()


class StoppedAt:
    """A monitor that asks the run to stop after an iteration."""

    def __init__(self, iteration: int):
        self.iteration = iteration

    def step(self, iteration: int, row: object) -> None:
        if iteration == self.iteration:
            os.kill(os.getpid(), signal.SIGTERM)

    def say(self, message: str) -> None:
        pass


@pytest.mark.parametrize(
    ("device", "decode"),
    [("cpu", "cpu"), pytest.param("cuda", "cpu", marks=GPU), pytest.param("cuda", "gpu", marks=GPU)],
)
def test_a_run_goes_on_in_the_middle_of_an_epoch(folder: Path, tmp_path: Path, device: str, decode: Decode):
    """Stopped after 5 of 10 steps, it ends with the bits of a run that was not. It keeps to its decoder."""
    recipe = replace(IMAGENET.scaled(10), batch_size=12, crop=CROP, sides=(70, 120), lr=0.01, bn_average=0, window=5)
    config = ClassificationConfig(
        "resnet18", str(folder), device=device, compile="off", workers=2, decode=decode, recipe=recipe
    )
    parts = open_index(str(folder), lambda message: None)
    train_run(config, Run(tmp_path / "whole"), parts, StoppedAt(0))
    with pytest.raises(StoppedError):
        train_run(config, Run(tmp_path / "parted"), parts, StoppedAt(5))
    train_run(config, Run(tmp_path / "parted"), parts, StoppedAt(0))
    whole, parted = (load_file(last_weights(tmp_path / name)) for name in ("whole", "parted"))
    assert all(torch.equal(whole[name], parted[name]) for name in whole)
    # The record names the decoder, and a run that goes on has the same one.
    assert json.loads((tmp_path / "parted" / "config.json").read_text())["decode"] == decode
    record = json.loads((tmp_path / "parted" / "config.json").read_text())
    (tmp_path / "parted" / "config.json").write_text(
        json.dumps(record | {"decode": {"cpu": "gpu", "gpu": "cpu"}[decode]})
    )
    with pytest.raises(InputError, match="decode: "):
        train_run(config, Run(tmp_path / "parted"), parts, StoppedAt(0))
