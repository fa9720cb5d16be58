"""A small data set with one object a picture, in class folders, and a training of a localizer that takes seconds."""

from pathlib import Path

import numpy as np
from PIL import Image

from box_folders import voc_object, voc_xml

COLOURS = {"red": (220, 40, 40), "blue": (40, 40, 220)}
RECIPE = ("--iterations", 12, "--batch-size", 4, "--set", "crop=48", "--set", "channels=16", "--set", "anchors=8")
MARKS = ("--set", "window=3", "--set", "evaluate_every=6", "--set", "anchor_scales=1,2", "--set", "workers=0")


def write_pictures(root: Path, train: int = 10, test: int = 4) -> Path:
    """Pictures of grey noise with one coloured box, in `train/CLASS/` and `val/CLASS/`, with VOC's XML beside them."""
    numbers = np.random.default_rng(0)
    for number in range(train + test):
        name = list(COLOURS)[number % 2]
        width, height = (96, 72) if number % 3 else (72, 96)
        pixels = numbers.integers(90, 150, (height, width, 3), dtype=np.uint8)
        across, down = (int(side) for side in numbers.integers(24, 44, 2))
        left, top = int(numbers.integers(0, width - across)), int(numbers.integers(0, height - down))
        pixels[top : top + down, left : left + across] = COLOURS[name]
        file = root / ("train" if number < train else "val") / name / f"{number:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
        inside = voc_object(name, (left, top, left + across, top + down))
        voc_xml(file.with_suffix(".xml"), inside, (width, height), file.name)
    return root


def arguments(data, run, *more):
    return ("train", "localizer", "--backbone", "resnet8", "--data", data, "--run", run, *RECIPE, *MARKS, *more)
