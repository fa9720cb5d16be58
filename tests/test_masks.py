"""Masks as run lengths: exactly those of pycocotools, whatever they are made from."""

import json

import numpy as np
import pytest
import torch
from pycocotools import mask as coco

from deepres.data.boxes.outlines import MOST_NUMBERS, Polygons, Runs, numbered_masks, rasterised, turned_mask
from deepres.runtime.masks import (
    Masks,
    checked,
    decoded,
    encoded,
    mask_areas,
    mask_boxes,
    mask_overlaps,
    mask_shares,
    mirrored,
    run_lengths,
)
from random_masks import SIZE, maps


@pytest.fixture
def random():
    return np.random.default_rng(0)


def rles_of(own):
    return coco.encode(np.asfortranarray(own.numpy().transpose(1, 2, 0)))


# --- run lengths ---


def test_masks_are_encoded_as_pycocotools_does_and_decoded_to_the_same_pixels(random):
    own = maps(random, 40)
    masks = encoded(own)
    assert masks.rles() == rles_of(own)
    assert torch.equal(decoded(masks), own)
    assert torch.equal(mask_areas(masks), own.sum((1, 2)))


def test_overlaps_and_boxes_are_those_of_pycocotools(random):
    ones, others = maps(random, 12), maps(random, 9)
    expected = [coco.iou(rles_of(ones), rles_of(others), [crowd] * 9) for crowd in (0, 1)]
    assert np.allclose(mask_overlaps(encoded(ones), encoded(others)), np.nan_to_num(expected[0]), atol=1e-12)
    assert np.allclose(mask_shares(encoded(ones), encoded(others)), np.nan_to_num(expected[1]), atol=1e-12)
    boxes = coco.toBbox(rles_of(ones))
    boxes[:, 2:] += boxes[:, :2]
    assert np.array_equal(mask_boxes(encoded(ones)), boxes)


def test_some_of_the_masks_are_the_same_masks_and_those_not_known_have_no_pixels(random):
    own = maps(random, 6)
    masks = encoded(own)
    masks = Masks.of([text if place != 2 else b"" for place, text in enumerate(masks.texts)], [SIZE] * 6)
    own[2] = 0
    assert masks.known.tolist() == [True, True, False, True, True, True]
    for some in (slice(1, 4), slice(0, 0), slice(3, 3), slice(2, 6), torch.tensor([5, 2, 2, 0]), own.sum((1, 2)) > 90):
        assert torch.equal(decoded(masks[some]), own[some]) if len(masks[some]) else not len(own[some])
    assert mask_overlaps(masks, masks)[2].tolist() == [0] * 6
    assert mask_areas(masks)[2] == 0
    assert mirrored(masks).known.tolist() == masks.known.tolist()
    assert torch.equal(decoded(mirrored(masks)), own.flip(2))
    assert Masks.joined([masks[:2], masks[2:2], masks[2:]]).texts == masks.texts


def test_compressed_run_lengths_are_read_as_they_were_written(random):
    for own in (*maps(random, 20, (300, 400)), torch.zeros(30, 20).byte(), torch.ones(30, 20).byte()):
        pixels = own.numpy().ravel("F")
        changes = np.flatnonzero(np.diff(pixels, prepend=0)).tolist()
        lengths = np.diff([0, *changes, len(pixels)]).tolist()
        assert run_lengths(encoded(own[None]).texts[0]).tolist() == lengths


@pytest.mark.parametrize("text", [b"", b"P", b"\x00", b"0\xff", b"oooooooooo0", b"PPPPPPPPPPPP0"])
def test_text_that_is_no_run_lengths_is_refused(text):
    with pytest.raises(ValueError, match="a mask has"):
        run_lengths(text)


def test_masks_of_others_that_do_not_fit_their_pictures_are_refused(random):
    own = encoded(maps(random, 3))
    assert checked(own, 3) is own
    wrong = [
        Masks(own.text, own.ends, own.sizes + 1),
        Masks(own.text, own.ends.flip(0), own.sizes),
        Masks(own.text[:-1], own.ends, own.sizes),
        Masks(own.text.long(), own.ends, own.sizes),
        Masks(own.text, own.ends, own.sizes[:2]),
        Masks(torch.full_like(own.text, 255), own.ends, own.sizes),
    ]
    for one in wrong:
        with pytest.raises(ValueError, match="mask"):
            checked(one, 3)


# --- outlines ---


def polygons(*rings):
    return Polygons([np.array(ring, np.float64) for ring in rings])


def test_polygons_cover_the_pixels_that_coco_gives_them(random):
    """Also those with crossing lines, of several rings, and with corners outside of the picture."""
    height, width = SIZE
    for case in range(200):
        rings = [
            (random.random((int(random.integers(3, 9)), 2)) * (width, height) * 1.2 - 5).round(case % 3).ravel()
            for _ in range(1 + case % 3)
        ]
        parts = coco.frPyObjects([ring.tolist() for ring in rings], height, width)
        assert rasterised(polygons(*rings), SIZE) == coco.merge(parts)["counts"]


def test_run_lengths_give_the_same_mask_as_numbers_and_as_text(random):
    for own in maps(random, 10):
        text = encoded(own[None]).texts[0]
        lengths = run_lengths(text).tolist()
        assert rasterised(Runs(lengths, SIZE), SIZE) == rasterised(Runs(text, SIZE), SIZE) == text


@pytest.mark.parametrize(
    ("outline", "reason"),
    [
        (polygons([1, 1, 5, 5]), "fewer than three corners"),
        (polygons(), "fewer than three corners"),
        (polygons([1, 1, 5, 5, 1, 9, 3]), "an x without a y"),
        (polygons([1, 1, np.nan, 5, 1, 9]), "far outside"),
        (polygons([1, 1, np.inf, 5, 1, 9]), "far outside"),
        (polygons([1, 1, 1e12, 5, 1, 9]), "far outside"),
        (polygons([0, 0, 80, 60, 80, 0] * 30_000), "pixels long"),
        (Runs([60 * 80], (80, 60)), "60x80 pixels, the picture 80x60"),
        (Runs([10, 20], SIZE), "make 30 pixels"),
        (Runs([2**62, 2**62, 2**70], SIZE), r"more than [\d,]+ pixels, the picture has 4,800"),
        (Runs([-1, 4801], SIZE), "negative"),
        (Runs([0] * 10_000, SIZE), "more than pixels"),
        (Runs(b"no", SIZE), "a mask has"),
    ],
)
def test_an_outline_that_makes_no_mask_is_refused_with_its_reason(outline, reason):
    with pytest.raises(ValueError, match=reason):
        rasterised(outline, SIZE)


def test_masks_of_a_stored_picture_turn_with_it(random):
    """As Pillow turns the pixels, for every EXIF orientation."""
    from PIL import Image

    from deepres.data.rgb import TURNS

    [own] = maps(random, 1)
    text = encoded(own[None]).texts[0]
    for orientation, turn in TURNS.items():
        turned = np.asarray(Image.fromarray(own.numpy()).transpose(turn))
        assert turned_mask(text, SIZE, orientation) == encoded(torch.from_numpy(turned.copy())[None]).texts[0]


def test_a_picture_of_object_numbers_has_a_mask_for_each_but_background_and_border():
    pixels = np.zeros(SIZE, np.uint8)
    pixels[5:10, 5:20], pixels[20:30, 30:50], pixels[30:32] = 3, 7, 255
    numbers, masks = numbered_masks(pixels)
    assert numbers == [3, 7]
    assert torch.equal(decoded(masks), torch.stack([torch.from_numpy(pixels == own).byte() for own in numbers]))


def test_a_picture_of_colours_or_of_a_thousand_numbers_is_no_picture_of_objects():
    with pytest.raises(ValueError, match="colours"):
        numbered_masks(np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match="more than"):
        numbered_masks(np.arange(2 * MOST_NUMBERS).reshape(2, -1))


def test_run_lengths_go_into_json_as_coco_writes_them(random):
    own = maps(random, 1)
    [rle] = encoded(own).rles()
    again = json.loads(json.dumps(rle | {"counts": rle["counts"].decode()}))
    assert coco.iou([again], rles_of(own), [0]) == 1
