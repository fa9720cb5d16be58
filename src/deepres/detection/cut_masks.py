"""The part of a true mask that lies in a box, resized: what a mask head learns (Multi-task Network Cascades)."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from deepres.runtime.masks import Masks, decoded


def cut(masks: Masks, boxes: Tensor, places: Tensor, frame: tuple[int, int], side: int) -> Tensor:
    """The part of mask `places[i]` that lies in box i, as a grid: the share of each cell that the mask covers.

    `boxes` float32 (k, 4) are in pixels of an image of `frame` (height, width), such as a `Scene` has without padding;
    the masks stay as large as the pictures on disk, so that nothing is lost by resizing them first. `places` int64 (k,)
    are those of the masks. Returns float32 (k, side, side) from 0 to 1 on the device of the boxes. Outside of the
    picture nothing is covered. A mask that is not known gives nan.
    """
    found, known = torch.full((len(boxes), side, side), torch.nan), masks.known
    owners = places.cpu()
    stretch = masks.sizes[owners].double() / torch.tensor(frame, dtype=torch.float64)
    own_boxes = boxes.detach().cpu().double() * stretch.flip(1).repeat(1, 2)
    for place in owners.unique().tolist():
        if known[place]:
            rows = owners == place
            found[rows] = _shares(decoded(masks[place : place + 1])[0], own_boxes[rows], side).float()
    return found.to(boxes.device)


def _shares(pixels: Tensor, boxes: Tensor, side: int) -> Tensor:
    """The shares of one mask uint8 (height, width) in the cells of k boxes float64 (k, 4); float64 (k, side, side)."""
    # Only the pixels around the boxes: pictures may be large.
    height, width = pixels.shape
    left, top = (max(int(own), 0) for own in boxes[:, :2].amin(0).floor())
    right, bottom = (max(int(own), 0) for own in boxes[:, 2:].amax(0).ceil())
    window = pixels[top : min(bottom, height), left : min(right, width)]
    # What is covered left of and above each corner of the cells; between pixels it grows linearly in both axes.
    total = pad(window.double().cumsum(0).cumsum(1), (1, 0, 1, 0))
    steps = torch.linspace(0, 1, side + 1, dtype=torch.float64)
    corners = boxes[:, None, :2] + (boxes[:, 2:] - boxes[:, :2])[:, None] * steps[:, None]  # (k, side + 1, x and y)
    across, down = (corners - boxes.new_tensor([left, top])).unbind(2)
    sums = _between(_between(total, down, 0), across, 2)
    # What each cell covers, of its area.
    covered = sums.diff(dim=1).diff(dim=2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)[:, None, None] / side**2
    return (covered / area).nan_to_num(0).clamp(0, 1)


def _between(values: Tensor, at: Tensor, axis: int) -> Tensor:
    """Values between those along an axis, by linear interpolation at k x m places; at an end, that at the end.

    Axis 0 of (n, w) gives (k, m, w); axis 2 of (k, h, n) gives (k, h, m).
    """
    at = at.clamp(0, values.shape[axis] - 1)
    first = at.floor().long()
    second, share = (first + 1).clamp(max=values.shape[axis] - 1), at - first
    if axis == 0:
        return values[first].lerp(values[second], share[:, :, None])
    one, other = (values.gather(2, own[:, None].expand(-1, values.shape[1], -1)) for own in (first, second))
    return one.lerp(other, share[:, None])
