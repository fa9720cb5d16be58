"""What a detector gets wrong: the confusion matrix, the outcome of each detection, and what its proposals cover."""

import pytest
import torch

from deepres.detection.mean_ap.confusion import confusion_matrix
from deepres.detection.mean_ap.outcomes import outcomes
from deepres.detection.mean_ap.recall import covered, proposal_recall
from deepres.detection.mean_ap.voc import judge
from random_boxes import detections, random_case, truth

A, B, C, D = (0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10), (60, 0, 70, 10)
CROWD = (200, 0, 300, 100)


def kinds(truths, found, **options):
    return [(one.kind, one.detection, one.truth) for one in outcomes(truths, found, **options)]


def test_a_confusion_matrix_counts_hits_mistakes_misses_and_false_alarms():
    truths = [truth([A, B, C], [0, 1, 1])]
    found = [detections([A, B, D, C], [0.9, 0.8, 0.7, 0.4], [0, 0, 1, 1])]
    assert confusion_matrix(truths, found, 2).tolist() == [
        [1, 0, 0],  # A is found
        [1, 0, 1],  # B is taken for class 0; C is below the score
        [0, 1, 0],  # D is no object
    ]
    assert confusion_matrix(truths, found, 2, score=0.4).tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 0]]


def test_an_object_belongs_to_a_detection_of_its_own_class_though_another_has_a_higher_score():
    found = [detections([A, (0, 0, 10, 8)], [0.9, 0.6], [1, 0])]
    assert confusion_matrix([truth([A])], found, 2).tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_a_detection_of_another_class_belongs_to_the_object_that_it_overlaps_most():
    truths = [truth([(0, 0, 10, 6), (0, 0, 10, 9)], [0, 1])]
    assert confusion_matrix(truths, [detections([A], [0.9], [2])], 3)[:2].tolist() == [[0, 0, 0, 1], [0, 0, 1, 0]]


def test_two_detections_of_one_object_are_a_hit_and_a_false_alarm():
    assert confusion_matrix([truth([A])], [detections([A, A], [0.9, 0.8])], 1).tolist() == [[1, 0], [1, 0]]


def test_difficult_objects_and_crowd_regions_are_in_no_cell_of_the_confusion_matrix():
    truths = [truth([A, CROWD], difficult=[0], crowd=[1])]
    found = [detections([A, (210, 10, 220, 20), B], [0.9, 0.8, 0.7])]
    assert confusion_matrix(truths, found, 1).tolist() == [[0, 0], [1, 0]]
    assert confusion_matrix(truths, [detections()], 1).tolist() == [[0, 0], [0, 0]]


def test_a_confusion_matrix_of_nothing_is_zero():
    assert confusion_matrix([], [], 2).tolist() == [[0] * 3] * 3
    assert confusion_matrix([truth()], [detections()], 2).tolist() == [[0] * 3] * 3


def test_rows_of_a_confusion_matrix_sum_to_the_objects_and_its_columns_to_the_detections_that_count():
    truths, found = random_case(1, pictures=30)
    counts = confusion_matrix(truths, found, 3, score=0.3)
    objects = torch.cat([one.labels for one in truths]).bincount(minlength=3)
    seen = torch.cat([one.labels[one.scores >= 0.3] for one in found]).bincount(minlength=3)
    assert counts[:3].sum(1).equal(objects)
    assert counts[:, :3].sum(0).equal(seen)


def test_each_detection_has_its_kind_by_falling_score_and_missed_objects_come_last():
    truths = [truth([A, B, C], [0, 1, 0]), truth([A, (0, 20, 30, 50)])]
    found = [
        detections([A, A, B, (40, 0, 44, 10), D], [0.9, 0.85, 0.8, 0.6, 0.5], [0, 0, 0, 0, 1]),
        detections([D], [0.7]),
    ]
    ends = outcomes(truths, found)
    assert [(one.picture, one.kind, one.detection, one.truth) for one in ends] == [
        (0, "hit", 0, 0),
        (0, "doubled", 1, 0),
        (0, "wrong class", 2, 1),
        (1, "false alarm", 0, None),
        (0, "badly placed", 3, 2),
        (0, "false alarm", 4, None),
        (1, "missed", None, 1),  # the larger one
        (1, "missed", None, 0),
    ]
    assert [one.overlap for one in ends] == pytest.approx([1, 1, 1, 0, 0.4, 0, 0, 0])
    assert ends[0].score == pytest.approx(0.9) and ends[-1].score is None


def test_an_object_below_the_score_is_missed():
    assert kinds([truth([A])], [detections([A], [0.4])]) == [("missed", None, 0)]
    assert kinds([truth([A])], [detections([A], [0.4])], score=0.4) == [("hit", 0, 0)]


def test_difficult_objects_and_crowd_regions_have_no_outcome_nor_have_their_detections():
    truths = [truth([A, CROWD], difficult=[0], crowd=[1])]
    assert kinds(truths, [detections([A, A, (210, 10, 220, 20)], [0.9, 0.8, 0.7])]) == []
    assert kinds(truths, [detections()]) == []
    assert kinds(truths, [detections([CROWD], [0.9], [1])]) == [("false alarm", 0, None)]  # a crowd of another class


def test_a_picture_without_objects_has_false_alarms_alone():
    assert kinds([truth(), truth()], [detections([A], [0.9]), detections()]) == [("false alarm", 0, None)]


def test_outcomes_have_the_hits_and_misses_of_the_mean_average_precision():
    truths, found = random_case(2, pictures=30, difficult=0.2, crowd=0.1)
    ends = [one for one in outcomes(truths, found, score=0) if one.kind != "missed"]
    judged = judge(truths, found, 3)
    assert [(one.picture, one.kind == "hit") for one in ends] == list(
        zip(judged.pictures.tolist(), judged.hits.tolist(), strict=True)
    )


def test_proposals_cover_objects_up_to_their_number_and_by_their_overlap():
    # A is covered by the second proposal (IoU 0.8), B by the third (0.6), C by none.
    boxes = torch.tensor([D, (0, 0, 10, 8), (20, 0, 30, 6)], dtype=torch.float32)
    own = proposal_recall([truth([A, B, C])], [boxes], [1, 2, 3])
    assert [one.most for one in own] == [1, 2, 3]
    assert [one.recall for one in own] == pytest.approx([0, 1 / 3, 2 / 3])
    # The ten IoU 0.5 to 0.95: 0.8 reaches seven of them, 0.6 three.
    assert [one.average for one in own] == pytest.approx([0, 7 / 30, 10 / 30])


def test_a_proposal_covers_one_object_alone():
    pairs = torch.tensor([[0.9, 0.8], [0.3, 0.7]], dtype=torch.float64)
    assert covered(pairs).tolist() == [0.9, 0.7]
    assert covered(pairs[:1]).tolist() == [0.9, 0]
    assert covered(pairs[:0]).tolist() == [0, 0]


def test_recall_leaves_out_difficult_objects_and_has_no_value_without_objects():
    boxes = torch.tensor([A], dtype=torch.float32)
    (own,) = proposal_recall([truth([A, B], difficult=[1])], [boxes], [50])
    assert (own.recall, own.average) == (1, 1)
    (none,) = proposal_recall([truth([A], crowd=[0])], [boxes], [50])
    assert (none.recall, none.average) == (None, None)
    (missed,) = proposal_recall([truth([A])], [boxes[:0]], [50])
    assert (missed.recall, missed.average) == (0, 0)
