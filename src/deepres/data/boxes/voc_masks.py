"""The masks of VOC's objects: a picture whose pixels are the numbers of objects."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision.ops import box_iou

from deepres.data.boxes.annotations import Fault, Object
from deepres.data.boxes.outlines import Runs, numbered_masks
from deepres.data.rgb import fault, open_picture
from deepres.runtime.masks import mask_boxes

LEAST = 0.5  # IoU of the box of an object with that around its mask


def with_masks(objects: list[Object], root: Path, name: str, faults: list[Fault]) -> list[Object]:
    """The objects of a picture with the masks in the picture of object numbers `name`, below `root`.

    A mask belongs to the object whose box is most alike that around the mask, and reaches the IoU 0.5; the order of the
    numbers does not count. `faults` get what is wrong. Objects that it does not show have no mask.
    """
    try:
        with open_picture(root / name) as image:
            pixels: Any = np.asarray(image)
        _, masks = numbered_masks(pixels)
    except Exception as error:  # Pillow raises almost any exception for a damaged file
        faults.append(Fault(name, "mask", fault(error)))
        return objects
    # Give each mask to an object, the pair of largest overlap first.
    boxes = torch.tensor([own.box for own in objects], dtype=torch.float64).view(-1, 4)
    shared, found = box_iou(boxes, mask_boxes(masks).double()), list(objects)
    texts, (height, width) = masks.texts, pixels.shape
    for _ in range(min(shared.shape)):
        value, place = shared.flatten().max(0)
        if value < LEAST:
            break
        row, column = divmod(int(place), len(texts))
        found[row] = found[row]._replace(outline=Runs(texts[column], (height, width)))
        shared[row], shared[:, column] = -1, -1
        texts[column] = b""
    if left := sum(bool(text) for text in texts):
        faults.append(Fault(name, "mask", "a number of it belongs to no object by its box", left))
    return found
