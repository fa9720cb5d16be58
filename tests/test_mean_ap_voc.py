"""VOC's mean average precision: the rules of the development kit, by hand, by its own loops, and by another package."""

import numpy as np
import pytest
import torch
from mean_average_precision import MetricBuilder
from torchvision.ops import box_iou

from deepres.detection.mean_ap.bootstrap import map_interval, resampled_maps
from deepres.detection.mean_ap.voc import average_precision, judge, voc_map
from random_boxes import detections, random_case, truth

A, B = (0, 0, 10, 10), (20, 0, 30, 10)
RULES = ("area", "11-point")
LEVELS = {"area": None, "11-point": np.arange(11) / 10}


def ap_of(truths, found, rule="area", iou=0.5):
    return voc_map(truths, found, ["cell"], iou, rule).classes[0].ap


def devkit(truths, found, label, rule, iou=0.5):
    """The loops of VOCevaldet and VOCap for one class, on continuous boxes."""
    lines = [
        (picture, place) for picture, own in enumerate(found) for place in range(len(own)) if own.labels[place] == label
    ]
    lines.sort(key=lambda line: -float(found[line[0]].scores[line[1]]))
    taken, hits, misses = set(), [], []
    for picture, place in lines:
        own, largest, nearest = truths[picture], -1.0, None
        for other in range(len(own)):
            if own.labels[other] == label:
                overlap = float(box_iou(found[picture].boxes[[place]].double(), own.boxes[[other]].double()))
                if overlap > largest:
                    largest, nearest = overlap, other
        reached = largest >= iou
        ignored = reached and bool(own.difficult[nearest])
        hit = reached and not ignored and (picture, nearest) not in taken
        hits.append(hit)
        misses.append(not hit and not ignored)
        if hit:
            taken.add((picture, nearest))
    objects = sum(int(((own.labels == label) & ~own.difficult).sum()) for own in truths)
    if not objects:
        return None
    recall = np.cumsum(hits) / objects
    precision = np.cumsum(hits) / np.maximum(np.cumsum(hits) + np.cumsum(misses), 1)
    if rule == "11-point":
        return sum(max(precision[recall >= level / 10], default=0) for level in range(11)) / 11
    recall, precision = np.array([0, *recall, 1]), np.array([0, *precision, 0])
    for place in range(len(precision) - 2, -1, -1):
        precision[place] = max(precision[place], precision[place + 1])
    return sum((recall[i + 1] - recall[i]) * precision[i + 1] for i in range(len(recall) - 1))


def test_difficult_objects_are_neither_hit_nor_miss_and_a_second_detection_is_a_miss():
    # Picture 0: A, and B that is difficult. Picture 1: A. Two objects count.
    # By score: 0.9 on B, left out; 0.8 on A, hit; 0.7 on A again, miss; 0.65 on B again, left out; 0.6 on A of picture
    # 1, hit. Recall 1/2, 1/2, 1 with precision 1, 1/2, 2/3. Area: 1/2 * 1 + 1/2 * 2/3 = 5/6.
    # 11 points: 1 at the six recalls 0 to 0.5, 2/3 at the other five: (6 + 10/3) / 11 = 28/33.
    truths = [truth([A, B], difficult=[1]), truth([A])]
    found = [detections([B, A, A, B], [0.9, 0.8, 0.7, 0.65]), detections([A], [0.6])]
    result = voc_map(truths, found, ["cell"])
    own = result.classes[0]
    assert own.objects == 2
    assert own.recalls.tolist() == [0.5, 0.5, 1]
    assert own.precisions.tolist() == pytest.approx([1, 1 / 2, 2 / 3])
    assert own.scores.tolist() == pytest.approx([0.8, 0.7, 0.6])
    assert result.map == pytest.approx(5 / 6)
    assert ap_of(truths, found, "11-point") == pytest.approx(28 / 33)


def test_a_detection_that_overlaps_a_difficult_object_most_is_left_out():
    # IoU with the object 60/100, with the difficult one 90/100: it belongs to the second, and the first is not found.
    assert ap_of([truth([(0, 0, 6, 10), (0, 0, 9, 10)], difficult=[1])], [detections([A], [0.9])]) == 0


def test_a_detection_whose_nearest_object_is_taken_does_not_go_to_the_second_nearest():
    # Both detections overlap the first object most, and reach 0.5 with the second as well. One of two objects is found,
    # with precision 1, and then there is a miss.
    truths = [truth([(0, 0, 10, 10), (0, 0, 10, 6)])]
    assert ap_of(truths, [detections([A, (0, 0, 10, 9)], [0.9, 0.8])]) == 0.5


def test_an_overlap_of_just_one_half_between_inclusive_boxes_is_a_hit():
    # Inclusive ends from 1: (1, 1, 10, 10) and (1, 1, 10, 5) are 10 x 10 and 10 x 5 pixels, so the IoU is 50/100.
    # Widths without "+1" would give 9 * 4 / (9 * 9) = 0.44, a miss.
    assert ap_of([truth([(0, 0, 10, 10)])], [detections([(0, 0, 10, 5)], [0.9])]) == 1
    assert ap_of([truth([(0, 0, 10, 10)])], [detections([(0, 0, 10, 4.999)], [0.9])]) == 0


@pytest.mark.parametrize("found", range(11))
def test_a_recall_of_just_three_tenths_counts_at_the_point_of_three_tenths(found):
    # Sums of 0.1 would make that point 0.30000000000000004, which 3 of 10 objects do not reach.
    assert average_precision(torch.ones(found, dtype=torch.bool), 10, "11-point") == pytest.approx(
        (found + 1) / 11 if found else 0
    )


def test_a_class_without_counted_objects_has_no_value_and_no_part_in_the_mean():
    truths = [truth([A, B], [0, 1], difficult=[1])]
    result = voc_map(truths, [detections([A, B, B], [0.9, 0.8, 0.7], [0, 1, 2])], ["first", "difficult", "absent"])
    assert [one.ap for one in result.classes] == [1, None, None]
    assert result.map == 1


def test_without_any_object_there_is_no_value_and_without_detections_it_is_zero():
    assert voc_map([truth()], [detections([A], [0.9])], ["cell"]).map is None
    assert voc_map([], [], ["cell"]).map is None
    assert voc_map([truth([A])], [detections()], ["cell"]).map == 0


def test_a_detection_in_a_picture_without_objects_is_a_miss():
    # The miss has the higher score: precision 1/2 where the object is found.
    assert ap_of([truth(), truth([A])], [detections([A], [0.9]), detections([A], [0.8])]) == 0.5


def test_equal_scores_keep_the_order_of_the_pictures():
    miss, hit = (truth(), detections([A], [0.5])), (truth([A]), detections([A], [0.5]))
    assert [ap_of(*zip(*pair, strict=True)) for pair in ((miss, hit), (hit, miss))] == [0.5, 1]


def test_detections_inside_a_crowd_region_are_neither_hit_nor_miss():
    # The first is the crowd itself, the second lies in it, the third in that of another class and is a miss, the fourth
    # hits the only object that counts.
    truths = [truth([(0, 0, 100, 100), (200, 0, 300, 100), (20, 200, 30, 210)], [0, 1, 0], crowd=[0, 1])]
    boxes = [(0, 0, 100, 100), (50, 50, 60, 60), (250, 0, 260, 10), (20, 200, 30, 210)]
    own = voc_map(truths, [detections(boxes, [0.9, 0.85, 0.8, 0.7])], ["cell", "other"]).classes[0]
    assert (own.objects, own.precisions.tolist(), own.ap) == (1, [0, 0.5], 0.5)


def test_truths_and_detections_of_different_numbers_of_pictures_are_refused():
    with pytest.raises(ValueError):
        voc_map([truth()], [], ["cell"])


@pytest.mark.parametrize("rule", RULES)
def test_random_cases_with_difficult_objects_and_ties_equal_the_loops_of_the_devkit(rule):
    for seed in range(40):
        truths, found = random_case(seed, difficult=0.3, whole=True, ties=seed % 2 == 1)
        result = voc_map(truths, found, "abc", rule=rule)
        assert [one.ap for one in result.classes] == [
            None if (expected := devkit(truths, found, label, rule)) is None else pytest.approx(expected, abs=1e-12)
            for label in range(3)
        ]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.filterwarnings("ignore::FutureWarning")  # of pandas, in that package
def test_random_cases_without_difficult_objects_equal_another_implementation(rule):
    for seed in range(25):
        truths, found = random_case(1000 + seed)
        metric = MetricBuilder.build_evaluation_metric("map_2d", async_mode=False, num_classes=3)
        for own, seen in zip(truths, found, strict=True):
            inclusive = [one.boxes.double().numpy() - [0, 0, 1, 1] for one in (own, seen)]
            metric.add(
                np.column_stack((inclusive[1], seen.labels, seen.scores)),
                np.column_stack((inclusive[0], own.labels, own.difficult, own.crowd)),
            )
        values = metric.value(0.5, LEVELS[rule])[0.5]
        for label, one in enumerate(voc_map(truths, found, "abc", rule=rule).classes):
            if one.objects:
                assert one.ap == pytest.approx(float(values[label]["ap"]), abs=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_a_resampling_has_the_mean_of_the_pictures_that_it_draws(rule):
    for seed in range(10):
        truths, found = random_case(seed, pictures=8, difficult=0.2, crowd=0.1)
        draws = np.random.default_rng(seed).multinomial(8, [1 / 8] * 8, size=5).T
        values = resampled_maps(judge(truths, found, 3), torch.from_numpy(draws).float(), rule)
        for value, counts in zip(values.tolist(), draws.T, strict=True):
            drawn = [picture for picture, count in enumerate(counts) for _ in range(count)]
            expected = voc_map([truths[i] for i in drawn], [found[i] for i in drawn], "abc", rule=rule).map
            assert value == pytest.approx(np.nan if expected is None else expected, abs=1e-6, nan_ok=True)


def test_the_interval_holds_the_mean_is_repeatable_and_narrows_with_more_pictures():
    truths, found = random_case(3, pictures=40)
    low, high = map_interval(truths, found, "abc")
    assert low < voc_map(truths, found, "abc").map < high
    assert (low, high) == map_interval(truths, found, "abc")
    assert (low, high) != map_interval(truths, found, "abc", seed=1)
    more = map_interval(truths * 4, found * 4, "abc")
    assert more[1] - more[0] < 0.7 * (high - low)


def test_an_interval_needs_an_object_and_closes_where_every_picture_is_alike():
    assert map_interval([truth()], [detections([A], [0.9])], ["cell"]) is None
    assert map_interval([], [], ["cell"]) is None
    assert map_interval([truth([A])] * 3, [detections([A], [0.9])] * 3, ["cell"]) == (1, 1)
