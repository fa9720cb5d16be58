"""Small detectors, objects and scenes for tests."""

import dataclasses

import torch
from torch import Tensor

from deepres.detection.recipe import FASTER_RCNN
from deepres.detection.scenes import Scene
from deepres.detection.targets import Objects
from deepres.detection.task import DetectionTask
from deepres.models.catalog import build
from deepres.models.detection.detector import Detector

NONE = torch.zeros(0, 4)
PLAN = {
    "anchor_scales": (1.0, 2.0, 4.0),
    "rpn_channels": 16,
    "smallest": 0,
    "side": 96,
    "longest": 160,
    "proposals": 16,
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_boxes(count: int, size: tuple[int, int], seed: int = 0, sides: tuple[float, float] = (8, 60)) -> Tensor:
    """Boxes (count, 4) inside of an image of `size` (height, width)."""
    numbers = torch.rand(count, 4, generator=generator(seed))
    height, width = size
    wide, high = (sides[0] + numbers[:, 2:] * (sides[1] - sides[0])).unbind(1)
    left, top = numbers[:, 0] * (width - wide), numbers[:, 1] * (height - high)
    return torch.stack([left, top, left + wide, top + high], 1)


def objects(boxes: Tensor = NONE, labels: Tensor | None = None, crowds: Tensor = NONE) -> Objects:
    return Objects(boxes, torch.arange(len(boxes)) % 3 if labels is None else labels, crowds)


def small_detector(network: str = "resnet18", classes: int = 3, in_channels: int = 3, **plan: object) -> Detector:
    """A detector in evaluation whose scores and boxes differ from region to region."""
    torch.manual_seed(0)
    net = build(f"faster-rcnn-{network}", classes, in_channels, detector=PLAN | plan)
    assert isinstance(net, Detector)
    for layer in (net.rpn.objectness, net.rpn.boxes, net.score, net.box):
        torch.nn.init.normal_(layer.weight, std=0.05)
    net.mean = torch.tensor([0.5, 0.4, 0.3])[:in_channels, None, None]
    return net.eval()


def scene(own: Objects, size: tuple[int, int] = (96, 128), seed: int = 0) -> Scene:
    pixels = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator(seed))
    return Scene(pixels, own, size)


def task(smallest: float = 0.0, **recipe: object) -> DetectionTask:
    """A task whose loss is asked for; it has no batches and no test."""
    few = {"regions": 8, "proposals": 50, "candidates": 200} | recipe
    mean, nothing = torch.full((3, 1, 1), 0.45), None
    how = dataclasses.replace(FASTER_RCNN, **few)
    return DetectionTask((), "", mean, how, smallest, nothing, nothing, nothing, torch.device("cpu"))
