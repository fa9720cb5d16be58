"""Pictures of every mode become RGB the same way, and what may not be decoded is refused with its reason."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import images
from deepres.data.crops import whole
from deepres.data.rgb import fault, is_gray, open_picture, seen_size, upright
from deepres.data.sources import load_data_set
from deepres.runtime.errors import InputError


def encoded(image: Image.Image, kind: str = "PNG", **how: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **how)
    return stream.getvalue()


def flat(*colour: int) -> Tensor:
    """What a picture of one colour decodes to."""
    return torch.tensor(colour, dtype=torch.uint8)[:, None, None].expand(3, 8, 8)


def clear(mode: str, colour: object) -> Image.Image:
    return Image.new(mode, (8, 8), colour)


def palette(transparency: int | None) -> bytes:
    image = clear("P", 1)
    image.putpalette([0, 0, 0, 200, 10, 20])
    return encoded(image, **({} if transparency is None else {"transparency": transparency}))


PICTURES = {
    "colour": (encoded(clear("RGB", (200, 10, 20))), (200, 10, 20)),
    "gray": (encoded(clear("L", 77)), (77, 77, 77)),
    "black and white": (encoded(clear("1", 1)), (255, 255, 255)),
    "palette": (palette(None), (200, 10, 20)),
    "transparent palette": (palette(1), (255, 255, 255)),
    "opaque": (encoded(clear("RGBA", (200, 10, 20, 255))), (200, 10, 20)),
    "transparent": (encoded(clear("RGBA", (200, 10, 20, 0))), (255, 255, 255)),
    "half transparent": (encoded(clear("RGBA", (0, 0, 0, 51))), (204, 204, 204)),
    "gray with transparency": (encoded(clear("LA", (0, 51))), (204, 204, 204)),
    "a transparent colour": (encoded(clear("RGB", (200, 10, 20)), transparency=(200, 10, 20)), (255, 255, 255)),
    "16 bits PNG": (encoded(clear("I;16", 0x4DFF)), (77, 77, 77)),
    "16 bits TIFF": (encoded(clear("I;16", 0x4DFF), "TIFF"), (77, 77, 77)),
    "16 bits PGM": (encoded(clear("I;16", 0x4DFF), "PPM"), (77, 77, 77)),
    "CMYK TIFF": (encoded(clear("CMYK", (55, 245, 235, 0)), "TIFF"), (200, 10, 20)),
    "WebP": (encoded(clear("RGB", (200, 10, 20)), "WEBP", lossless=True), (200, 10, 20)),
}


@pytest.mark.parametrize("name", PICTURES)
def test_every_mode_becomes_rgb(name: str):
    """Transparency shows white, the upper eight of sixteen bits count."""
    content, colour = PICTURES[name]
    assert torch.equal(whole(content), flat(*colour))


def test_a_cmyk_jpeg_keeps_its_colours():
    """As printers' programs write it; JPEG loses a little."""
    got = whole(encoded(clear("CMYK", (55, 245, 235, 0)), "JPEG", quality=100)).int()
    assert (got - flat(200, 10, 20).int()).abs().max() <= 3


def test_the_resident_path_decodes_alike(tmp_path: Path):
    """`load` and `whole` give the same pixels for every mode."""
    for number, (content, _) in enumerate(PICTURES.values()):
        file = tmp_path / "set" / ("test" if number % 5 == 4 else "train") / "a" / f"{number:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    data = load_data_set(str(tmp_path / "set"))
    expected = [flat(*colour) for _, colour in PICTURES.values()]
    assert torch.equal(data.train.images, torch.stack([e for n, e in enumerate(expected) if n % 5 != 4]))
    assert torch.equal(data.test.images, torch.stack(expected[4::5]))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_eight_orientations_come_out_upright(kind: str, orientation: int):
    """A bright quarter, left of the upper half as seen, from wherever the camera stored it."""
    seen = np.zeros((16, 32), dtype=np.uint8)
    seen[:8, :16] = 255
    seen[:8, 16:] = 100
    stored = {
        1: seen,
        2: seen[:, ::-1],
        3: seen[::-1, ::-1],
        4: seen[::-1],
        5: seen.T,
        6: np.rot90(seen),
        7: seen[::-1, ::-1].T,
        8: np.rot90(seen, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(np.ascontiguousarray(stored)).convert("RGB"), kind, exif=exif)
    with open_picture(content) as image:
        assert seen_size(image) == (32, 16)
        got = np.asarray(upright(image).convert("L")).astype(int)
    assert np.abs(got - seen).max() <= 40 and np.abs(got - seen).mean() < 3


def test_a_damaged_head_of_a_camera_does_not_make_a_picture_bad():
    """The pixels are whole; the orientation counts as upright. Pillow says what it found."""
    good = encoded(images.picture(0), "JPEG")
    damaged = encoded(images.picture(0), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    with pytest.warns(UserWarning, match="Corrupt EXIF"):
        assert torch.equal(whole(damaged), whole(good))


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(monkeypatch):
    """A few kilobytes that would become 100 million pixels; the limit can be set."""
    bomb = encoded(Image.new("1", (10_000, 8_000)))
    assert len(bomb) < 20_000
    with pytest.raises(ValueError, match="10000x8000 are more than the limit of 67,108,864 pixels"):
        whole(bomb)
    small = encoded(images.picture(0))
    monkeypatch.setenv("DEEPRES_MAX_PIXELS", "64")
    assert whole(small).shape == (3, 8, 8)
    monkeypatch.setenv("DEEPRES_MAX_PIXELS", "63")
    with pytest.raises(ValueError, match="limit of 63 pixels"):
        whole(small)
    monkeypatch.setenv("DEEPRES_MAX_PIXELS", "many")
    with pytest.raises(InputError, match="DEEPRES_MAX_PIXELS is 'many'"):
        whole(small)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no picture", "it is not a picture"),
        (encoded(images.picture(0, (64, 64)), "JPEG")[:900], "truncated"),
        (encoded(Image.fromarray(np.full((8, 8), 0.5, dtype=np.float32)), "TIFF"), "floating point"),
        (encoded(Image.fromarray(np.full((8, 8), 70_000, dtype=np.int32)), "TIFF"), "beyond 16 bits"),
    ],
)
def test_what_does_not_decode_says_why(content: bytes, reason: str):
    """Not a picture, cut short, and values without a range."""
    with pytest.raises(Exception) as caught:
        whole(content)
    assert reason in fault(caught.value)


def test_gray_is_told_from_the_head():
    """What decides whether a resident set has one channel."""
    for name, (content, _) in PICTURES.items():
        with open_picture(content) as image:
            assert is_gray(image) == (upright(image).mode == "L") == (name[:6] in ("gray", "black ", "16 bit")), name
