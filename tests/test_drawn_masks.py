"""Masks drawn into pictures."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from deepres.models.detection.outputs import Detections
from deepres.report.boxes import SHADE, draw, of_detections
from deepres.runtime.masks import encoded

CLASSES = ("ant", "bee")


def found():
    """Two detections of one box, of which the first has the left half and the second all."""
    maps = torch.zeros(2, 120, 160, dtype=torch.bool)
    maps[0, 40:100, 20:60], maps[1, 40:100, 20:100] = True, True
    boxes = torch.tensor([[20.0, 40, 60, 100], [20, 40, 100, 100]])
    return Detections(boxes, torch.tensor([0.9, 0.8]), torch.tensor([0, 1]), encoded(maps))


@pytest.mark.parametrize("size", [(120, 160), (60, 80)])
def test_masks_are_drawn_in_the_colours_of_their_classes_and_nothing_beside_them(size):
    """Also into the picture in another size."""
    scale = size[0] / 120
    marks = of_detections(found(), CLASSES)
    marks = replace(marks, boxes=marks.boxes * scale)
    picture = torch.zeros(3, *size, dtype=torch.uint8)
    shaded, bare = (np.asarray(draw(picture, own)).astype(int) for own in (marks, replace(marks, masks=None)))
    changed = (shaded != bare).any(2)
    inside = np.zeros(size, dtype=bool)
    inside[int(40 * scale) : int(100 * scale), int(20 * scale) : int(100 * scale)] = True
    assert changed.any() and not changed[~inside].any()
    # The first lies on top: the left half has its colour over that of the second.
    first, second = (np.array(colour) for colour in marks.colours)
    right, left = shaded[int(85 * scale), int(80 * scale)], shaded[int(85 * scale), int(40 * scale)]
    assert abs(right - SHADE * second).max() <= 1
    assert abs(left - (SHADE * first + (1 - SHADE) * SHADE * second)).max() <= 2
