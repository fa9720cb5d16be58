"""Multi-scale testing: which two scales a region is pooled at, and how their features are merged."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from deepres.detection.protocol import Protocol
from deepres.detection.protocol import pyramid as pyramid_of
from deepres.detection.scales import Pyramid, limits_of, stretch, two_nearest
from deepres.detection.tester import detected
from deepres.models.detection.images import fitted
from deepres.models.detection.plan import DetectorPlan
from detectors import detector, picture

FIVE = (200, 400, 600, 800, 1000)
LIMITS = limits_of(DetectorPlan(side=48, longest=84), (32, 48, 64))


def pyramid(net, image=None, scales=(32, 48, 64), limits=LIMITS):
    image = picture(1) if image is None else image
    seen = {own: fitted(image, *own) for own in limits}
    return Pyramid(net, net.plan, scales, seen, net.mean, tuple(seen[limits[0]].shape[1:]))


@pytest.mark.parametrize(
    ("side", "scales"),
    [
        (2, {1000, 800}),  # a tiny region: the largest two
        (200, {600, 800}),  # sides of 200 and 267 pixels; 400 has 133, and 32,000 fewer than 224 x 224
        (224, {600, 400}),  # 224 and 149; 800 has 299, and 39,000 too many
        (300, {400, 600}),  # 200 and 300; 200 has 100
        (600, {200, 400}),  # a region as large as the image: the smallest two
    ],
)
def test_a_region_is_pooled_at_the_scale_nearest_to_224_pixels_and_the_nearer_of_its_neighbours(side, scales):
    areas = torch.tensor([[(side * scale / 600) ** 2] for scale in FIVE])
    assert {FIVE[place] for place in two_nearest(areas)[0].tolist()} == scales


def test_the_two_scales_are_adjacent_and_the_nearest_comes_first():
    areas = torch.rand(500) ** 3 * 900**2
    areas = torch.stack([areas * (scale / 600) ** 2 for scale in FIVE])
    chosen = two_nearest(areas)
    assert chosen.shape == (500, 2)
    assert (chosen.diff(dim=1).abs() == 1).all()
    assert chosen[:, 0].tolist() == (areas - 224**2).abs().argmin(0).tolist()


def test_one_scale_leaves_no_choice_and_no_regions_need_none():
    assert two_nearest(torch.tensor([[9.0, 1e6]])).tolist() == [[0], [0]]
    assert two_nearest(torch.zeros(1, 0)).shape == (0, 1)
    assert two_nearest(torch.zeros(5, 0)).shape == (0, 2)


def test_sizes_rise_and_the_longest_side_is_in_proportion():
    plan = DetectorPlan(side=600, longest=1000)
    assert limits_of(plan, (800, 200)) == ((200, 333), (800, 1333))
    assert limits_of(plan, ()) == limits_of(plan, (600,)) == ((600, 1000),)


@pytest.mark.parametrize("context", [False, True])
def test_features_are_the_larger_ones_of_both_scales_and_of_the_context_at_both(context):
    net = detector(1, context=context)
    own = pyramid(net)
    regions = torch.tensor([[2.0, 3.0, 20.0, 17.0], [0.0, 0.0, 45.0, 30.0]])
    with torch.no_grad():
        found = own.features(regions)
        each = [
            net.features_of(
                own.shared(limits), [regions * stretch(own.frame, own.size(limits), regions)], [own.size(limits)]
            )
            for limits in LIMITS
        ]
    # Both regions are far smaller than 224 pixels: they are pooled at the largest two sizes.
    torch.testing.assert_close(found, torch.maximum(each[1], each[2]))
    assert not torch.equal(found, each[2]) and not torch.equal(found, each[1])


def test_regions_are_batched_by_scale_and_each_is_pooled_twice():
    net = detector(1, side=200, longest=400)
    limits = limits_of(net.plan, (100, 200, 300))
    own = pyramid(net, picture(1, 200, 400), (100, 200, 300), limits)
    regions = torch.tensor([[0.0, 0.0, 3, 3], [0, 0, 200, 100], [0, 0, 30, 30]])
    pooled_at = []

    def counted(module, given):
        maps, regions = given
        pooled_at.append((maps.shape[3], sum(map(len, regions))))

    net.cut.register_forward_pre_hook(counted)
    with torch.no_grad():
        own.features(regions)
    # Widths of the maps: the second region covers the whole image, which is 200 pixels wide at the least size.
    assert pooled_at == [(100, 1), (200, 3), (300, 2)]


def test_the_map_of_a_size_is_computed_once_and_only_where_a_region_needs_it():
    net, computed = detector(1), []
    shared = net.shared
    net.shared = lambda x: computed.append(tuple(x.shape[2:])) or shared(x)
    detected([net], Protocol(scales=(32, 48, 64), refine=2), [picture(1)])
    assert sorted(computed) == [(48, 77), (64, 102)]  # 32 is too small for any region of these
    computed.clear()
    detected([net], Protocol(), [picture(1)])
    assert computed == [(48, 77)]


def test_the_order_of_the_scales_does_not_matter():
    net = detector(1)
    [rising], [falling] = (detected([net], Protocol(scales=scales), [picture(1)]) for scales in ((40, 64), (64, 40)))
    assert torch.equal(rising.boxes, falling.boxes) and len(rising)


def test_proposals_come_from_the_own_side_alone():
    net = detector(1)
    with torch.no_grad():
        own = pyramid(net, limits=(LIMITS[1], *LIMITS)).proposals(net.selection)[0]
        alone = pyramid(net, scales=(), limits=(LIMITS[1],)).proposals(net.selection)[0]
    assert torch.equal(own, alone) and len(own) == net.plan.proposals


def test_five_scales_cost_less_than_five_times_one(monkeypatch):
    """The setting of the paper in proportion: 600 pixels, 224 and 300 regions become 96, 36 and 8."""
    monkeypatch.setattr("deepres.detection.scales.REGION", 36)
    net = detector(1, "resnet18", side=96, longest=160, proposals=8, region_size=14)
    costs = []
    for scales in ((), pyramid_of(96)):
        with FlopCounterMode(display=False) as counter:
            detected([net], Protocol(scales=scales), [picture(1)])
        costs.append(counter.get_total_flops())
    assert costs[0] < costs[1] < 5 * costs[0]
