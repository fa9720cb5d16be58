"""Small detectors with random weights that find something, and data sets and pictures for them."""

from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import nn

from deepres.data.boxes.opening import open_boxes
from deepres.models.catalog import build
from deepres.models.detection.images import fitted, padded
from deepres.models.detection.proposals import TEST
from deepres.runtime.errors import silent

PLAN = {
    "anchor_scales": (1.0, 2.0, 4.0),
    "rpn_channels": 16,
    "pooling": "align",
    "region_size": 6,
    "side": 48,
    "longest": 84,
    "proposals": 10,
    "smallest": 4.0,
    "threshold": 0.2,
    "most": 20,
}


def detector(seed=0, backbone="resnet20", classes=("ant", "bee", "cow"), mean=0.4, **plan):
    """A detector whose scores and boxes differ from region to region."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = build(f"faster-rcnn-{backbone}", len(classes), 3, detector=PLAN | plan)
        for layer, std in ((net.rpn.objectness, 0.2), (net.rpn.boxes, 0.1), (net.score, 0.6), (net.box, 0.4)):
            nn.init.normal_(layer.weight, std=std)
    net.header["classes"] = list(classes)
    net.mean = torch.full((3, 1, 1), mean)
    return _spread(net.eval())


@torch.no_grad()
def _spread(net):
    """The network with outputs of mean 0 and deviation 1 (boxes) or 1.5 (scores) over the regions of a picture."""
    seen = fitted(picture(9), net.plan.side, net.plan.longest)
    size = tuple(seen.shape[1:])
    shared = net.shared(padded([seen], net.mean))
    how = replace(TEST, after=50, smallest=4.0)
    features = net.features_of(shared, net.proposals(*net.anchored(shared), [size], how), [size])
    for layer, spread in ((net.score, 1.5), (net.box, 1.0)):
        mean, std = layer(features).mean(0), layer(features).std(0) / spread
        layer.weight.div_(std[:, None])
        layer.bias.copy_(-mean / std)
    return net


def picture(seed=0, height=50, width=80):
    """A picture uint8 (3, H, W) with structure at several sizes."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(smooth, dtype=np.int64) + random.integers(-20, 21, (height, width, 3))
    return torch.from_numpy(pixels.clip(0, 255).astype(np.uint8)).permute(2, 0, 1).contiguous()


def voc_folder(root, sizes):
    """A folder in the layout of PASCAL VOC, of a picture of each of `sizes` (height, width), all of the test set."""
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    for number, (height, width) in enumerate(sizes):
        Image.fromarray(picture(number, height, width).permute(1, 2, 0).numpy()).save(
            root / "JPEGImages" / f"{number}.png"
        )
        (root / "Annotations" / f"{number}.xml").write_text(
            f"<annotation><filename>{number}.png</filename><size><width>{width}</width><height>{height}</height>"
            "<depth>3</depth></size><object><name>ant</name><bndbox><xmin>5</xmin><ymin>6</ymin><xmax>30</xmax>"
            "<ymax>28</ymax></bndbox></object></annotation>"
        )
    names = "".join(f"{number}\n" for number in range(len(sizes)))
    (root / "ImageSets/Main/test.txt").write_text(names)
    (root / "ImageSets/Main/trainval.txt").write_text("0\n")
    return root


def box_index(root, sizes, say=silent):
    """The index of the test pictures of such a folder."""
    return open_boxes(str(voc_folder(root, sizes)), say, "trainval", "test").test


def same(found, other, tolerance=0.0):
    """Raise where two detections differ: bit for bit, or by the tolerance."""
    assert found.labels.tolist() == other.labels.tolist()
    torch.testing.assert_close(found.scores, other.scores, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(found.boxes, other.boxes, atol=100 * tolerance, rtol=tolerance)
