"""What a mask head learns: the part of a true mask in a box, resized; and masks that follow their pictures."""

import numpy as np
import pytest
import torch
from PIL import Image

from deepres.data.boxes.truth import Truth
from deepres.detection.cut_masks import cut
from deepres.detection.scenes import Augmentation, augmented
from deepres.runtime.masks import Masks, decoded, encoded
from images import png
from random_masks import SIZE, maps

HEIGHT, WIDTH = SIZE


def boxes_in(random, count):
    """Boxes that do not end at pixels, some of which reach out of the picture."""
    corners = random.uniform(-6, 1, (count, 2)) + random.random((count, 2)) * (WIDTH - 20, HEIGHT - 20)
    sides = random.uniform(1, 40, (count, 2))
    return torch.from_numpy(np.concatenate([corners, corners + sides], 1)).float()


def test_a_cell_has_the_share_of_it_that_the_mask_covers():
    """Counted on a grid of samples, four hundred a cell."""
    random = np.random.default_rng(0)
    own, boxes, places = maps(random, 6), boxes_in(random, 20), torch.from_numpy(random.integers(0, 6, 20))
    found = cut(encoded(own), boxes, places, SIZE, 7)
    fine = (torch.arange(7 * 20) + 0.5) / (7 * 20)
    for box, place, shares in zip(boxes, places.tolist(), found, strict=True):
        columns = (box[0] + (box[2] - box[0]) * fine).floor().long()
        rows = (box[1] + (box[3] - box[1]) * fine).floor().long()
        inside = ((rows >= 0) & (rows < HEIGHT))[:, None] & ((columns >= 0) & (columns < WIDTH))
        pixels = own[place][rows.clamp(0, HEIGHT - 1)][:, columns.clamp(0, WIDTH - 1)] * inside
        sampled = pixels.float().view(7, 20, 7, 20).mean((1, 3))
        assert (shares - sampled).abs().max() < 0.06
        assert (shares - sampled).abs().mean() < 0.01


def test_a_box_on_whole_pixels_gives_these_pixels():
    own = maps(np.random.default_rng(1), 1)
    found = cut(encoded(own), torch.tensor([[10.0, 5, 31, 26]]), torch.tensor([0]), SIZE, 21)
    assert torch.equal(found[0], own[0, 5:26, 10:31].float())


def test_boxes_of_a_resized_picture_cut_the_same_part_as_those_of_the_picture():
    """To the rounding of float32; both axes have their own scale."""
    random = np.random.default_rng(2)
    masks, boxes, places = encoded(maps(random, 3)), boxes_in(random, 12), torch.arange(12) % 3
    scale = torch.tensor([2.5, 3.0, 2.5, 3.0])
    found = cut(masks, boxes * scale, places, (HEIGHT * 3, round(WIDTH * 2.5)), 28)
    assert torch.allclose(found, cut(masks, boxes, places, SIZE, 28), atol=1e-4)


def test_a_mask_that_is_not_known_gives_nan_and_boxes_off_the_picture_or_without_area_nothing():
    own = torch.ones(2, HEIGHT, WIDTH)
    masks = Masks.of([encoded(own).texts[0], b""], [SIZE] * 2)
    boxes = torch.tensor([[0.0, 0, 9, 9], [200, 200, 300, 300], [-50, -50, -5, -5], [5, 5, 5, 9], [0, 0, 9, 9]])
    found = cut(masks, boxes, torch.tensor([0, 0, 0, 0, 1]), SIZE, 4)
    assert found[0].unique().tolist() == [1]
    assert not found[1:4].any()
    assert found[4].isnan().all()
    assert cut(masks, boxes[:0], torch.zeros(0).long(), SIZE, 4).shape == (0, 4, 4)


def scene(how, draws, masks, crowd=(False, False), difficult=(False, False)):
    """A picture whose red channel is the first mask, and its green one the second."""
    pixels = np.zeros((*SIZE, 3), np.uint8)
    pixels[:, :, :2] = 255 * decoded(masks).numpy().transpose(1, 2, 0)
    boxes = torch.tensor([[0.0, 0, WIDTH, HEIGHT]] * 2)
    truth = Truth(boxes, torch.tensor([4, 7]), torch.tensor(difficult), torch.tensor(crowd), torch.ones(2), masks)
    return augmented(how, png(Image.fromarray(pixels)), draws, (truth, None))


@pytest.fixture
def masks():
    own = torch.zeros(2, HEIGHT, WIDTH)
    own[0, 10:30, 5:40], own[1, 20:50, 30:75], own[1, 30:40, 50:60] = 1, 1, 0
    return encoded(own)


def test_masks_are_mirrored_with_their_picture_and_lie_where_its_pixels_are(masks):
    """A mask, cut to the whole picture, is the channel in which it is painted."""
    how = Augmentation((HEIGHT,), 400, True, 0.0, False)
    mirrored = 0
    for draws in torch.rand(12, 2, generator=torch.Generator().manual_seed(0)).tolist():
        seen = scene(how, draws, masks)
        assert torch.equal(decoded(seen.objects.masks), (seen.image[:2] > 127).byte())
        mirrored += seen.objects.masks.texts != masks.texts
    assert 0 < mirrored < 12


def test_targets_of_a_resized_picture_are_the_mask_in_the_box_to_the_pixel_of_the_picture(masks):
    seen = scene(Augmentation((150,), 400, False, 0.0, False), [0.3, 0.6], masks)
    frame = (seen.image.shape[1], seen.image.shape[2])
    assert frame == (150, 200)
    box = torch.tensor([[5.0, 10, 40, 30]]) * 2.5
    assert cut(seen.objects.masks, box, torch.tensor([0]), frame, 21).unique().tolist() == [1]
    painted = seen.image[1].float() / 255
    whole = cut(seen.objects.masks, torch.tensor([[0.0, 0, 200, 150]]), torch.tensor([1]), frame, 50)[0]
    assert (whole - torch.nn.functional.adaptive_avg_pool2d(painted[None], 50)[0]).abs().mean() < 0.02


def test_masks_are_those_of_the_objects_that_are_trained_on(masks):
    how = Augmentation((HEIGHT,), 400, False, 0.0, False)
    for more in ({"crowd": (True, False)}, {"difficult": (True, False)}):
        seen = scene(how, [0.1, 0.2], masks, **more)
        assert seen.objects.labels.tolist() == [7]
        assert seen.objects.masks.texts == masks.texts[1:]
        assert seen.objects.to(torch.device("cpu")).masks is seen.objects.masks
