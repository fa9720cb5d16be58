"""Region warping: bilinear samples of a map, with gradients for the map and for the boxes."""

import pytest
import torch
from torch.autograd import gradcheck
from torch.nn import functional as F
from torchvision.ops import roi_align

from deepres.models.segmentation.warping import REGIONS, RegionWarping, limited, warped
from detection_scenes import generator, random_boxes

STRIDE, SIZE = 4, (48, 64)  # of a map of 12 x 16 positions


def maps(count=1, channels=2, dtype=torch.float32):
    return torch.randn(count, channels, SIZE[0] // STRIDE, SIZE[1] // STRIDE, generator=generator(1), dtype=dtype)


def sampled_by_loops(image, box, size):
    """The samples at the centres of the bins, one after another: positions lie in the middle of their pixels."""
    _, height, width = image.shape
    left, top, right, bottom = box
    rows = []
    for row in range(size):
        rows.append([])
        for column in range(size):
            x = (left + (column + 0.5) / size * (right - left)) / STRIDE - 0.5
            y = (top + (row + 0.5) / size * (bottom - top)) / STRIDE - 0.5
            x, y = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
            x0, y0 = min(int(x), width - 2), min(int(y), height - 2)
            across, down = x - x0, y - y0
            above = (1 - across) * image[:, y0, x0] + across * image[:, y0, x0 + 1]
            below = (1 - across) * image[:, y0 + 1, x0] + across * image[:, y0 + 1, x0 + 1]
            rows[-1].append((1 - down) * above + down * below)
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def test_samples_are_those_of_loops_also_at_the_border():
    image = maps()
    boxes = torch.cat([random_boxes(6, SIZE, 2, (3, 40)), torch.tensor([[0.0, 0, 64, 48], [0, 40, 5, 48]])])
    expected = torch.stack([sampled_by_loops(image[0], box, 5) for box in boxes.tolist()])
    torch.testing.assert_close(warped(image, boxes, STRIDE, 5), expected, atol=1e-5, rtol=1e-5)


def test_inside_of_the_map_samples_are_those_of_roi_align_with_one_sample_a_bin():
    image, boxes = maps(), random_boxes(9, SIZE, 3, (8, 40))
    theirs = roi_align(image, [boxes], 6, 1 / STRIDE, sampling_ratio=1, aligned=True)
    torch.testing.assert_close(warped(image, boxes, STRIDE, 6), theirs, atol=1e-5, rtol=1e-5)


def test_gradients_for_map_and_boxes_are_those_of_finite_differences():
    image = maps(channels=2, dtype=torch.float64).requires_grad_()
    boxes = random_boxes(4, SIZE, 4, (8, 40)).double().requires_grad_()
    assert gradcheck(lambda image, boxes: warped(image, boxes, STRIDE, 6), (image, boxes), eps=1e-6)
    assert gradcheck(lambda image, boxes: F.max_pool2d(warped(image, boxes, STRIDE, 6), 2), (image, boxes), eps=1e-6)


def test_a_box_of_one_point_and_one_beside_the_map_give_finite_samples_and_gradients():
    image = maps().requires_grad_()
    boxes = torch.tensor([[9.0, 9, 9, 9], [64, 48, 64, 48], [-40, -40, -10, -10]], requires_grad=True)
    found = warped(image, boxes, STRIDE, 6)
    found.square().sum().backward()
    assert found.isfinite().all() and image.grad.isfinite().all() and boxes.grad.isfinite().all()
    torch.testing.assert_close(found[2], image[0, :, :1, :1].expand(2, 6, 6))  # that of the corner


def regions_of_two_images():
    """More than are warped at a time in the first image, none in the second, some in the third."""
    counts = (REGIONS + 5, 0, 3)
    return [random_boxes(count, SIZE, 5 + count, (8, 40)).requires_grad_() for count in counts]


def test_regions_of_several_images_are_the_maxima_of_samples_with_the_same_gradients():
    image, regions = maps(3).requires_grad_(), regions_of_two_images()
    found = RegionWarping(STRIDE, 12)(image, regions)
    assert found.shape == (sum(map(len, regions)), 2, 6, 6)
    parts = [
        F.max_pool2d(warped(image[place : place + 1], own, STRIDE, 12), 2)
        for place, own in enumerate(regions)
        if len(own)
    ]
    assert torch.equal(found, torch.cat(parts))
    weights = torch.randn(found.shape, generator=generator(9))
    ours = torch.autograd.grad((found * weights).sum(), [image, *regions], allow_unused=True)
    theirs = torch.autograd.grad((torch.cat(parts) * weights).sum(), [image, *regions], allow_unused=True)
    for own, other in zip(ours, theirs, strict=True):
        if own is not None and own.numel():
            torch.testing.assert_close(own, other)
    assert ours[0].any() and ours[1].any() and ours[3].any()


@pytest.mark.parametrize("counts", [(0,), (0, 0), (2, 0)])
def test_images_may_have_no_regions(counts):
    image = maps(len(counts)).requires_grad_()
    found = RegionWarping(STRIDE, 12)(image, [random_boxes(count, SIZE) for count in counts])
    assert found.shape == (sum(counts), 2, 6, 6)
    found.sum().backward()
    assert image.grad is not None


def test_samples_are_made_again_and_not_kept_for_the_gradient():
    """Only the maxima are kept: a quarter of the samples."""
    image, kept = maps(channels=64).requires_grad_(), []

    def keep(value):
        kept.append(value.numel())
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        found = RegionWarping(STRIDE, 12)(image, [random_boxes(40, SIZE, 1, (8, 40))])
    assert sum(kept) <= found.numel()


def test_a_limit_clamps_the_gradient_of_one_way_alone():
    values = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    (limited(values, 0.5) * torch.tensor([4.0, -3.0, 0.25])).sum().backward()
    assert values.grad.tolist() == [0.5, -0.5, 0.25]
    values.grad = None
    (limited(values, 0.5) * 4 + values * 2).sum().backward()
    assert values.grad.tolist() == [2.5, 2.5, 2.5]
    assert limited(values.detach(), 0.5).equal(values.detach())
