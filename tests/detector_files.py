"""Small detectors with random weights, and pictures for them."""

import numpy as np
import torch
from PIL import Image

from deepres import build
from deepres.weights.file import serialise

CLASSES = ("ring", "disc", "=star")


def write_detector(file, classes=CLASSES, seed=0, header=None, backbone="resnet18", **plan):
    """A weights file of a detector that finds boxes of all kinds everywhere, at low scores."""
    torch.manual_seed(seed)
    small = {"side": 64, "longest": 96, "anchor_scales": [1.0, 2.0], "smallest": 4.0, "rpn_channels": 16}
    plan = small | {"proposals": 40, "most": 6} | plan
    net = build(f"faster-rcnn-{backbone}", len(classes), detector=plan | {"threshold": 0.0})
    header = net.header | {"classes": list(classes)} | (header or {})
    file.write_bytes(serialise(net.state_dict(), torch.full((3, 1, 1), 0.4), header))
    return file


def write_picture(file, size=(90, 60), seed=0, **how):
    """A picture of noise, `size` being width and height."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise).save(file, **how)
    return file
