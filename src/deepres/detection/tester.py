"""A detector on the pictures of a test set."""

from collections.abc import Callable, Generator

import torch
from torch import Tensor

from deepres.data.boxes.index import BoxIndex
from deepres.data.stream.loader import Reading, in_order
from deepres.detection.scenes import test_samples
from deepres.models.detection.detector import Detector
from deepres.models.detection.outputs import Detections
from deepres.weights.find import require_mean

NONE = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))


def detections(
    net: Detector,
    index: BoxIndex,
    places: Tensor,
    reading: Reading,
    progress: Callable[[int], None] = lambda done: None,
) -> Generator[tuple[int, Detections]]:
    """The place of each picture and its detections, in pixels of the upright picture, on the processor.

    A picture that does not decode raises `InputError`; with `reading.skip_bad` it has no detections and is told.
    """
    device = next(net.parameters()).device
    mean = require_mean(net, net.name).to(device)
    samples = test_samples(index, net.plan.side, net.plan.longest)
    answers = in_order(samples, 1, reading, places)
    for number, (place, answer) in enumerate(zip(places.tolist(), answers, strict=True), 1):
        found = NONE
        for scene in answer.batch or []:
            on_device = net.detect_fitted(scene.image.to(device), scene.size, mean)
            found = Detections(on_device.boxes.cpu(), on_device.scores.cpu(), on_device.labels.cpu())
        progress(number)
        yield place, found
