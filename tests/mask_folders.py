"""Small data sets with masks for the tests, in every layout, as COCO, VOC and LabelMe write them."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco

import box_folders as made
from deepres.data.boxes.index import BoxIndex
from deepres.data.boxes.opening import open_boxes, opened
from deepres.runtime.errors import silent
from deepres.runtime.masks import Masks, decoded
from images import png

CLASSES = {"cat": 3, "dog": 8}
WIDTH, HEIGHT = made.SIZE
RING = [3.5, 2, 20, 4, 30.25, 25, 6, 20]
TRIANGLE = [22.0, 1, 39, 1, 39, 12]


def read(root: Path) -> BoxIndex:
    """All pictures of a data set, with masks."""
    return open_boxes(str(root), silent, test_set="none", masks=True).train


def faults(root: Path, kind: str = "mask") -> list[tuple[str, str, int]]:
    """The faults of one kind: names, reasons and how often."""
    found = opened(str(root), silent, test_set="none", masks=True).faults
    return [(own.name, own.reason, own.times) for own in found if own.kind == kind]


def masks_of(index: BoxIndex, place: int = 0) -> Masks:
    """The masks of one picture."""
    masks = index.truth(place).masks
    assert masks is not None
    return masks


def pixels(segmentation) -> torch.Tensor:
    """The mask that pycocotools makes of polygons, uint8 (height, width)."""
    rle = coco.merge(coco.frPyObjects(segmentation, HEIGHT, WIDTH))
    return decoded(Masks.of([rle["counts"]], [(HEIGHT, WIDTH)]))[0]


def coco_json(file: Path, objects: Mapping[str, Sequence[tuple[str, Any, int]]]) -> Path:
    """A JSON file of COCO: class, segmentation and crowd of the objects of each picture. All boxes are the picture."""
    size = made.SIZE
    images = [{"id": k, "file_name": name, "width": size[0], "height": size[1]} for k, name in enumerate(objects)]
    annotations = [
        {"image_id": image, "category_id": CLASSES[name], "bbox": [0, 0, *size], "iscrowd": crowd, "segmentation": own}
        for image, each in enumerate(objects.values())
        for name, own, crowd in each
    ]
    annotations = [{"id": number} | own for number, own in enumerate(annotations)]
    categories = [{"id": number, "name": name} for name, number in CLASSES.items()]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return file


def voc_masks(root: Path, name: str, boxes: Sequence[tuple[int, int, int, int]], numbers: Sequence[int]) -> np.ndarray:
    """The picture of object numbers of one picture: ellipses in boxes, with a border of 255, in a palette."""
    width, height = made.SIZE
    rows, columns = np.mgrid[:height, :width] + 0.5
    pixels = np.zeros((height, width), np.uint8)
    for (left, top, right, bottom), number in zip(boxes, numbers, strict=True):
        across, down = (columns - (left + right) / 2) / (right - left), (rows - (top + bottom) / 2) / (bottom - top)
        pixels[across**2 + down**2 < 0.25] = number
    pixels[0] = 255
    image = Image.fromarray(pixels).convert("P")
    image.putdata(pixels.ravel().tolist())
    file = root / "SegmentationObject" / f"{name}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file)
    return pixels


def shape(label: str, points: Sequence[Sequence[float]], kind: str = "polygon", **more: Any) -> dict[str, Any]:
    """A shape as LabelMe writes it."""
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}


def patch(label: str, pixels: np.ndarray, corner: tuple[int, int]) -> dict[str, Any]:
    """A shape of pixels as LabelMe writes it: a PNG, and its first and last pixel."""
    (left, top), (height, width) = corner, pixels.shape
    encoded = base64.b64encode(png(Image.fromarray(255 * pixels.astype(np.uint8)))).decode()
    return shape(label, [[left, top], [left + width - 1, top + height - 1]], "mask", mask=encoded)


def labelme(root: Path, name: str, *shapes: dict[str, Any], size: Sequence[int] = made.SIZE, **more: Any) -> Path:
    """A picture and its file of LabelMe, beside each other; the file holds the picture, too."""
    picture = made.picture(root / f"{name}.jpg", seed=len(name))
    file = root / f"{name}.json"
    content = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": picture.name}
    content |= {"imageData": base64.b64encode(picture.read_bytes()).decode()}
    file.write_text(json.dumps(content | {"imageHeight": size[1], "imageWidth": size[0]} | more))
    return file
