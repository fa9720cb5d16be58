"""Pictures of noise, and the cuts of squares out of them, for the tests of resampling."""

import numpy as np
import torch
from torch import Tensor

from deepres.data.resampling import Cuts, needed

CROP = 9


def parts_of_pictures(count: int, seed: int = 0) -> tuple[list[Tensor], list[Tensor], Cuts]:
    """Noise of many sizes, the parts that a square of each (a tenth of it to all) follows from, and the cuts."""
    random = np.random.default_rng(seed)
    whole, parts, boxes, corners = list[Tensor](), list[Tensor](), list[tuple[float, ...]](), list[tuple[int, int]]()
    for number in range(count):
        height, width = map(int, random.integers(6, 90, 2))
        side = float(random.uniform(0.1, 1)) * min(width, height) if number else float(min(width, height))
        left, top = random.uniform(0, width - side), random.uniform(0, height - side)
        boxes.append((left, top, left + side, top + side))
        whole.append(torch.from_numpy(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).permute(2, 0, 1))
        first, upper, last, lower = needed(boxes[-1], (width, height), CROP)
        corners.append((first, upper))
        part = whole[-1][:, upper:lower, first:last]
        parts.append(part.contiguous() if number % 2 else part)  # colours apart, as nvJPEG gives them, or together
    sizes = torch.tensor([(picture.shape[2], picture.shape[1]) for picture in whole])
    cuts = Cuts(torch.tensor(boxes, dtype=torch.float32), sizes, torch.tensor(corners), torch.arange(count) % 3 == 0)
    return whole, parts, cuts
