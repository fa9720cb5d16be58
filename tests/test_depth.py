"""More than eight bits a channel: brought to eight by the range that the file declares or shows."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from deepres import build
from deepres.data.crops import whole
from deepres.data.rgb import fault, is_gray, open_picture, upright
from deepres.data.sources import load_data_set
from deepres.weights.file import serialise

SMALL = np.arange(16).reshape(4, 4)
COLOUR = np.stack([SMALL, SMALL[::-1], SMALL.T], -1)


def gray(values, dtype, kind="TIFF", **options):
    file = io.BytesIO()
    Image.fromarray(values.astype(dtype)).save(file, kind, **options)
    return file.getvalue()


def png(values):
    """A PNG of 16 bits a channel: 1 (gray), 2 (with alpha), 3 (RGB) or 4 channels, which Pillow does not write."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    made = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(made)


def tiff(values, *tags, order="<", photometric=2):
    """An uncompressed TIFF of one strip, with (tag, type, value) beside: of what Pillow reads and does not write."""
    height, width, channels = values.shape
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    bits = 8 * values.itemsize
    entries = [(256, 4, width), (257, 4, height), (259, 3, 1), (262, 3, photometric), (273, 4, 8), (277, 3, channels)]
    entries += [(278, 4, height), (279, 4, len(data)), *tags]
    kinds = {3: "H", 4: "I", 8: "h", 9: "i", 11: "f"}
    first = 8 + len(data) + len(data) % 2
    fields = {
        number: (kind, 1, struct.pack(order + kinds[kind], value).ljust(4, b"\0")) for number, kind, value in entries
    }
    depths = struct.pack(order + "H" * channels, *[bits] * channels)
    end = first + 2 + 12 * (len(fields) + 1) + 4
    fields[258] = (3, channels, depths.ljust(4, b"\0") if len(depths) <= 4 else struct.pack(order + "I", end))
    table = b"".join(
        struct.pack(order + "HHI", number, *fields[number][:2]) + fields[number][2] for number in sorted(fields)
    )
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, first)
    return head + data + b"\0" * (len(data) % 2) + struct.pack(order + "H", len(fields)) + table + b"\0" * 4 + depths


def seen(content):
    """The pixels as uint8 (H, W, 3)."""
    return whole(content).permute(1, 2, 0).numpy()


@pytest.mark.parametrize(("bits", "factor"), [(8, 17), (10, 68), (12, 273), (14, 1092), (16, 4369)])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "LZW", "PGM", "int32", "uint32", "big-endian", "signed"])
def test_gray_values_of_an_instrument_fill_the_eight_bits(bits, factor, kind):
    """From 0 to the largest of so many bits, in 16 or 32: what comes out is 0, 17, ..., 255."""
    values = SMALL * factor
    content = {
        "PNG": lambda: gray(values, np.uint16, "PNG"),
        "TIFF": lambda: gray(values, np.uint16),
        "LZW": lambda: gray(values, np.uint16, compression="tiff_lzw"),
        "PGM": lambda: gray(values, np.uint16, "PPM"),
        "int32": lambda: gray(values, np.int32),
        "uint32": lambda: tiff(values.astype(np.uint32)[..., None], photometric=1),
        "big-endian": lambda: tiff(values.astype(np.uint16)[..., None], order=">", photometric=1),
        "signed": lambda: tiff((values // 2).astype(np.int16)[..., None], (339, 3, 2), photometric=1),
    }[kind]()
    wanted = SMALL * 17 // (2 if kind == "signed" else 1)  # one bit is the sign's
    assert (seen(content) == wanted[..., None]).all()
    with open_picture(content) as image:
        assert is_gray(image) and upright(image).mode == "L"


@pytest.mark.parametrize(("bits", "factor"), [(8, 17), (10, 68), (12, 273), (14, 1092), (16, 4369)])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "big-endian", "PPM"])
def test_colours_of_an_instrument_fill_the_eight_bits(bits, factor, kind):
    """Of 48 bits a pixel Pillow keeps the upper byte of each channel: of 12 bits, black."""
    values = (COLOUR * factor).astype(np.uint16)
    content = {
        "PNG": lambda: png(values),
        "TIFF": lambda: tiff(values),
        "big-endian": lambda: tiff(values, order=">"),
        "PPM": lambda: b"P6 4 4 65535\n" + values.astype(">u2").tobytes(),
    }[kind]()
    assert (seen(content) == COLOUR * 17).all()


def test_colours_in_a_compressed_tiff_and_a_file_on_disk_are_read_alike(tmp_path):
    values = (COLOUR * 273).astype(np.uint16)
    (tmp_path / "plain.tif").write_bytes(tiff(values))
    assert (np.asarray(upright(open_picture(tmp_path / "plain.tif"))) == COLOUR * 17).all()
    packed = zlib.compress(values.tobytes())
    content = bytearray(tiff(np.frombuffer(packed.ljust(96, b"\0"), np.uint16).reshape(4, 4, 3)))
    place = content.index(struct.pack("<HHI", 259, 3, 1))
    content[place + 8] = 8  # deflate
    assert (seen(bytes(content)) == COLOUR * 17).all()
    inks = np.concatenate([COLOUR, SMALL[..., None] * 0], -1)
    eight = tiff((inks * 17).astype(np.uint8), photometric=5)
    assert (seen(tiff((inks * 273).astype(np.uint16), photometric=5)) == seen(eight)).all()


def test_transparency_has_a_range_of_its_own():
    """Opaque, half, and not at all, over white; colours of 12 bits."""
    for alpha, wanted in ((65535, COLOUR * 17), (4095, COLOUR * 17), (0, np.full((4, 4, 3), 255))):
        with_alpha = np.concatenate([COLOUR * 273, np.full((4, 4, 1), alpha)], -1)
        assert (seen(png(with_alpha)) == wanted).all()
        if alpha:
            assert (seen(tiff(with_alpha.astype(np.uint16), (338, 3, 2))) == wanted).all()
        two = np.concatenate([SMALL[..., None] * 273, np.full((4, 4, 1), alpha)], -1)
        assert (seen(png(two)) == (SMALL[..., None] * 17 if alpha else 255)).all()


def test_what_the_file_declares_goes_before_what_it_shows():
    """Dark pictures of 12 bits stay dark beside their siblings."""
    dark = np.full((4, 4), 300)
    assert seen(gray(dark, np.uint16)).max() == 300 >> 2  # it shows 10 bits
    assert seen(gray(dark, np.uint16, tiffinfo={281: 4095})).max() == 300 >> 4
    assert seen(gray(dark, np.uint16, tiffinfo={281: 65535})).max() == 300 >> 8
    assert seen(gray(dark, np.int32, tiffinfo={341: 2**24 - 1})).max() == 0
    assert seen(gray(dark * 2**15, np.int32, tiffinfo={341: 2**24 - 1})).max() == 300 >> 1
    assert seen(gray(dark, np.uint16, tiffinfo={281: 255})).max() == 300 >> 2  # which is not true
    assert seen(tiff(np.full((4, 4, 3), 300, np.uint16), (281, 3, 4095))).max() == 300 >> 4
    assert seen(b"P5 4 4 4095\n" + dark.astype(">u2").tobytes()).max() == round(300 / 4095 * 65535) >> 8
    packed = tiff(np.frombuffer(b"\x12\xc1\x2c" * 8 + b"\0" * 8, np.uint16).reshape(4, 4, 1), photometric=1)
    packed = packed.replace(struct.pack("<HHIH", 258, 3, 1, 16), struct.pack("<HHIH", 258, 3, 1, 12))
    assert np.unique(seen(packed)).tolist() == [300 >> 4]  # 12 bits a value, two in three bytes


def test_values_with_a_sign_and_floating_point_take_a_declared_range():
    signed, floats = SMALL * 100 - 1024, (SMALL / 15).astype(np.float32)
    declared = tiff(signed.astype(np.int16)[..., None], (339, 3, 2), (340, 8, -1024), (341, 8, 1023), photometric=1)
    assert (seen(declared)[..., 0] == (SMALL * 100) >> 3).all()
    assert (
        seen(gray(floats, np.float32, tiffinfo={340: 0.0, 341: 1.0}))[..., 0] == np.minimum(SMALL * 256 // 15, 255)
    ).all()
    plain = tiff(signed.astype(np.int16)[..., None], (339, 3, 2), photometric=1)
    broken = gray(np.full((4, 4), np.nan), np.float32, tiffinfo={340: 0.0, 341: 1.0})
    for content, words in (
        (plain, "from -1024 to 476"),
        (gray(floats, np.float32), "floating point"),
        (broken, "floating point"),
    ):
        with pytest.raises(ValueError) as caught:
            whole(content)
        assert words in fault(caught.value) and "340" in fault(caught.value)


def test_what_counts_from_white_to_black_is_turned():
    """As X-rays are stored; Pillow does so for eight bits alone."""
    eight = tiff((SMALL * 17).astype(np.uint8)[..., None], photometric=0)
    twelve = tiff((SMALL * 273).astype(np.uint16)[..., None], photometric=0)
    assert (seen(eight) == 255 - SMALL[..., None] * 17).all() and (seen(twelve) == seen(eight)).all()


def test_values_of_32_bits_without_a_range_are_refused_and_large_ones_have_no_sign():
    values = np.full((4, 4, 1), 4_000_000_000, np.uint32)
    with pytest.raises(ValueError, match="to 4000000000, beyond 16 bits"):
        whole(tiff(values, photometric=1))
    assert seen(tiff(values, (341, 4, 2**32 - 1), photometric=1)).max() == 4_000_000_000 >> 24


def test_a_folder_and_predictions_see_twelve_bits_as_eight(deepres, tmp_path):
    """The resident set, and the scores of `deepres predict`, are those of the same pictures in eight bits."""
    generator = np.random.default_rng(0)
    for part in ("train", "test"):
        for label in ("ant", "bee"):
            for folder in ("twelve", "eight"):
                (tmp_path / folder / part / label).mkdir(parents=True)
            for number in range(2):
                values = generator.integers(0, 4096, (32, 32))
                values[0, 0] = 4095
                (tmp_path / "twelve" / part / label / f"{number}.png").write_bytes(gray(values, np.uint16, "PNG"))
                (tmp_path / "eight" / part / label / f"{number}.png").write_bytes(gray(values >> 4, np.uint8, "PNG"))
    twelve, eight = (load_data_set(str(tmp_path / name)) for name in ("twelve", "eight"))
    assert twelve.train.images.equal(eight.train.images) and twelve.test.images.float().mean() > 100
    torch.manual_seed(0)
    net = build("resnet8", 2)
    header = {"network": "resnet8", "classes": ["ant", "bee"]}
    (tmp_path / "net.safetensors").write_bytes(serialise(net.state_dict(), torch.full((3, 1, 1), 0.5), header))
    found = [deepres("predict", "net.safetensors", name, "--format", "csv") for name in ("twelve", "eight")]
    assert found[0].returncode == 0 and found[0].stdout.replace("twelve", "eight") == found[1].stdout
