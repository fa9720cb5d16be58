"""The sections of the paper, and the commands that stand for each: from here docs/paper.md is made."""

from dataclasses import dataclass

from deepres.paper.reproduce import SHEETS
from deepres.paper.samples import DataKind

# Of the data that a sheet takes, what its command names.
DATA: dict[DataKind, str] = {
    "images": "cifar10",
    "photographs": "PHOTOGRAPHS",
    "boxes": "BOXES",
    "objects": "OBJECTS",
    "masks": "MASKS",
}


@dataclass(frozen=True)
class Section:
    """A section of the paper: what it has, with the command for each, and the names of its tables and figures."""

    number: str
    title: str
    rows: tuple[tuple[str, str], ...] = ()
    sheets: tuple[str, ...] = ()

    @property
    def commands(self) -> list[tuple[str, str]]:
        """What the section has, and the command that stands for it: its tables and figures last."""
        known = [SHEETS[name] for name in self.sheets if name in SHEETS]
        data = [f" --data {DATA[sheet.kind]}" if sheet.kind else "" for sheet in known]
        named = zip(known, data, strict=True)
        return [*self.rows, *((sheet.title, f"deepres reproduce {sheet.name}{own}") for sheet, own in named)]


SECTIONS = (
    Section(
        "1",
        "Introduction",
        (
            (
                "COCO segmentation, by its method (MNC)",
                "deepres train segmenter --data MASKS --backbone RUN",
            ),
        ),
        ("fig1", "masks"),
    ),
    Section(
        "2",
        "Related Work",
        (
            ("Highway networks, whose shortcuts have gates", "deepres train highway32 --data cifar10"),
            ("VGG, GoogLeNet and PReLU-net beside ResNets", "deepres info --compare"),
        ),
    ),
    Section("3.1", "Residual Learning", (("F(x) + x, layer by layer", "deepres info resnet18"),)),
    Section(
        "3.2",
        "Identity Mapping by Shortcuts",
        (
            ("Figure 2: a block with an identity shortcut", "deepres info resnet34"),
            ("Eq. (2): projections where dimensions grow (B)", "deepres info resnet34-b"),
        ),
    ),
    Section(
        "3.3",
        "Network Architectures",
        (
            ("Figure 3: VGG-19", "deepres info vgg19"),
            ("Figure 3: 34 layers, plain", "deepres info plain34"),
            ("Figure 3: 34 layers, residual, without parameters (A)", "deepres info resnet34-a"),
        ),
        ("table1",),
    ),
    Section(
        "3.4",
        "Implementation",
        (
            ("Training, as the section has it", "deepres train resnet34 --recipe imagenet --data PHOTOGRAPHS"),
            ("Test: 10-crop", "deepres eval RUN --protocol 10-crop"),
            ("Test: fully convolutional, at several scales", "deepres eval RUN --protocol dense"),
        ),
    ),
    Section(
        "4.1",
        "ImageNet Classification",
        (
            ("Figure 5: a bottleneck block", "deepres info resnet50"),
            ("An ensemble", "deepres eval RUN RUN RUN --protocol dense"),
        ),
        ("fig4", "table2", "table3", "table4", "table5"),
    ),
    Section(
        "4.2",
        "CIFAR-10 and Analysis",
        (
            ("The 45k/5k division", "deepres train resnet20 --data cifar10 --split 45k/5k"),
            ("110 layers, with the warm-up", "deepres train resnet110 --data cifar10 --recipe cifar-deep"),
            ("1202 layers", "deepres train resnet1202 --data cifar10 --recipe cifar-deep"),
        ),
        ("fig6", "fig7", "table6"),
    ),
    Section("4.3", "Object Detection on PASCAL and MS COCO", sheets=("table7", "table8")),
    Section(
        "A",
        "Object Detection Baselines",
        (
            (
                "Faster R-CNN, trained end to end",
                "deepres train detector --recipe faster-rcnn --data BOXES --backbone RUN",
            ),
            ("The same in four steps", "deepres train detector --alternating --data BOXES --backbone RUN"),
            ("PASCAL VOC, 07++12", "deepres train detector --data VOCdevkit --train-set 07++12 --backbone RUN"),
        ),
        ("table10", "table11"),
    ),
    Section(
        "B",
        "Object Detection Improvements",
        (
            ("Box refinement", "deepres eval RUN --refine"),
            ("Global context", "deepres train detector --set context=true --data BOXES --backbone RUN"),
            ("Multi-scale testing", "deepres eval RUN --sides 200,400,600,800,1000"),
            ("Ensemble", "deepres eval RUN RUN RUN --refine"),
            ("ImageNet detection: val1 and val2", "deepres data info ILSVRC"),
        ),
        ("table9", "table12"),
    ),
    Section(
        "C",
        "ImageNet Localization",
        (
            ("The RPN with units for each class", "deepres train localizer --data OBJECTS --backbone RUN"),
            ("The R-CNN stage", "deepres train localizer --data OBJECTS --backbone RUN --set rpn=RUN"),
            ("Test: 1-crop, the class given", "deepres eval RUN"),
            ("Test: dense, classes predicted", "deepres eval RUN RUN RUN --protocol dense"),
        ),
        ("table13", "table14"),
    ),
)
