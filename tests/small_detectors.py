"""Detectors small enough to test: untrained, but with scores and boxes that depend on the picture."""

import torch
from torch import nn

from deepres.models.catalog import build
from deepres.weights.file import serialise

CLASSES = ("ball", "cube", "rod")
PLAN = {"side": 96, "longest": 160, "rpn_channels": 16, "anchor_scales": (1.0, 2.0, 4.0), "smallest": 4.0}


def small(network="faster-rcnn-resnet18", classes=CLASSES, **plan):
    """A detector that finds objects of all its classes in `pictures`, with the mean of its training images."""
    torch.manual_seed(0)
    net = build(network, len(classes), detector=PLAN | {"proposals": 40, "threshold": 0.2, "most": 20} | plan)
    net.header["classes"], net.mean = list(classes), torch.tensor([0.5, 0.45, 0.4])[:, None, None]
    with torch.no_grad():
        for layer in net.features.modules():
            if isinstance(layer, nn.Conv2d):  # in GoogLeNet as it starts, images die out on the way
                nn.init.kaiming_normal_(layer.weight)
        for layer in (net.rpn.objectness, net.rpn.boxes, net.score, net.box):
            nn.init.normal_(layer.weight, std=0.5 / layer.weight[0].numel() ** 0.5)
        # All features are positive: with their mean taken off, no class wins everywhere.
        (picture,) = pictures((96, 160))
        shared = net.eval().shared(picture[None].float() / 255 - net.mean)
        corners = torch.rand(50, 2, 2, generator=torch.Generator().manual_seed(2)) * torch.tensor([160.0, 96.0])
        regions = torch.cat([corners.amin(1), corners.amax(1) + 8], 1)
        logits = net.siblings(net.features_of(shared, [regions], [(96, 160)])).logits
        net.score.weight /= logits.std(0).mean()
        net.score.bias -= logits.mean(0) / logits.std(0).mean()
    return net


def written(net, file):
    """The weights file of a network."""
    file.write_bytes(serialise(net.state_dict(), net.mean, net.header))
    return file


def pictures(*sizes):
    """Noise in blocks of 8 pixels, uint8 (3, height, width), of each size."""
    generator = torch.Generator().manual_seed(1)
    made = []
    for height, width in sizes:
        blocks = torch.randint(0, 256, (3, -(-height // 8), -(-width // 8)), generator=generator, dtype=torch.uint8)
        made.append(blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :height, :width].contiguous())
    return made


def assert_same_detections(one, other):
    """To the last bit, and there are some."""
    assert len(one) and one.labels.equal(other.labels)
    assert one.boxes.equal(other.boxes) and one.scores.equal(other.scores)
