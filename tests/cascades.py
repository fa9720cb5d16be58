"""Small cascades with random weights, and scenes with masks."""

import torch
from torch import nn

from deepres.detection.cascade.true_masks import TrueMasks
from deepres.models.catalog import build
from deepres.models.segmentation.cascade import Cascade
from deepres.runtime.masks import Masks, encoded
from detection_scenes import PLAN, generator, random_boxes

SIZE = (48, 64)


def small_cascade(network="resnet20", classes=3, in_channels=3, **plan):
    """A cascade in evaluation whose masks, scores and boxes differ from region to region."""
    torch.manual_seed(0)
    own = PLAN | {"side": 48, "longest": 80, "warped": 12, "region_size": 6, "mask_channels": 16, "mask_size": 7}
    net = build(f"mnc-{network}", classes, in_channels, detector=own | plan)
    assert isinstance(net, Cascade)
    for layer in (net.rpn.objectness, net.rpn.boxes, net.score, net.mask_score, net.box, net.mask.fc, net.mask.logits):
        nn.init.normal_(layer.weight, std=0.3)
    net.mean = torch.tensor([0.5, 0.4, 0.3])[:in_channels, None, None]
    return _spread(net.eval())


@torch.no_grad()
def _spread(net):
    """The network with outputs of mean 0 and deviation 1 over the regions of an image, but boxes, of 0.5."""
    image = torch.rand(1, net.header["in_channels"], *SIZE, generator=generator()) - 0.5
    features = net.features_of(net.shared(image), [random_boxes(40, SIZE)], [SIZE])
    for layer, spread in ((net.score, 1.0), (net.mask_score, 1.0), (net.box, 0.5)):
        std, mean = torch.std_mean(layer(features), 0)
        layer.weight.mul_(spread / std[:, None])
        layer.bias.copy_(-spread * mean / std)
    return net


def true_masks(maps, unknown=None):
    """True masks of maps bool (n, H, W); of the object at the place `unknown` there is none."""
    texts = encoded(maps).texts
    if unknown is not None:
        texts[unknown] = b""
    return TrueMasks(Masks.of(texts, [maps.shape[1:]] * len(maps)), tuple(maps.shape[1:]))


NO_MASKS = true_masks(torch.zeros(0, *SIZE))


def ovals(boxes, size=SIZE):
    """Maps bool (n, H, W) of the ovals in boxes (n, 4)."""
    y, x = ((torch.arange(length) + 0.5) for length in size)
    low, high = boxes[:, :2], boxes[:, 2:]
    middle, half = (low + high) / 2, ((high - low) / 2).clamp(min=1e-3)
    across = ((x[None] - middle[:, :1]) / half[:, :1]) ** 2
    down = ((y[None] - middle[:, 1:]) / half[:, 1:]) ** 2
    return across[:, None, :] + down[:, :, None] <= 1
