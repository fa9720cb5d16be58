"""What is known of a data set with boxes: counts of its pictures, objects and faults, ready for JSON."""

from typing import Any

import torch

from deepres.data.boxes.index import BoxIndex, Opened
from deepres.data.resident import per_class

# COCO's limits of small and medium objects, in square pixels.
SMALL, MEDIUM = 32**2, 96**2


def describe_boxes(name: str, found: Opened) -> dict[str, Any]:
    """Facts about a data set with boxes: layout, classes, and of each part pictures, objects and their sizes."""
    train, test = found.parts
    return {
        "name": name,
        "source": str(train.pictures.root),
        "layout": found.layout,
        "classes": list(train.classes),
        "category_ids": list(train.category_ids),
        "train": _part(train),
        "test": _part(test),
        "faults": len(found.wrong),
        "fingerprint": train.fingerprint,
    }


def _part(index: BoxIndex) -> dict[str, Any]:
    objects, count = index.objects, len(index)
    each = index.ends.diff(prepend=index.ends.new_zeros(1))
    sides = (objects.boxes[:, 2:] - objects.boxes[:, :2]).prod(1).sqrt()
    quartiles = sides.double().quantile(torch.tensor([0, 0.25, 0.5, 0.75, 1], dtype=torch.float64)) if count else None
    return {
        "images": count,
        "without_boxes": int((each == 0).sum()),
        "boxes": len(objects),
        "most_boxes_an_image": int(each.max()) if count else 0,
        "per_class": per_class(objects.labels, index.classes),
        "difficult": int(objects.difficult.sum()),
        "crowd": int(objects.crowd.sum()),
        **({} if objects.masks is None else {"masks": int(objects.masks.known.sum())}),
        # The side of a square of the same area, in pixels: least, quartiles, most.
        "sides": [round(side, 1) for side in quartiles.tolist()] if quartiles is not None and len(sides) else [],
        "small": int((objects.areas < SMALL).sum()),
        "medium": int(((objects.areas >= SMALL) & (objects.areas < MEDIUM)).sum()),
        "large": int((objects.areas >= MEDIUM).sum()),
    }
