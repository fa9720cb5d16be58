"""The augmentation of Sec. 3.4 as pure functions of encoded bytes and draws."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torch import Tensor

import images
from deepres.data.crops import center_crop, colour_shift, finish, pca_colour, scale_crop_flip, whole


def photograph(size: tuple[int, int]) -> Image.Image:
    """Smooth noise, which keeps its look when it is resized."""
    return images.picture(0, size).filter(ImageFilter.GaussianBlur(3))


def encoded(image: Image.Image, kind: str = "PNG", **how: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **how)
    return stream.getvalue()


def tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def two_steps(image: Image.Image, size: tuple[int, int], corner: tuple[int, int], crop: int) -> Tensor:
    """The whole picture resized, then cut."""
    column, row = corner
    return tensor(image.resize(size, Image.Resampling.BILINEAR))[:, row : row + crop, column : column + crop]


def difference(a: Tensor, b: Tensor) -> float:
    return (a.int() - b.int()).abs().max().item()


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (300, 700), (64, 64), (480, 480)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_one_resampling_equals_resizing_the_whole_and_cutting(size: tuple[int, int], kind: str):
    """Larger and smaller than drawn, upright and wide; to a level of rounding."""
    content = encoded(photograph(size), kind)
    source = Image.open(io.BytesIO(content))
    scaled = tuple(300 * length // min(size) for length in size)
    draws = (44.5 / 225, 0.3, 0.9, 0.7)
    corner = (int(0.9 * (scaled[0] - 223)), int(0.3 * (scaled[1] - 223)))
    got = scale_crop_flip(content, draws)
    assert difference(got, two_steps(source, scaled, corner, 224)) <= 1
    flipped = scale_crop_flip(content, (*draws[:3], 0.2))
    assert torch.equal(flipped, got.flip(2))


def test_a_jpeg_of_twice_the_size_is_decoded_at_a_half(monkeypatch: pytest.MonkeyPatch):
    """The picture stays the same but for a few levels; the decoder gave only a quarter of the pixels."""
    image = photograph((1210, 905))
    content = encoded(image, "JPEG", quality=95)
    decoded: list[tuple[int, int]] = []
    resize = Image.Image.resize
    monkeypatch.setattr(Image.Image, "resize", lambda own, *a, **k: decoded.append(own.size) or resize(own, *a, **k))
    got = scale_crop_flip(content, (0.0, 0.5, 0.5, 0.9))
    assert decoded == [(605, 453)]
    scaled = (256 * 1210 // 905, 256)
    reference = two_steps(image, scaled, (int(0.5 * (scaled[0] - 223)), int(0.5 * 33)), 224)
    assert (got.int() - reference.int()).abs().float().mean() < 2


def test_draws_reach_both_ends_of_scale_and_place():
    """256 and 480, and the crop at the four corners: a ramp tells where it was cut."""
    ramp = np.add.outer(np.arange(480) * 0.2, np.arange(480) * 0.25).clip(0, 255)
    image = Image.fromarray(np.repeat(ramp[..., None], 3, 2).round().astype(np.uint8))
    content = encoded(image)
    almost = 1 - 2**-24
    for share, side in ((0.0, 256), (almost, 480)):
        for row, down in ((0.0, 0), (almost, side - 224)):
            for column, across in ((0.0, 0), (almost, side - 224)):
                got = scale_crop_flip(content, (share, row, column, almost))
                assert difference(got, two_steps(image, (side, side), (across, down), 224)) <= 1


def test_the_scale_is_a_whole_number_of_the_range_and_the_flip_mirrors():
    """A picture of one bright column tells the scale by its width; 9 sides of 8 to 16."""
    pixels = np.zeros((160, 160, 3), dtype=np.uint8)
    pixels[:, :80] = 255
    content = encoded(Image.fromarray(pixels))
    draws = torch.rand(900, 4, generator=torch.Generator().manual_seed(0)).tolist()
    sides = [8 + int(draw[0] * 9) for draw in draws]
    bright = [scale_crop_flip(content, (*draw[:2], 0.0, draw[3]), crop=8, sides=(8, 16)) for draw in draws]
    assert set(sides) == set(range(8, 17))
    for side, draw, view in zip(sides, draws, bright, strict=True):
        row = view[0, 0].flip(0) if draw[3] < 0.5 else view[0, 0]
        assert (row > 127).sum().item() in (side // 2, (side + 1) // 2)


@pytest.mark.parametrize("mode", ["L", "RGBA", "RGB"])
def test_an_orientation_and_a_mode_change_nothing_but_the_picture(mode: str):
    """A camera held sideways: the same view as of the picture turned beforehand."""
    image = photograph((120, 90)).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    sideways, turned = encoded(image, exif=exif), encoded(image.transpose(Image.Transpose.ROTATE_270))
    draws = (0.5, 0.2, 0.8, 0.7)
    assert torch.equal(*(scale_crop_flip(content, draws, crop=64, sides=(64, 128)) for content in (sideways, turned)))
    assert torch.equal(*(center_crop(content, crop=56, side=64) for content in (sideways, turned)))
    assert torch.equal(*(whole(content) for content in (sideways, turned)))


def test_the_centre_crop_is_the_middle_of_the_resized_picture():
    """Shorter side 256 of 500x375 is 341x256."""
    image = photograph((500, 375))
    assert difference(center_crop(encoded(image)), two_steps(image, (341, 256), (58, 16), 224)) <= 1


def test_colours_shift_along_the_axes_by_their_variances():
    """10,000 shifts: standard deviation 0.1 times the eigenvalue along each axis, nothing across, mean zero."""
    vectors, _ = torch.linalg.qr(torch.tensor([[1.0, 2, 3], [4, 5, 6], [7, 8, 10]], dtype=torch.float64))
    values = torch.tensor([0.15, 0.03, 0.01], dtype=torch.float64)
    normals = torch.randn(10_000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    along = pca_colour(normals, values, vectors) @ vectors
    assert torch.allclose(along, 0.1 * normals * values)


def test_a_batch_is_scaled_centred_and_shifted_by_one_colour_a_picture():
    """float32, channels-last; with sigma 0 only the mean image is subtracted; draws of 0 stay finite."""
    pixels = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    mean = torch.rand(3, 8, 8)
    values, vectors = torch.tensor([0.2, 0.1, 0.05], dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    draws = torch.rand(5, 7)
    draws[0] = 0
    plain = finish(pixels, colour_shift(draws, values=values, vectors=vectors, sigma=0), mean)
    assert torch.equal(plain, pixels.float() / 255 - mean)
    assert plain.dtype == torch.float32 and plain.is_contiguous(memory_format=torch.channels_last)
    shift = finish(pixels, colour_shift(draws, values=values, vectors=vectors), mean) - plain
    assert shift.isfinite().all() and (shift.amax((2, 3)) - shift.amin((2, 3))).max() < 1e-5
    expected = 0.1 * torch.special.ndtri(draws[1:, 4:].double()) * values
    assert torch.allclose(shift[1:, :, 0, 0].double(), expected, atol=1e-6)


def test_real_photographs_fill_the_crop(real_data: Path):
    """128x128 JPEG brought to 256 and more: every draw gives a whole picture."""
    files = sorted((real_data / "flowers" / "test" / "rose").glob("*.jpg"))[:8]
    generator = torch.Generator().manual_seed(0)
    for file in files:
        view = scale_crop_flip(file.read_bytes(), torch.rand(7, generator=generator).tolist())
        assert view.shape == (3, 224, 224) and view.dtype == torch.uint8 and view.float().std() > 5


def test_colours_are_shifted_on_a_device_without_float64():
    """Their draws and axes stay on the processor; what goes to the device is float32."""
    pictures = torch.zeros(2, 3, 8, 8, dtype=torch.uint8, device="meta")
    axes = {"values": torch.ones(3, dtype=torch.float64), "vectors": torch.eye(3, dtype=torch.float64)}
    shift = colour_shift(torch.rand(2, 7), **axes)
    made = finish(pictures, shift.to("meta"), torch.zeros(3, 8, 8, device="meta"))
    assert shift.dtype == torch.float32
    assert (made.device.type, made.dtype, made.shape) == ("meta", torch.float32, (2, 3, 8, 8))
