"""A detector's training step and its test, beside torchvision's Faster R-CNN on the same backbone.

Both have one picture of 600 x 800 pixels at a time, 128 sampled regions of 2000 proposals in training and 300 in the
test, fixed BN, and the same start weights. Weights are random, but those of BN, which fit the backbone's maps.
"""

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from deepres.acceleration.on_kernels import resolve_kernels
from deepres.acceleration.recomputed import save_memory
from deepres.bench.inference import torchvision_net
from deepres.bench.inputs import many
from deepres.bench.job import Contestant, Job
from deepres.bench.memory import measured
from deepres.detection.form import fast_form
from deepres.detection.protocol import VOTING, Protocol, pyramid
from deepres.detection.recipe import FASTER_RCNN, PLAN
from deepres.detection.scenes import Scene
from deepres.detection.targets import ANCHOR_NEGATIVE, ANCHOR_POSITIVE, REGION_POSITIVE, Objects
from deepres.detection.task import DetectionTask
from deepres.detection.tester import detected
from deepres.models.catalog import build
from deepres.models.detection.anchors import BASE
from deepres.models.detection.detector import Detector, detector
from deepres.models.detection.proposals import TEST, TRAINING
from deepres.models.registry import DETECTOR
from deepres.runtime.device import autocast
from deepres.runtime.errors import silent
from deepres.runtime.versions import version
from deepres.training.freeze import freeze
from deepres.training.loop import prepare
from deepres.training.optimizer import optimizer_for
from deepres.training.trainer import Setup
from deepres.weights.names import torchvision_state_dict
from deepres.weights.state import load_state

HEIGHT, WIDTH, OBJECTS, CLASSES = PLAN.side, 800, 8, 20
ADAPTED = 1024  # channels of conv4_x of a bottleneck network; a basic one has a quarter


def train(job: Job) -> Contestant:
    """Our training step as a run takes it."""
    step, setting = training_step(job)
    return Contestant(many(job, step), setting)


def memory(job: Job) -> Contestant:
    """The peak of our training step within the budget of the job, if it has one."""
    return _of_memory(job, *training_step(job))


def unlimited(job: Job) -> Contestant:
    """The same without a budget."""
    return memory(dataclasses.replace(job, memory_budget=None))


def torchvision_memory(job: Job) -> Contestant:
    """The peak of torchvision's training step."""
    return _of_memory(job, *_torchvision_step(job))


def infer(job: Job) -> Contestant:
    """Our test of a picture in memory, with its non-maximum suppression."""
    return _test(job, Protocol(), "one scale")


def scales(job: Job) -> Contestant:
    """The same at five scales: what multi-scale testing costs."""
    return _test(job, Protocol(scales=pyramid(PLAN.side)), "five scales")


def refinement(job: Job) -> Contestant:
    """The same with box refinement and voting."""
    return _test(job, Protocol(refine=1, voting=VOTING), "box refinement and voting")


def torchvision(job: Job) -> Contestant:
    """torchvision's Faster R-CNN in fp32, eager: its training step, or its test."""
    if job.task == "train":
        step, setting = _torchvision_step(job)
        return Contestant(many(job, step), setting)
    net, images = _torchvision(job).eval(), [image.float() / 255 for image in _pictures(job)]

    def run() -> None:
        with torch.no_grad():
            net(images)

    return Contestant(many(job, run), _torchvision_setting())


def training_step(job: Job) -> tuple[Callable[[], object], str]:
    """A function that takes our training step, and what it runs on."""
    # The network as a run prepares it.
    kernels = job.device == "cpu" and resolve_kernels("auto", "cpu", 0, silent)
    how = Setup(job.device, job.precision, kernels, memory_budget=job.memory_budget)
    net, recipe = our_detector(job), FASTER_RCNN
    freeze(net, ("bn",))
    prepare(net, recipe, how)
    nothing = cast(Any, None)  # of the task, the loss alone is asked for
    room, device = (job.batch_size, HEIGHT, WIDTH), torch.device(job.device)
    assert net.mean is not None
    task = DetectionTask((), "", net.mean, recipe, PLAN.smallest, nothing, nothing, nothing, device, room)
    runs_on = "kernels" if kernels else "eager"
    if job.memory_budget is not None:
        kept = save_memory(net, task.largest(1), int(job.memory_budget * 2**30), job.precision, task.rehearse)
        runs_on += f", a budget of {job.memory_budget:g} GiB ({kept.segments} segments)"
    # A step on pictures in memory.
    optimizer, scenes = optimizer_for(net.parameters(), recipe), _scenes(job)

    def step() -> None:
        with autocast(job.precision, job.device):
            loss, _ = task.loss(net, scenes)
        loss.backward()
        optimizer.step_at(recipe.lr)

    return step, f"{job.precision}, channels-last, {runs_on}"


def our_detector(job: Job) -> Detector:
    """Our detector on torchvision's backbone, whose stride is on the 3x3."""
    theirs = _backbone(job)
    features = build(job.network.removeprefix(DETECTOR), stride_on="3x3")
    load_state(features, torchvision_state_dict(theirs.state_dict()))
    torch.manual_seed(0)
    made = detector(features, PLAN, CLASSES)
    made.mean = torch.full((3, 1, 1), 0.45)
    return made.to(job.device)


def _test(job: Job, protocol: Protocol, setting: str) -> Contestant:
    net = our_detector(job).eval().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    fast, images = fast_form(net), _pictures(job)

    def run() -> None:
        with autocast(job.precision, job.device):
            detected([fast], protocol, images)

    return Contestant(many(job, run), f"{job.precision}, channels-last, BN folded, {setting}")


def _of_memory(job: Job, step: Callable[[], object], setting: str) -> Contestant:
    def counted() -> int:
        step()
        return job.batch_size

    return measured(counted, setting)


def _pictures(job: Job) -> list[Tensor]:
    """Smooth random pictures uint8 (3, HEIGHT, WIDTH) on the device."""
    random = torch.rand(job.batch_size, 3, HEIGHT // 20, WIDTH // 20, generator=torch.Generator().manual_seed(0))
    large = nn.functional.interpolate(random, (HEIGHT, WIDTH), mode="bilinear")
    return list((255 * large).byte().to(job.device))


def _scenes(job: Job) -> list[Scene]:
    """The pictures, each with objects of 60 to 260 pixels a side."""
    generator, none = torch.Generator().manual_seed(0), torch.zeros(0, 4)
    made: list[Scene] = []
    for image in _pictures(job):
        place, size = torch.rand(2, OBJECTS, 2, generator=generator)
        size = 60 + 200 * size
        low = place * (torch.tensor([WIDTH, HEIGHT]) - size)
        objects = Objects(torch.cat([low, low + size], 1), torch.arange(OBJECTS) % CLASSES, none)
        made.append(Scene(image, objects, (HEIGHT, WIDTH)))
    return made


def _backbone(job: Job) -> nn.Module:
    """torchvision's network of that name with running statistics that fit its maps."""
    return torchvision_net(dataclasses.replace(job, network=job.network.removeprefix(DETECTOR)))


class _Shared(nn.Sequential):
    """conv1 to conv4_x, which torchvision asks for the number of its channels."""

    out_channels: int


class _Head(nn.Module):
    """torchvision's `RPNHead` with as many channels as ours has: its own would have those of the map."""

    def __init__(self, in_channels: int, anchors: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, PLAN.rpn_channels, 3, padding=1)
        self.cls_logits = nn.Conv2d(PLAN.rpn_channels, anchors, 1)
        self.bbox_pred = nn.Conv2d(PLAN.rpn_channels, 4 * anchors, 1)
        for layer in (self.conv, self.cls_logits, self.bbox_pred):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(cast(Tensor, layer.bias))

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Logits and deltas of each map."""
        seen = [nn.functional.relu(self.conv(one), inplace=True) for one in maps]
        return [self.cls_logits(one) for one in seen], [self.bbox_pred(one) for one in seen]


def _torchvision(job: Job) -> nn.Module:
    """torchvision's `FasterRCNN` with conv1 to conv4_x as backbone, and conv5_x with pooling as head of the regions."""
    from torchvision import models
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
    from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

    # The same weights as ours, with fixed BN.
    name = job.network.removeprefix(DETECTOR)
    whole: Any = getattr(models, name)(norm_layer=FrozenBatchNorm2d)
    state = _backbone(job).state_dict()
    whole.load_state_dict({key: value for key, value in state.items() if not key.endswith("num_batches_tracked")})
    layers = OrderedDict(list(whole.named_children())[:-3])
    shared, width = _Shared(layers), whole.fc.in_features
    shared.out_channels = width // 2
    head = nn.Sequential(whole.layer4, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    # The same anchors, proposals and regions.
    torch.manual_seed(0)
    anchors: Any = AnchorGenerator((tuple(int(BASE * scale) for scale in PLAN.anchor_scales),), (PLAN.anchor_ratios,))
    predictor = FastRCNNPredictor(width, 1 + CLASSES)
    for layer, std in ((predictor.cls_score, 0.01), (predictor.bbox_pred, 0.001)):
        nn.init.normal_(layer.weight, std=std)
        nn.init.zeros_(layer.bias)
    recipe = FASTER_RCNN
    net = FasterRCNN(
        shared,
        min_size=PLAN.side,
        max_size=PLAN.longest,
        image_mean=[0.45] * 3,
        image_std=[1.0] * 3,
        rpn_anchor_generator=anchors,
        rpn_head=_Head(shared.out_channels, len(PLAN.anchor_scales) * len(PLAN.anchor_ratios)),
        rpn_pre_nms_top_n_train=recipe.candidates,
        rpn_pre_nms_top_n_test=TEST.before,
        rpn_post_nms_top_n_train=recipe.proposals,
        rpn_post_nms_top_n_test=PLAN.proposals,
        rpn_nms_thresh=TRAINING.overlap,
        rpn_fg_iou_thresh=ANCHOR_POSITIVE,
        rpn_bg_iou_thresh=ANCHOR_NEGATIVE,
        rpn_batch_size_per_image=recipe.anchors,
        box_roi_pool=MultiScaleRoIAlign(["0"], output_size=14, sampling_ratio=2),
        box_head=head,
        box_predictor=predictor,
        box_score_thresh=PLAN.threshold,
        box_nms_thresh=PLAN.nms,
        box_detections_per_img=PLAN.most,
        box_fg_iou_thresh=REGION_POSITIVE,
        box_bg_iou_thresh=REGION_POSITIVE,
        box_batch_size_per_image=recipe.regions,
        box_positive_fraction=recipe.positive_share,
    )
    return net.to(job.device)


def _torchvision_step(job: Job) -> tuple[Callable[[], object], str]:
    """A function that takes torchvision's training step, and its setting."""
    net = _torchvision(job).train()
    recipe, scenes = FASTER_RCNN, _scenes(job)
    optimizer = torch.optim.SGD(net.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay)
    images = [scene.image.float() / 255 for scene in scenes]
    targets = [
        {"boxes": scene.objects.boxes.to(job.device), "labels": 1 + scene.objects.labels.to(job.device)}
        for scene in scenes
    ]

    def step() -> float:
        losses: dict[str, Tensor] = net(images, targets)
        loss = torch.stack([*losses.values()]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step, _torchvision_setting()


def _torchvision_setting() -> str:
    return f"torchvision {version('torchvision')}, FasterRCNN with conv1 to conv4_x as backbone, fp32 eager, NCHW"
