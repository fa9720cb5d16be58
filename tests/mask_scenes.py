"""A small data set of coloured ovals with polygons, and a training of a cascade on it that takes seconds."""

import json
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

RECIPE = ("--iterations", 8, "--set", "side=48", "--set", "sides=40,48", "--set", "longest=80", "--set", "regions=8")
MARKS = ("--set", "window=2", "--set", "evaluate_every=4", "--set", "anchors=16", "--set", "rpn_channels=16")
SMALL = ("--set", "mask_channels=16", "--set", "mask_size=7", "--set", "warped=14")
COLOURS = {"red": (220, 40, 40), "blue": (40, 40, 220)}


def oval(left, top, width, height):
    """The corners of a polygon that is nearly an oval."""
    turns = [2 * math.pi * corner / 24 for corner in range(24)]
    return [(left + width * (1 + math.cos(turn)) / 2, top + height * (1 + math.sin(turn)) / 2) for turn in turns]


def write_mask_scenes(root: Path, train: int = 8, test: int = 4, masks: bool = True) -> Path:
    """Pictures of grey noise with up to two coloured ovals, in COCO's layout; some have none."""
    numbers = np.random.default_rng(0)
    for part, count in (("train", train), ("test", test)):
        images, annotations = [], []
        (root / part).mkdir(parents=True)
        for number in range(1, count + 1):
            width, height = (64, 48) if number % 3 else (48, 64)
            picture = Image.fromarray(numbers.integers(90, 150, (height, width, 3), dtype=np.uint8))
            for label, name in enumerate(list(COLOURS)[: number % 3], 1):
                left, top = (int(numbers.integers(0, length - 26)) for length in (width, height))
                corners = oval(left, top, 24, 22)
                ImageDraw.Draw(picture).polygon(corners, COLOURS[name])
                own = {"id": len(annotations) + 1, "image_id": number, "category_id": label, "iscrowd": 0}
                own |= {"bbox": [left, top, 24, 22], "area": 24 * 22 * math.pi / 4}
                if masks:
                    own["segmentation"] = [[value for corner in corners for value in corner]]
                annotations.append(own)
            picture.save(root / part / f"{number:02}.png")
            images.append({"id": number, "file_name": f"{number:02}.png", "width": width, "height": height})
        categories = [{"id": label, "name": name} for label, name in enumerate(COLOURS, 1)]
        file = root / "annotations" / f"instances_{part}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return root


def arguments(scenes, run, *more):
    return (
        "train",
        "segmenter",
        "--backbone",
        "resnet8",
        "--data",
        scenes,
        "--run",
        run,
        *RECIPE,
        *MARKS,
        *SMALL,
        *more,
    )
