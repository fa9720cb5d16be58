"""What a detector finds in images: boxes in their pixels, as the weights' header has it, with context or without."""

import dataclasses

import pytest
import torch

from deepres.models.catalog import build
from deepres.models.detection.boxes import clip
from deepres.models.detection.detections import best
from deepres.models.detection.images import fitted, padded
from deepres.models.registry import DETECTOR
from deepres.runtime.errors import InputError
from deepres.weights.file import serialise
from deepres.weights.load import load_network
from detection_scenes import PLAN, generator, random_boxes, small_detector
from networks import randomise

MEAN = torch.tensor([0.5, 0.4, 0.3])[:, None, None]


def picture(height: int, width: int, seed: int = 0):
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator(seed))


@pytest.mark.parametrize("size", [(61, 97), (150, 101), (96, 128), (40, 400)])
def test_detections_are_in_pixels_of_the_given_image(size):
    """Sizes that are not scaled alike in height and width, too."""
    net = small_detector(threshold=0.0)
    image = picture(*size)
    found = net.detect([image])[0]
    seen = fitted(image, 96, 160)
    height, width = seen.shape[1:]
    # The steps one after another, on the image as it is seen.
    with torch.no_grad():
        out = net(seen[None].float() / 255 - MEAN)
        probabilities, boxes = net.scored(net.shared(seen[None].float() / 255 - MEAN), out.regions, [(height, width)])[
            0
        ]
    boxes = boxes * torch.tensor([size[1] / width, size[0] / height, size[1] / width, size[0] / height])
    expected = best(probabilities, clip(boxes, size), 0.0, 0.3, 100)
    assert len(found) == len(expected) > 5
    assert torch.allclose(found.boxes, expected.boxes, atol=1e-3) and torch.equal(found.labels, expected.labels)
    assert (found.boxes >= 0).all() and (found.boxes <= torch.tensor([size[1], size[0]] * 2)).all()
    assert found.boxes[:, 2].max() > 0.8 * size[1] and found.boxes[:, 3].max() > 0.8 * size[0]


def test_images_of_a_batch_are_found_in_as_each_alone():
    net = small_detector(threshold=0.0)
    images = [picture(61, 97, 1), picture(120, 90, 2)]
    for one, found in zip(images, net.detect(images), strict=True):
        alone = net.detect([one])[0]
        assert torch.equal(found.boxes, alone.boxes) and torch.equal(found.scores, alone.scores)


@torch.no_grad()
def test_images_of_one_size_give_in_a_batch_what_each_gives_alone():
    net = small_detector(context=True)
    x = padded([picture(96, 128, 1), picture(96, 128, 2)], MEAN)
    both = net(x)
    alone = [net(own[None]) for own in x]
    for number, own in enumerate(alone):
        assert torch.allclose(both.objectness[number], own.objectness[0], atol=1e-4)
        assert torch.allclose(both.regions[number], own.regions[0], atol=1e-2)
    logits = torch.cat([own.found.logits for own in alone])
    assert torch.allclose(both.found.logits, logits, atol=1e-3) and logits.std() > 1e-3


@torch.no_grad()
def test_regions_of_a_padded_batch_are_inside_of_their_images():
    net = small_detector()
    sizes = [(64, 128), (96, 80)]
    out = net(padded([picture(*size) for size in sizes], MEAN), sizes)
    for regions, (height, width) in zip(out.regions, sizes, strict=True):
        assert len(regions) and (regions[:, 2] <= width).all() and (regions[:, 3] <= height).all()
    assert len(out.found.logits) == sum(map(len, out.regions))


def test_no_proposals_at_all_are_no_detections():
    net = small_detector(smallest=8000.0, context=True)
    found = net.detect([picture(61, 97)])[0]
    assert len(found) == 0 and found.boxes.shape == (0, 4) and found.scores.shape == found.labels.shape == (0,)


def test_channels_and_mean_are_those_of_the_training():
    net = small_detector(threshold=0.0)
    image = picture(96, 128)
    best = net.detect([image])[0].scores[:3]
    assert not torch.allclose(best, net.detect([image.flip(0)])[0].scores[:3])
    net.mean = MEAN.flip(0)
    assert not torch.allclose(best, net.detect([image])[0].scores[:3])
    net.mean = None
    with pytest.raises(InputError, match="has no mean"):
        net.detect([image])


@pytest.mark.parametrize(
    "images",
    [[picture(40, 50).float() / 255], [picture(40, 50)[:1]], picture(40, 50), [picture(0, 50)], ["a.png"]],
    ids=["floats", "gray", "no list", "empty", "no tensor"],
)
def test_images_of_another_kind_are_refused_in_one_sentence(images):
    with pytest.raises(InputError, match="detects in a list of images uint8 \\(3, height, width\\)"):
        small_detector().detect(images)


def test_a_detector_in_training_mode_detects_nothing():
    with pytest.raises(InputError, match="training mode"):
        small_detector().train().detect([picture(40, 50)])


def test_a_weights_file_tells_backbone_stride_plan_and_mean(tmp_path):
    """Boxes are the same, and others where the stride of the bottlenecks stands on the 3x3 convolution."""
    plan = PLAN | {"side": 64, "proposals": 6, "threshold": 0.0, "pooling": "align"}
    net = randomise(build(f"{DETECTOR}resnet50", 2, stride_on="3x3", pool_padding=0, detector=plan))
    net.mean = MEAN
    file = tmp_path / "detector.safetensors"
    file.write_bytes(serialise(net.state_dict(), net.mean, net.header))
    loaded = load_network(file)
    assert loaded.plan == net.plan and loaded.plan.pooling == "align"
    image = picture(64, 80)
    found, again = net.detect([image])[0], loaded.detect([image])[0]
    assert len(found) and torch.equal(found.boxes, again.boxes) and torch.equal(found.scores, again.scores)
    other = build(f"{DETECTOR}resnet50", 2, pool_padding=0, detector=plan).eval()
    other.load_state_dict(net.state_dict())
    other.mean = MEAN
    assert not torch.equal(other.detect([image])[0].boxes, found.boxes)


# --- context ---


@torch.no_grad()
def test_with_context_the_features_of_the_whole_image_stand_beside_those_of_each_region():
    net, sizes = small_detector(context=True), [(96, 128), (64, 80)]
    shared = net.shared(padded([picture(*size) for size in sizes], MEAN))
    regions = [random_boxes(3, sizes[0]), random_boxes(2, sizes[1], 1)]
    features = net.features_of(shared, regions, sizes)
    without = small_detector()
    without.features.load_state_dict(net.features.state_dict())
    whole = without.features_of(shared, [torch.tensor([[0.0, 0, width, height]]) for height, width in sizes], sizes)
    assert features.shape == (5, 1024) and net.score.in_features == 1024
    assert torch.allclose(features[:, :512], without.features_of(shared, regions, sizes), atol=1e-5)
    assert torch.allclose(features[:, 512:], whole[[0, 0, 0, 1, 1]], atol=1e-5)
    assert not torch.allclose(whole[0], whole[1], atol=1e-3)


def test_without_context_nothing_changes():
    assert small_detector().state_dict().keys() == small_detector(context=True).state_dict().keys()
    assert small_detector().score.in_features == 512
    assert dataclasses.asdict(small_detector().plan)["context"] is False


def test_anchors_are_kept_for_sizes_seen_before_but_not_without_bound(monkeypatch):
    net = small_detector()
    first = net.anchors((4, 6), torch.device("cpu"))
    assert net.anchors((4, 6), torch.device("cpu")) is first and first.shape == (4 * 6 * 9, 4)
    monkeypatch.setattr("deepres.models.detection.detector.MOST_ANCHORS", 1000)
    for width in range(7, 60):
        assert len(net.anchors((4, width), torch.device("cpu"))) == 4 * width * 9
        assert sum(map(len, net._anchors.values())) < 1000 + 4 * 60 * 9
    assert torch.equal(net.anchors((4, 6), torch.device("cpu")), first)
