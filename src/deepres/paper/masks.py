"""Masks of objects, beside what the authors of Multi-task Network Cascades (MNC) print.

The paper names a first place in COCO segmentation of 2015, but neither a method nor a table. The method of its authors
is MNC (Dai, He and Sun 2015, arXiv 1512.04412), whose figures stand beside ours.

    deepres reproduce masks --scale quick --data DIR

At the quick scale the networks start from random weights, on any data with masks. The paper's scale takes VOC 2012 with
the masks of its segmentation task, and weights that were trained on ImageNet. It needs a GPU, and has not been run:

    deepres reproduce masks --scale paper --data VOC2012 --networks vgg16.pth,resnet101.pth
"""

from dataclasses import dataclass
from typing import ClassVar

from deepres.detection.cascade.kind import SEGMENTATION
from deepres.detection.cascade.recipe import MNC
from deepres.models.registry import CASCADE
from deepres.paper.claims import Claim, close
from deepres.paper.detection import NETWORKS, Means
from deepres.paper.detector_tables import Printed
from deepres.paper.detectors import QUICK, SMOKE
from deepres.paper.samples import DataKind

VGG, RESNET101 = CASCADE + "vgg16", CASCADE + "resnet101"
PRINTED = Printed(
    {VGG: (63.5, 41.5, None), RESNET101: (None, None, 24.6)},
    ("VOC 2012 mAP^r@.5", "mAP^r@.7", "COCO test-dev mAP"),
    of="MNC",
    told="The ResNet paper prints no table of masks: the figures beside ours are those of MNC's authors, who train "
    "on more masks of the pictures of VOC 2012 (those of SBD) than VOC has. Their released code gives 65.0 and 46.3.",
)
RULES = "mAP^r counts masks by 11 points of recall, as MNC does; mask mAP@[.5,.95] is COCO's."


@dataclass(frozen=True, kw_only=True)
class Masks(Means):
    """A sheet of detectors with masks."""

    kind: ClassVar[DataKind | None] = "masks"
    takes: ClassVar[str] = (
        "pictures with masks; give --data DIR, a folder as PASCAL VOC (SegmentationObject/), COCO or LabelMe lay it out"
    )
    method: ClassVar = CASCADE
    trains: ClassVar = SEGMENTATION
    recipe: ClassVar = MNC.name
    short: ClassVar = {"quick": QUICK, "smoke": SMOKE | {"mask_channels": 16, "mask_size": 7}}


MASKS = Masks(
    name="masks",
    title="Masks: instance segmentation, beside Multi-task Network Cascades",
    costs={"smoke": "seconds", "quick": "15 to 60 min each", "paper": "25,000 steps of 8 each"},
    networks=NETWORKS,
    fields={"train_set": "train", "test_set": "val", "test_images": 500},
    figures=("mapr50", "mapr70", "mask_map"),
    rules=RULES,
    printed=PRINTED,
    claims=(
        Claim(
            "The figures are those of MNC on VOC 2012.",
            "MNC, arXiv 1512.04412",
            (VGG,),
            close({VGG: {"mapr50": 63.5, "mapr70": 41.5}}, within=1.0),
            scales=("paper",),
            classes=20,
        ),
    ),
)
