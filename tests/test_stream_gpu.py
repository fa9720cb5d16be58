"""The GPU's part of the training stream, by the same code on the processor: resampling, undecoded batches, streams."""

import io
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import images
from cuts import CROP, parts_of_pictures
from deepres.data.crops import scale_crop_flip
from deepres.data.order import Order
from deepres.data.resampling import resampled
from deepres.data.stream import ahead, transport, uncut
from deepres.data.stream.index import Index, open_index
from deepres.data.stream.loader import Reading
from deepres.data.stream.photographs import CropColour, Decode, Photographs
from deepres.data.stream.uncut import Cropping, DecodingError, Sample, sample
from deepres.runtime.errors import InputError

CPU = torch.device("cpu")
SIDES = (40, 60)
DRAWS = (0.3, 0.4, 0.8, 0.2, 0.5, 0.6, 0.7)


def jpeg(image: Image.Image, **how: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", **how)
    return stream.getvalue()


def by_pillow(picture: Tensor, box: Tensor, flip: bool, crop: int) -> Tensor:
    image = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
    made = image.resize((crop, crop), Image.Resampling.BILINEAR, box=tuple(box.tolist()))
    return torch.from_numpy(np.array(made)[:, ::-1].copy() if flip else np.array(made)).permute(2, 0, 1)


def test_crops_are_resampled_with_pillows_bits():
    """Sixty pictures, made larger and smaller, up to eleven times, flipped or not; only the parts needed are there."""
    whole, parts, cuts = parts_of_pictures(60)
    got = resampled(parts, cuts, CROP)
    expected = [by_pillow(*known, CROP) for known in zip(whole, cuts.boxes, cuts.flips, strict=True)]
    assert torch.equal(got, torch.stack(expected))
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert sum(part.numel() for part in parts) < sum(picture.numel() for picture in whole)


INTERPRETED = """
import sys; sys.path.insert(0, sys.argv[1])
import torch
from deepres.data.filters import filters
from deepres.data.resampling import Cuts, needed, resampled
from deepres.data.resampling_triton import resample
from cuts import CROP, parts_of_pictures

_, parts, cuts = parts_of_pictures(6, seed=1)
own = filters(cuts.boxes, cuts.sizes, CROP, torch.device("cpu"))
got = resample(parts, cuts.corners, own, cuts.flips, CROP)
assert torch.equal(got, resampled(parts, cuts, CROP))
print("same")
"""


@pytest.mark.long
def test_the_kernel_has_the_bits_of_the_plain_code():
    """Triton's interpreter runs the kernel of the GPU on the processor."""
    pytest.importorskip("triton")
    command = [sys.executable, "-c", INTERPRETED, str(Path(__file__).parent)]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.stdout == "same\n", done.stderr


@pytest.mark.long
def test_the_kernel_compiles_for_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Triton's compiler needs none: to the code of an H100."""
    pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from deepres.data import filters, resampling_triton

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    names = resampling_triton._resample_row.arg_names
    kinds = {"parts": "*i64", "made": "*u8", "crop": "i32", "reach": "i32"}
    fixed = {"known": resampling_triton.FACTS, "block": 256, "bits": filters.PRECISION, "half": filters.HALF}
    signature = {name: "constexpr" if name in fixed else kinds.get(name, "*i32") for name in names}
    made = compile(ASTSource(resampling_triton._resample_row, signature, fixed), target=GPUTarget("cuda", 90, 32))
    assert made.asm["cubin"]


@pytest.fixture(params=[False, True], ids=["decoded by workers", "nvjpeg"])
def cropping(request: pytest.FixtureRequest) -> Cropping:
    return Cropping(32, SIDES, nvjpeg=request.param)


def assert_cut_as_by_the_processor(one: Sample, encoded: bytes) -> None:
    """Pillow and torchvision decode by the same library, so that the crop has the same bits."""
    made = uncut.crops(uncut.together([one]), 32, CPU)
    assert torch.equal(made[0], scale_crop_flip(encoded, DRAWS, crop=32, sides=SIDES))


def test_a_plain_jpeg_is_left_to_nvjpeg(cropping: Cropping):
    """Else its part is sent, decoded."""
    encoded = jpeg(images.picture(3, (70, 50)), quality=90)
    one = sample(cropping, encoded, DRAWS, 5)
    assert one.size == (70, 50) and one.label == 5 and (one.content.dim() == 1) == cropping.nvjpeg
    assert_cut_as_by_the_processor(one, encoded)


def sideways(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return jpeg(image, exif=exif)


OTHERS: dict[str, Callable[[Image.Image], bytes]] = {
    "png": images.png,
    "sideways": sideways,
    "gray": lambda image: jpeg(image.convert("L")),
    "cmyk": lambda image: jpeg(image.convert("CMYK")),
    "progressive": lambda image: jpeg(image, progressive=True),
    "rgb": lambda image: jpeg(image, keep_rgb=True),
    "more behind": lambda image: jpeg(image) + b"more",
    "large": lambda image: images.png(image.resize((700, 400))),
    "twice as large": lambda image: jpeg(image.resize((300, 200)), progressive=True),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_pictures_are_decoded_by_the_processor(kind: str, cropping: Cropping):
    """The GPU cuts them; one that shrinks to less than a fourth is cut before."""
    encoded = OTHERS[kind](images.picture(3, (70, 50)))
    one = sample(cropping, encoded, DRAWS, 5)
    assert one.content.dim() == 3 and (one.content.shape[1:] == (32, 32)) == (kind == "large")
    assert_cut_as_by_the_processor(one, encoded)


def test_large_and_damaged_jpegs_are_the_processors(monkeypatch: pytest.MonkeyPatch):
    """One cut short raises what Pillow raises; one above the limit of pixels is decoded."""
    encoded, nvjpeg = jpeg(images.picture(3, (70, 50))), Cropping(32, SIDES, nvjpeg=True)
    with pytest.raises(OSError, match="truncated"):
        sample(nvjpeg, encoded[:-200], DRAWS, 5)
    monkeypatch.setattr(uncut, "MOST_PIXELS", 3499)
    assert sample(nvjpeg, encoded, DRAWS, 5).content.dim() == 3


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirteen training pictures: JPEG of all samplings, PNG, gray, sideways."""
    root = tmp_path_factory.mktemp("mixed")
    for number in range(13):
        image = images.picture(number, (50 + 3 * number, 90 - 2 * number))
        kinds = [
            jpeg(image, subsampling=number % 3),
            jpeg(image, subsampling=(number + 1) % 3, quality=95),
            images.png(image),
            jpeg(image.convert("L")),
            sideways(image),
        ]
        file = root / "train" / ("ant", "bee")[number % 2] / f"{number:02}.img"
        file = file.with_suffix(".png" if number % 5 == 2 else ".jpg")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(kinds[number % 5])
    images.write_folder(root / "test", {"ant": 2, "bee": 2})
    return root


@pytest.fixture
def index(mixed: Path) -> Index:
    return open_index(str(mixed), lambda message: None).train


def photographs(
    index: Index, decode: Decode, *, part: slice = slice(None), cuts: bool | None = None, **how: object
) -> Photographs:
    values, vectors = torch.tensor([0.2, 0.1, 0.05], dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    own = CropColour(32, SIDES, torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0)), values, vectors)
    return Photographs(index, own, Order(0, 6, part), Reading(**{"workers": 0, **how}), CPU, decode, cuts)


def batches(source: Photographs, *steps: int) -> list[tuple[Tensor, ...]]:
    try:
        return [(*source.raw(step), *source.batch(step)) for step in steps]
    finally:
        source.close()


def same(got: list[tuple[Tensor, ...]], expected: list[tuple[Tensor, ...]]) -> bool:
    return all(
        torch.equal(a, b) for one, other in zip(got, expected, strict=True) for a, b in zip(one, other, strict=True)
    )


@pytest.mark.long
def test_uncut_batches_become_those_of_the_processor(index: Index, monkeypatch: pytest.MonkeyPatch):
    """The GPU's code with the processor's decoder: the same bits, over the end of an epoch, with workers or without."""
    expected = batches(photographs(index, "cpu"), 0, 1, 2, 3)
    assert same(batches(photographs(index, "gpu"), 0, 1, 2, 3), expected)
    assert same(batches(photographs(index, "gpu", workers=2), 0, 1, 2, 3), expected)
    assert same(batches(photographs(index, "cpu", cuts=True, workers=2), 0, 1, 2, 3), expected)
    crops, _, _, pictures, _ = expected[0]
    assert crops.dtype == torch.uint8 and crops.is_contiguous(memory_format=torch.channels_last)
    assert pictures.dtype == torch.float32 and pictures.is_contiguous(memory_format=torch.channels_last)
    monkeypatch.setattr(uncut, "TOGETHER", 9000)  # two pictures at a time, or one
    assert same(batches(photographs(index, "gpu"), 0, 1), expected[:2])


def test_a_run_goes_on_in_the_middle_of_an_epoch_and_ranks_share_it(index: Index):
    """Step 2 asked for at once, and a batch in halves."""
    expected = batches(photographs(index, "gpu"), 0, 1, 2)
    assert same(batches(photographs(index, "gpu"), 2), expected[2:])
    halves = [batches(photographs(index, "gpu", part=part), 1)[0] for part in (slice(0, 3), slice(3, 6))]
    assert same([tuple(map(torch.cat, zip(*halves, strict=True)))], expected[1:2])


@pytest.mark.parametrize("decode", ["cpu", "gpu"])
def test_the_newest_batch_is_read_once(index: Index, decode: Decode, monkeypatch: pytest.MonkeyPatch):
    """A step that is captured asks for its batch twice."""
    read, encoded = list[int](), Index.encoded
    monkeypatch.setattr(Index, "encoded", lambda own, place: read.append(place) or encoded(own, place))
    source = photographs(index, decode)
    first = source.raw(3)
    assert all(torch.equal(own, again) for own, again in zip(first, source.raw(3), strict=True)) and len(read) == 6
    source.raw(4)
    assert len(read) == 12 and all(map(torch.equal, source.raw(3), first)) and len(read) == 18


def test_a_batch_that_the_gpu_does_not_decode_is_the_processors(index: Index, monkeypatch: pytest.MonkeyPatch):
    """Every second batch fails; this is told once."""
    calls, told, decode = list[int](), list[str](), uncut._decode

    def failing(files: list[Tensor], device: torch.device) -> list[Tensor]:
        calls.append(len(files))
        if len(calls) % 2:
            raise DecodingError("status 5")
        return decode(files, device)

    monkeypatch.setattr(uncut, "_decode", failing)
    source = photographs(index, "gpu", say=told.append)
    got = [source.raw(step) for step in range(4)]
    expected = photographs(index, "cpu")
    assert same(got, [expected.raw(step) for step in range(4)])
    assert len(calls) == 4 and len(told) == 1 and "status 5" in told[0]


def test_a_damaged_jpeg_is_named_or_skipped_as_ever(index: Index, mixed: Path, tmp_path: Path):
    """A file that ends as it should but has no picture in it: both decoders refuse it."""
    root = tmp_path / "damaged"
    for file in mixed.rglob("*.*"):
        copy = root / file.relative_to(mixed)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    bad = root / "train" / "ant" / "00.jpg"
    whole = bad.read_bytes()
    bad.write_bytes(whole[: whole.index(b"\xff\xda")] + uncut.END)  # the head alone
    damaged = open_index(str(root), lambda message: None).train
    with pytest.raises(InputError, match=r"ant/00\.jpg does not decode"):
        batches(photographs(damaged, "gpu"), 0, 1, 2)
    skipped = [batches(photographs(damaged, decode, skip_bad=True), 0, 1, 2) for decode in ("cpu", "gpu")]
    assert same(*skipped)


class Recorder:
    """Stands for `torch.cuda` and writes down what is asked of it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.device = CPU

    def Stream(self, device: torch.device) -> "Recorder":  # noqa: N802
        return self

    def current_stream(self, device: torch.device) -> "Recorder":
        return self

    def wait_stream(self, other: "Recorder") -> None:
        self.asked.append("wait for the batch")

    def Event(self, blocking: bool) -> "Recorded":  # noqa: N802
        return Recorded(self)

    def stream(self, own: "Recorder") -> "Recorder":
        return self

    def __enter__(self) -> None:
        self.asked.append("beside")

    def __exit__(self, *error: object) -> None:
        self.asked.append("behind")


class Recorded:
    def __init__(self, recorder: Recorder):
        self.asked, self.number = recorder.asked, 0

    def record(self, stream: Recorder) -> None:
        self.number = self.asked.count("made")
        self.asked.append(f"mark {self.number}")

    def synchronize(self) -> None:
        self.asked.append(f"done {self.number}")


class Given:
    """Stands for a tensor on a GPU."""

    def __init__(self, asked: list[str]):
        self.asked = asked

    def record_stream(self, stream: Recorder) -> None:
        self.asked.append("keep")


def test_the_processor_stays_two_steps_before_a_gpu(monkeypatch: pytest.MonkeyPatch):
    """A batch is made beside the steps, which wait for it and keep its memory; the third last step is waited for."""
    cuda = Recorder()
    monkeypatch.setattr(ahead.torch, "cuda", cuda)
    own = ahead.Ahead(torch.device("cuda"))
    for _ in range(4):
        own.made(lambda: cuda.asked.append("made") or (Given(cuda.asked),))
    sent = ["beside", "made", "behind", "wait for the batch", "keep"]
    third, fourth = ["mark 2", "done 0", *sent], ["mark 3", "done 1", *sent]
    assert cuda.asked == ["mark 0", *sent, "mark 1", *sent, *third, *fourth]


def test_batches_arrive_in_one_piece_of_pinned_memory(monkeypatch: pytest.MonkeyPatch):
    """Plain memory stands for it. Every tensor is a view of the one piece, with its strides."""
    asked, empty = list[bool](), torch.empty

    def plain(*shape: int, pin_memory: bool = False, **how: object) -> Tensor:
        asked.append(pin_memory)
        return empty(*shape, **how)

    ours, theirs = multiprocessing.Pipe()
    sent = (
        torch.arange(120, dtype=torch.uint8).view(2, 4, 5, 3).permute(0, 3, 1, 2),
        torch.rand(3, 2),
        torch.zeros(0, 4),
    )
    transport.send(theirs, sent)
    monkeypatch.setattr(transport.torch, "empty", plain)
    got = transport.receive(ours, pinned=True)
    assert asked.count(True) == 1
    assert all(torch.equal(a, b) and a.stride() == b.stride() for a, b in zip(got, sent, strict=True))
    assert got[0].untyped_storage().data_ptr() == got[1].untyped_storage().data_ptr()


def test_a_gpu_that_is_not_there_is_told(mixed: Path, refused: Callable[..., str]):
    """Before the statistics are made; and whole images have no such choice."""
    small = ("--set", "crop=32", "--set", "sides=36,64", "--iterations", 2, "--batch-size", 4)
    line = refused("train", "resnet18", "--data", mixed, "--device", "cpu", "--set", "decode=gpu", *small)
    assert "decode=gpu needs a GPU" in line and "--set decode=cpu" in line
    line = refused("train", "resnet20", "--data", mixed, "--image-size", 32, "--set", "decode=gpu")
    assert "decode is 'gpu', but must be cpu where no crops are taken" in line


def test_an_augmentation_of_no_colour_leaves_the_mean_alone(index: Index):
    """What `ready` does to a batch is the mean image and the shift, on any device."""
    source = photographs(index, "cpu")
    crops, shift, labels = source.raw(0)
    pictures, again = source.ready((crops, torch.zeros_like(shift), labels))
    shifted, _ = source.ready((crops, shift, labels))
    assert torch.equal(again, labels)
    assert torch.allclose((shifted - pictures), shift[:, :, None, None].expand_as(pictures), atol=1e-6)
