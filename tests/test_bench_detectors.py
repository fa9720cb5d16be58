"""Contests of detectors: both sides do the same work, and every row is what it says."""

import json

import pytest
import torch

from deepres.bench import detectors, inference
from deepres.bench.contestants import DETECTORS, ready, rivals
from deepres.bench.job import Job
from deepres.bench.tables import file_stem, what
from deepres.commands.bench import JobOptions, _of_detectors  # pyright: ignore[reportPrivateUsage]
from deepres.runtime.errors import InputError

pytestmark = pytest.mark.long
JOB = Job("train", "faster-rcnn-resnet18", 1)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Pictures of 96 x 128 pixels, and a backbone whose BN is fitted by little."""
    monkeypatch.setattr(detectors, "HEIGHT", 100)
    monkeypatch.setattr(detectors, "WIDTH", 140)
    monkeypatch.setattr(inference, "pictures", lambda job, count, seed: torch.randn(2, 3, 64, 64))


@pytest.mark.parametrize(("task", "name"), [(task, name) for task, names in DETECTORS.items() for name in names])
def test_every_contestant_takes_its_turn(task, name, monkeypatch):
    assert ready(name, Job(task, "faster-rcnn-resnet18", 1)).turn() == (2 if task == "memory" else 1)


def test_both_sides_have_the_same_parameters_and_the_same_maps():
    ours, theirs = detectors.our_detector(JOB), detectors._torchvision(JOB)  # pyright: ignore[reportPrivateUsage]
    counts = [
        sum(parameter.numel() for name, parameter in net.named_parameters() if ".bn." not in name)
        for net in (ours, theirs)
    ]
    of_background = 4 * (ours.box.in_features + 1)  # torchvision's has boxes of the background, too
    assert counts[1] - counts[0] == of_background
    images = torch.rand(1, 3, 96, 128)
    with torch.no_grad():
        one, other = ours.eval().shared(images), theirs.eval().backbone(images)
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
        cut = torch.rand(2, one.shape[1], 14, 14)
        torch.testing.assert_close(
            ours.features.region_features(cut), theirs.roi_heads.box_head(cut), rtol=1e-3, atol=1e-3
        )
    assert theirs.rpn.head.conv.weight.shape == ours.rpn.conv.weight.shape
    assert theirs.rpn.head.bbox_pred.weight.shape == ours.rpn.boxes.weight.shape


def test_detector_stands_for_training_test_and_memory_of_each_backbone():
    jobs = _of_detectors(["resnet50", "resnet18"], JobOptions(precision="fp32"))
    assert [(job.task, job.network, job.batch_size) for job in jobs] == [
        ("train", "faster-rcnn-resnet50", 1),
        ("train", "faster-rcnn-resnet18", 1),
        ("infer", "faster-rcnn-resnet50", 1),
        ("infer", "faster-rcnn-resnet18", 1),
        ("memory", "faster-rcnn-resnet50", 1),
    ]
    assert [job.memory_budget for job in jobs] == [None] * 4 + [6.0]


def test_what_detectors_are_not_measured_in_is_refused(refused):
    assert "not in load" in refused("bench", "load", "faster-rcnn-resnet18")
    assert "resnet18 to resnet152" in refused("bench", "infer", "faster-rcnn-resnet8", "--against", "scales")


def test_names_of_records_and_works():
    record = {"work": JOB.__dict__ | {"epoch": False}, "rival": {"name": "torchvision"}}
    assert file_stem(json.loads(json.dumps(record))) == "train-faster-rcnn-resnet18-b1-torchvision"
    assert what(record["work"]) == "faster-rcnn-resnet18, a training step of 1 picture of 600x800"
    assert rivals(JOB) == ["torchvision"]
    with pytest.raises(InputError, match="alone"):
        rivals(Job("dense", "faster-rcnn-resnet18", 1))
