"""Random masks of objects and of detections, and made ones."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from deepres.data.boxes.truth import Truth
from deepres.models.detection.outputs import Detections
from deepres.runtime.masks import Masks, encoded, mask_areas, mask_boxes
from random_boxes import random_case

SIZE = (60, 80)  # height and width of the pictures


def maps(random: np.random.Generator, count: int, size: tuple[int, int] = SIZE) -> Tensor:
    """Pixel maps of ellipses with holes and ragged borders, some of them of several parts, some empty."""
    height, width = size
    rows, columns = np.mgrid[:height, :width]
    found = np.zeros((count, height, width), np.uint8)
    for own in found:
        for _ in range(int(random.integers(0, 3))):
            middle, radius = random.random(2) * size, 2 + random.random(2) * 20
            own |= (((rows - middle[0]) / radius[0]) ** 2 + ((columns - middle[1]) / radius[1]) ** 2 < 1).astype("u1")
        own &= random.random(size) < 0.9
    return torch.from_numpy(found)


def masked_case(seed: int, lacking: float = 0.0, **how: float) -> tuple[list[Truth], list[Detections]]:
    """Objects and detections as of `random_case`, with masks; half of the detections resemble an object's mask."""
    random = np.random.default_rng(seed)
    truths, found = random_case(seed, **how)
    made_truths, made_found = list[Truth](), list[Detections]()
    for truth, own in zip(truths, found, strict=True):
        objects, seen = maps(random, len(truth)), maps(random, len(own))
        labels = own.labels.clone()
        for place in range(len(own) // 2 if len(truth) else 0):
            source = int(random.integers(len(truth)))
            near = objects[source].roll(int(random.integers(0, 4)), 1)
            seen[place] = near & torch.from_numpy(random.random(SIZE) < 0.95)
            labels[place] = truth.labels[source] if random.random() < 0.8 else labels[place]
        masks = encoded(objects)
        texts = [b"" if random.random() < lacking else text for text in masks.texts]
        areas = mask_areas(masks).float()
        made_truths.append(
            replace(truth, boxes=mask_boxes(masks), areas=areas, masks=Masks.of(texts, [SIZE] * len(truth)))
        )
        made_found.append(replace(own, boxes=mask_boxes(encoded(seen)), labels=labels, masks=encoded(seen)))
    return made_truths, made_found
