"""What the regions of a cascade learn, and its losses: against loops over single regions and pixels."""

import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from cascades import NO_MASKS, SIZE, ovals, small_cascade, true_masks
from deepres.detection.cascade.loss import FIGURES, cascade_losses, pass_losses
from deepres.detection.cascade.recipe import CascadeConfig, CascadeRecipe
from deepres.detection.cascade.targets import LEFT_OUT, Binarising, mask_labels, of_all, sampled
from deepres.detection.cascade.true_masks import TrueMasks
from deepres.detection.targets import sample_regions
from deepres.models.catalog import build
from deepres.models.detection.detector import RegionOutputs
from deepres.models.segmentation.cascade import Pass
from deepres.runtime.errors import InputError
from deepres.runtime.masks import encoded, mask_overlaps
from deepres.training.freeze import freeze, set_training
from deepres.training.optimizer import SGD
from deepres.training.settings import merge
from detection_scenes import NONE, generator, objects, random_boxes

HOW = Binarising(21, 0.4)
BOXES = torch.tensor([[6.0, 5, 34, 41], [28, 12, 60, 44]])
LABELS = torch.tensor([2, 0])


def moved(boxes, count, seed, spread=3.0):
    """`count` boxes near each of `boxes`, inside of the image."""
    every = boxes.repeat(count, 1) + spread * torch.randn(count * len(boxes), 4, generator=generator(seed))
    return torch.minimum(every.clamp(min=0), torch.tensor([SIZE[1], SIZE[0]] * 2))


def near_and_far(seed=0):
    return torch.cat([moved(BOXES, 6, seed), random_boxes(12, SIZE, seed + 1, (5, 14)), BOXES])


# --- targets ---


def test_the_first_pass_samples_as_a_detector_and_the_second_takes_all():
    regions, own = near_and_far(), objects(BOXES, LABELS)
    torch.manual_seed(1)
    ours = sampled(regions, own, true_masks(ovals(BOXES)), HOW, 10, 0.3, 0.0)
    torch.manual_seed(1)
    theirs = sample_regions(regions, own, 10, 0.3, 0.0)
    assert ours.sample.places.equal(theirs.places) and ours.sample.deltas.equal(theirs.deltas)
    assert len(ours.objects) == 3 and len(ours.sample.places) == 10
    every = of_all(regions, own, true_masks(ovals(BOXES)), HOW)
    assert sorted(every.sample.places.tolist()) == list(range(len(regions)))
    assert 3 < len(every.objects) == int((every.sample.labels > 0).sum())


def test_true_masks_are_those_of_the_object_inside_of_the_region():
    regions, true = near_and_far(), true_masks(ovals(BOXES))
    own = of_all(regions, objects(BOXES, LABELS), true, HOW)
    assert own.masks.shape == (len(own.objects), 21, 21) and own.known.all()
    for region, place, mask in zip(regions[own.sample.places].tolist(), own.objects.tolist(), own.masks, strict=False):
        # At the centre of each position, by the formula of the oval.
        left, top, right, bottom = region
        x0, y0, x1, y1 = BOXES[place].tolist()
        wrong = 0
        for row in range(21):
            for column in range(21):
                x, y = left + (column + 0.5) / 21 * (right - left), top + (row + 0.5) / 21 * (bottom - top)
                across, down = (x - (x0 + x1) / 2) / (x1 - x0) * 2, (y - (y0 + y1) / 2) / (y1 - y0) * 2
                wrong += bool(mask[row, column]) != (across**2 + down**2 <= 1)
        assert wrong <= 40  # of 441, at the edge of the oval, whose true mask is of whole pixels
        assert LABELS[place] + 1 == own.sample.labels[own.objects.tolist().index(place)]


def test_masks_as_large_as_the_picture_on_disk_give_the_targets_of_the_image():
    small, regions, own = true_masks(ovals(BOXES)), near_and_far(), objects(BOXES, LABELS)
    large = TrueMasks(encoded(ovals(BOXES).repeat_interleave(2, 1).repeat_interleave(3, 2)), SIZE)
    assert large.areas.tolist() == pytest.approx(small.areas.tolist())
    one, other = (of_all(regions, own, masks, HOW) for masks in (small, large))
    assert one.objects.equal(other.objects) and (one.masks != other.masks).sum() <= 2  # by rounding


def test_objects_read_without_masks_have_none_that_is_known():
    own = TrueMasks.of(objects(BOXES, LABELS), SIZE)
    assert own.known.tolist() == [False, False] and own.frame == SIZE
    made = of_all(near_and_far(), objects(BOXES, LABELS), own, HOW)
    assert len(made.known) == len(made.objects) > 0 and not made.known.any()


def test_regions_without_objects_have_no_masks():
    regions = near_and_far()
    for made in (
        of_all(regions, objects(), NO_MASKS, HOW),
        sampled(regions, objects(), NO_MASKS, HOW, 8, 0.3, 0.0),
        of_all(NONE, objects(BOXES, LABELS), true_masks(ovals(BOXES)), HOW),
    ):
        assert made.masks.shape == (0, 21, 21) and not made.sample.labels.any() and not len(made.objects)


# --- labels of masks ---


def a_pass(regions, logits, classes=3, seed=0):
    """A pass of one image with these masks, and random scores and deltas."""
    random = generator(seed)
    scores = [torch.randn(len(regions), 1 + classes, generator=random) for _ in range(2)]
    deltas = torch.randn(len(regions), classes, 4, generator=random)
    return Pass([regions], logits, scores[0], RegionOutputs(scores[1], deltas))


def pixel_overlap(probabilities, box, true):
    """The IoU of a mask and the whole true one, pixel by pixel of a picture that is four times as large."""
    left, top, right, bottom = (round(4 * edge) for edge in box)
    resized = Image.fromarray(probabilities.numpy()).transform(
        (right - left, bottom - top),
        Image.Transform.AFFINE,
        (21 / (right - left), 0, 0, 0, 21 / (bottom - top), 0),
        Image.Resampling.BILINEAR,
    )
    own = np.zeros((4 * SIZE[0], 4 * SIZE[1]), dtype=bool)
    own[top:bottom, left:right] = np.asarray(resized) >= 0.4
    true = np.repeat(np.repeat(true.numpy(), 4, 0), 4, 1)
    return (own & true).sum() / (own | true).sum()


@pytest.mark.parametrize("seed", range(3))
def test_labels_of_masked_regions_are_those_of_pixels_of_whole_masks(seed):
    regions, true = near_and_far(seed), true_masks(ovals(BOXES))
    own = of_all(regions, objects(BOXES, LABELS), true, HOW)
    regions = regions[own.sample.places]
    # True masks, of which a growing part is cut away.
    shown = own.masks.float()
    for place, mask in enumerate(shown):
        mask[:, 21 - place :] = 0
    logits = torch.full((len(regions), 21, 21), -4.0)
    logits[: len(shown)] += 8 * shown
    labels = mask_labels(a_pass(regions, logits), [own], [true], HOW)
    seen = set()
    for place, (region, object_) in enumerate(zip(regions.tolist(), own.objects.tolist(), strict=False)):
        overlap = pixel_overlap(logits[place].sigmoid(), region, ovals(BOXES)[object_])
        seen.add(overlap >= 0.5)
        if abs(overlap - 0.5) > 0.03:
            assert labels[place] == (own.sample.labels[place] if overlap >= 0.5 else 0)
    assert seen == {True, False}
    assert not labels[len(shown) :].any()


def test_parts_of_the_object_outside_of_the_region_count():
    """A region that is the left 60 percent of a full box: its IoU of boxes is 0.6, and of its half mask 0.3."""
    box = torch.tensor([[10.0, 10, 50, 40]])
    full_box = torch.zeros(1, *SIZE, dtype=torch.bool)
    full_box[0, 10:40, 10:50] = True
    true = true_masks(full_box)
    region = torch.tensor([[10.0, 10, 34, 40]])
    own = of_all(region, objects(box, LABELS[:1]), true, HOW)
    assert own.sample.labels.tolist() == [3] and own.masks.all()
    full, half = torch.full((1, 21, 21), 4.0), torch.full((1, 21, 21), 4.0)
    half[:, :, 11:] = -4
    assert mask_labels(a_pass(region, full), [own], [true], HOW).tolist() == [3]
    assert mask_labels(a_pass(region, half), [own], [true], HOW).tolist() == [0]


# --- losses ---


def two_images():
    """A pass over an image with objects and one without, its targets and true masks."""
    regions, empty = near_and_far(), random_boxes(4, SIZE, 8)
    true = [true_masks(ovals(BOXES)), NO_MASKS]
    own = [sampled(regions, objects(BOXES, LABELS), true[0], HOW, 16, 0.5, 0.0), of_all(empty, objects(), true[1], HOW)]
    chosen = [regions[own[0].sample.places], empty[own[1].sample.places]]
    one = a_pass(torch.cat(chosen), torch.randn(20, 21, 21, generator=generator(4)).requires_grad_())
    return one._replace(regions=chosen), own, true


def test_losses_of_a_pass_are_those_of_loops():
    one, own, true = two_images()
    pixels, classes, masked, boxes = pass_losses(one, own, true, HOW)
    positive = len(own[0].objects)
    assert 0 < positive < 16
    # Twice the mean over the positions of positive regions.
    total = 0.0
    for place in range(positive):
        for wanted, logit in zip(own[0].masks[place].flatten(), one.masks[place].flatten(), strict=True):
            total += math.log1p(math.exp(-logit.item() if wanted else logit.item()))
    assert pixels.item() == pytest.approx(2 * total / (positive * 441), rel=1e-4)
    labels = mask_labels(one, own, true, HOW).tolist()
    assert masked.item() == pytest.approx(
        sum(-one.mask_logits[place].log_softmax(0)[label].item() for place, label in enumerate(labels)) / 20, rel=1e-5
    )
    every = torch.cat([part.sample.labels for part in own])
    assert classes.item() == pytest.approx(F.cross_entropy(one.found.logits, every).item(), rel=1e-5)
    assert boxes > 0
    # Masks of positive regions alone are learned.
    pixels.backward()
    assert one.masks.grad.flatten(1).any(1).tolist() == [True] * positive + [False] * (20 - positive)


def test_an_object_whose_mask_is_not_known_has_no_loss_of_masks_and_their_classes():
    regions, true = near_and_far(), true_masks(ovals(BOXES))
    lacking = true_masks(ovals(BOXES), unknown=1)
    own, less = (of_all(regions, objects(BOXES, LABELS), masks, HOW) for masks in (true, lacking))
    logits = torch.randn(len(regions), 21, 21, generator=generator(4)).requires_grad_()
    one = a_pass(regions[own.sample.places], logits)
    labels, fewer = (mask_labels(one, [each], [masks], HOW) for each, masks in ((own, true), (less, lacking)))
    hidden = torch.cat([own.objects == 1, torch.zeros(len(regions) - len(own.objects), dtype=torch.bool)])
    assert hidden.any() and (fewer[hidden] == LEFT_OUT).all() and fewer[~hidden].equal(labels[~hidden])
    pixels, classes, masked, boxes = pass_losses(one, [less], [lacking], HOW)
    assert classes > 0 and boxes > 0
    assert masked.item() == pytest.approx(F.cross_entropy(one.mask_logits[~hidden], labels[~hidden]).item(), rel=1e-5)
    pixels.backward()
    assert logits.grad.isfinite().all() and not logits.grad[hidden].any() and logits.grad[: len(own.objects)].any()


def test_losses_of_no_regions_are_zero_and_have_gradients():
    nothing = of_all(NONE, objects(), NO_MASKS, HOW)
    one = Pass(
        [NONE],
        torch.zeros(0, 21, 21, requires_grad=True),
        torch.zeros(0, 4, requires_grad=True),
        RegionOutputs(torch.zeros(0, 4, requires_grad=True), torch.zeros(0, 3, 4, requires_grad=True)),
    )
    losses = pass_losses(one, [nothing], [NO_MASKS], HOW)
    assert [loss.item() for loss in losses] == [0, 0, 0, 0]
    torch.stack(losses).sum().backward()


# --- a step ---

RECIPE = CascadeRecipe(candidates=200, proposals=40, regions=16)


def step(net, own, true, recipe=RECIPE):
    images = torch.rand(len(own), 3, *SIZE, generator=generator(5)) - 0.5
    return cascade_losses(net, net.plan, images, [SIZE] * len(own), own, true, recipe)


@pytest.mark.parametrize(
    ("network", "stages"),
    [
        ("resnet20", 3),
        ("resnet20", 5),
        ("plain8", 5),
        ("resnet18", 5),
        pytest.param("vgg16", 5, marks=pytest.mark.long),
    ],
)
def test_a_step_is_finite_and_reaches_every_parameter(network, stages):
    sizes = {"region_size": 7, "warped": 28} if network == "vgg16" else {}
    net = small_cascade(network, stages=stages, **sizes)
    freeze(net, ("bn",))
    set_training(net)
    losses = step(net, [objects(BOXES, LABELS), objects()], [true_masks(ovals(BOXES)), NO_MASKS])
    assert tuple(losses) == FIGURES and all(loss > 0 for loss in losses.values())
    sum(losses.values()).backward()
    trained = {key: own for key, own in net.named_parameters() if own.requires_grad}
    assert [key for key, own in trained.items() if own.grad is None] == []
    assert all(own.grad.isfinite().all() for own in trained.values())


def test_without_objects_there_is_nothing_but_background():
    net = small_cascade()
    losses = step(net, [objects()], [NO_MASKS])
    assert {key for key, loss in losses.items() if loss != 0} == {"rpn_class_loss", "class_loss", "mask_class_loss"}
    sum(losses.values()).backward()
    assert all(own.grad.isfinite().all() for own in net.parameters() if own.grad is not None)


def test_losses_of_regions_reach_the_boxes_of_the_rpn_limited():
    """Unlike those of a detector: the cascade is trained end to end (MNC, Sec. 4)."""
    net = small_cascade()
    losses = step(net, [objects(BOXES, LABELS)], [true_masks(ovals(BOXES))])
    sum(losses[name] for name in FIGURES[2:]).backward()
    assert net.rpn.boxes.weight.grad.any() and net.rpn.objectness.weight.grad is None
    # Each of the proposals moves its four numbers by 1 / 512 at most, the limit.
    assert net.rpn.boxes.bias.grad.abs().max() <= 2 * 16 / 512


def test_the_second_pass_has_all_regressed_boxes_and_the_true_ones():
    net, seen = small_cascade(), []
    kept = net.one_pass
    net.one_pass = lambda shared, regions: seen.append(regions) or kept(shared, regions)
    step(net, [objects(BOXES, LABELS)], [true_masks(ovals(BOXES))])
    (first,), (second,) = seen
    assert len(second) == len(first) + 2
    rows = [row.tolist() for row in second.detach()]
    assert all(box in rows for box in BOXES.tolist())
    assert (first[:, None] == second[None]).all(2).any(1).sum() <= 2  # the others have moved


def test_a_new_length_goes_with_another_batch_and_its_parts():
    """Marks are scaled by the recipe of the new batch, of which eight parts would be too many."""
    changes = {"iterations": 100, "batch_size": 1, "accumulate": 1}
    recipe = merge({"recipe": asdict(CascadeRecipe())}, changes, CascadeConfig)["recipe"]
    assert (recipe["iterations"], recipe["batch_size"], recipe["accumulate"]) == (100, 1, 1)
    assert list(recipe["milestones"]) == [80]


def test_a_recipe_trains_all_stages_together():
    with pytest.raises(InputError, match="trained together"):
        CascadeRecipe(part="rpn")


@pytest.mark.long
def test_a_cascade_learns_boxes_classes_and_masks_of_two_images():
    """An oval and a triangle on noise; each is found with its class and its mask."""
    torch.manual_seed(0)
    plan = {"anchor_scales": (1.0, 2.0, 3.0), "rpn_channels": 32, "smallest": 0, "side": 48, "longest": 80}
    plan |= {"proposals": 20, "warped": 14, "region_size": 7, "mask_channels": 64, "mask_size": 14, "threshold": 0.5}
    net = build("mnc-resnet8", 3, detector=plan)
    for layer in (net.mask.fc, net.mask.logits):  # with 0.001 the first hundreds of steps teach masks nothing
        torch.nn.init.normal_(layer.weight, std=0.02)
    oval, triangle = ovals(BOXES[:1]), torch.zeros(1, *SIZE, dtype=torch.bool)
    for row in range(32):
        triangle[0, 12 + row, 28 : 29 + row] = True
    own, true = (
        [objects(BOXES[:1], LABELS[:1]), objects(BOXES[1:], LABELS[1:])],
        [true_masks(oval), true_masks(triangle)],
    )
    images = 0.1 * torch.randn(2, 3, *SIZE, generator=generator(1))
    images += torch.cat([0.5 * oval, -0.5 * triangle])[:, None]
    freeze(net, ("bn",))
    set_training(net)
    trained = [value for value in net.parameters() if value.requires_grad]
    optimizer = SGD(trained, 0.9, 0)
    for number in range(240):
        losses = cascade_losses(net, net.plan, images, [SIZE] * 2, own, true, RECIPE)
        net.zero_grad()
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(trained, 5.0)
        optimizer.step_at(0.01 if number < 180 else 0.001)
    net.eval()
    for image, mask, label in zip(images, (oval, triangle), [2, 0], strict=True):
        seen = ((image + 0.5).clamp(0, 1) * 255).to(torch.uint8)
        found = net.detect_fitted(seen, SIZE, torch.full((3, 1, 1), 0.5))
        assert found.labels.tolist()[:1] == [label]
        assert mask_overlaps(found.masks, encoded(mask))[0] > 0.75
