"""Random objects and detections of a few pictures, and made ones."""

import numpy as np
import torch

from deepres.data.boxes.truth import Truth
from deepres.models.detection.outputs import Detections

# Those of COCO, in the order in which its evaluator gives them.
FIGURES = (
    "map",
    "map50",
    "map75",
    "small",
    "medium",
    "large",
    "recall1",
    "recall10",
    "recall100",
    *(f"recall_{size}" for size in ("small", "medium", "large")),
)


def truth(boxes=(), labels=None, *, difficult=(), crowd=(), areas=None):
    """The objects of a picture: of class 0 unless told; `difficult` and `crowd` are places."""
    boxes = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
    flags = [
        torch.tensor([place in places for place in range(len(boxes))], dtype=torch.bool)
        for places in (difficult, crowd)
    ]
    labels = torch.tensor([0] * len(boxes) if labels is None else labels, dtype=torch.int64)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) if areas is None else torch.tensor(areas, dtype=torch.float32)
    return Truth(boxes, labels, *flags, areas)


def detections(boxes=(), scores=(), labels=None):
    boxes = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
    labels = torch.tensor([0] * len(boxes) if labels is None else labels, dtype=torch.int64)
    return Detections(boxes, torch.tensor(scores, dtype=torch.float32), labels)


def random_case(seed, pictures=4, classes=3, *, difficult=0.0, crowd=0.0, whole=False, ties=False):
    """Up to six objects and twelve detections a picture, half of which lie near an object.

    With `whole`, all coordinates are whole numbers of a coarse grid, so that many IoU are alike and some are just 0.5.
    With `ties`, many scores are alike. Areas are those of masks, often at the ends of COCO's ranges.
    """
    random = np.random.default_rng(seed)
    truths, found = [], []
    for _ in range(pictures):
        objects, seen = (int(random.integers(0, most)) * int(random.random() > 0.1) for most in (7, 13))
        boxes = _boxes(random, objects, whole)
        labels = random.integers(0, classes, objects)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) * random.choice([0.4, 0.8, 1.0], objects)
        areas = np.where(random.random(objects) < 0.2, random.choice([1024.0, 9216.0], objects), areas)
        flags = (torch.from_numpy(random.random(objects) < share) for share in (difficult, crowd))
        truths.append(
            Truth(torch.from_numpy(boxes).float(), torch.from_numpy(labels), *flags, torch.from_numpy(areas).float())
        )
        # Half of the detections are moved objects, mostly with their class.
        own, own_labels = _boxes(random, seen, whole), random.integers(0, classes, seen)
        for place in range(seen // 2 if objects else 0):
            source = int(random.integers(objects))
            size = boxes[source, 2:] - boxes[source, :2]
            moved = boxes[source] + np.tile(size, 2) * random.choice([0, 0.05, 0.2], 4) * random.choice([-1, 1], 4)
            own[place] = np.round(moved / 8) * 8 if whole else moved
            own[place, 2:] = np.maximum(own[place, 2:], own[place, :2] + 1)
            own_labels[place] = labels[source] if random.random() < 0.8 else own_labels[place]
        scores = np.round(random.random(seen), 1) if ties else random.random(seen)
        order = np.argsort(-scores, kind="stable")
        tensors = (torch.from_numpy(values[order]) for values in (own, scores, own_labels))
        own, scores, own_labels = tensors
        found.append(Detections(own.float(), scores.float(), own_labels))
    return truths, found


def _boxes(random, count, whole):
    """Boxes of 8 to 160 pixels: small, medium and large ones by COCO's ranges."""
    sides = np.exp(random.uniform(np.log(8), np.log(160), (count, 2)))
    corners = random.uniform(0, 100, (count, 2))
    if whole:
        sides, corners = np.round(sides / 8) * 8, np.round(corners / 8) * 8
    return np.concatenate((corners, corners + np.maximum(sides, 1)), 1)
