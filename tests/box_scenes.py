"""A small data set of coloured boxes, and a training of a detector on it that takes seconds."""

from pathlib import Path

import numpy as np
from PIL import Image

from box_folders import voc_object, voc_xml

RECIPE = ("--iterations", 12, "--set", "side=48", "--set", "sides=40,48", "--set", "longest=80", "--set", "regions=8")
MARKS = ("--set", "window=3", "--set", "evaluate_every=6", "--set", "anchors=16", "--set", "rpn_channels=16")
COLOURS = {"red": (220, 40, 40), "blue": (40, 40, 220)}


def write_scenes(root: Path, train: int = 10, test: int = 4) -> Path:
    """Pictures of grey noise with up to two coloured boxes, upright or landscape; some have none."""
    numbers = np.random.default_rng(0)
    for number in range(train + test):
        width, height = (64, 48) if number % 3 else (48, 64)
        pixels = numbers.integers(90, 150, (height, width, 3), dtype=np.uint8)
        objects = []
        for name in list(COLOURS)[: number % 3]:
            left, top = (int(numbers.integers(0, length - 24)) for length in (width, height))
            pixels[top : top + 20, left : left + 22] = COLOURS[name]
            objects.append(voc_object(name, (left, top, left + 22, top + 20)))
        file = root / "JPEGImages" / f"{number:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
        voc_xml(root / "Annotations" / f"{number:02}.xml", "".join(objects), (width, height), file.name)
    for name, members in (("trainval", range(train)), ("test", range(train, train + test))):
        listed = root / "ImageSets" / "Main" / f"{name}.txt"
        listed.parent.mkdir(parents=True, exist_ok=True)
        listed.write_text("".join(f"{member:02}\n" for member in members))
    return root


def arguments(scenes, run, *more):
    return ("train", "detector", "--backbone", "resnet8", "--data", scenes, "--run", run, *RECIPE, *MARKS, *more)
