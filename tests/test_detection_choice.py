"""What suits a data set: image size, anchors, rate and length of a detector's training."""

import pytest
import torch

from box_folders import write_voc
from deepres.data.boxes.opening import open_boxes
from deepres.detection.choose import LENGTHS, REGION_SIZE, Measures, anchor_scales_for, chosen, measures, side_for
from deepres.runtime.errors import silent


@pytest.fixture
def index(tmp_path):
    """Two classes: squares of 4 pixels and of 16, in pictures of 40x30."""
    objects = {
        f"{number}": [("ant", (2, 3, 6, 7)), ("bee", (10, 8, 26, 24)), ("bee", (12, 9, 28, 25))] for number in range(4)
    }
    sets = {"trainval": ["0", "1", "2"], "test": ["3"]}
    return open_boxes(str(write_voc(tmp_path / "voc", objects, sets)), silent).train


def test_sizes_are_measured_class_by_class(index):
    """Small objects count, however many large ones there are."""
    assert measures(index) == Measures(short=30.0, small=4.0, large=16.0)


@pytest.mark.parametrize(
    ("found", "side"),
    [
        (Measures(480, 40, 200), 480),  # as the pictures are
        (Measures(480, 20, 200), 576),  # 20 pixels become 24
        (Measures(480, 5, 200), 600),  # no more than the paper's
        (Measures(2000, 200, 900), 600),
        (Measures(100, 50, 80), 256),
    ],
)
def test_the_side_is_that_of_the_pictures_unless_small_objects_would_be_lost(found, side):
    assert side_for(found) == side


def test_anchors_reach_from_the_small_to_the_large_objects():
    assert anchor_scales_for(Measures(600, 60, 300), 600) == (2.0, 4.0, 8.0, 16.0, 32.0)
    assert anchor_scales_for(Measures(600, 100, 100), 600) == (4.0, 8.0)
    assert anchor_scales_for(Measures(600, 2, 5_000), 600) == (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


def test_what_is_given_stays_and_the_rest_goes_by_it(index):
    fields = chosen(index, False, False, {"side": 100, "iterations": 500, "lr": "0.3"})
    assert not fields.keys() & {"side", "iterations", "lr"}
    assert fields["longest"] == 167 and fields["sides"] == (80, 100, 120)
    assert fields["milestones"] == (400,) and fields["evaluate_every"] == 100 and fields["window"] == 50


def test_random_weights_train_batch_normalization_at_a_higher_rate(index):
    random, trained = chosen(index, False, False, {}), chosen(index, True, False, {})
    assert random["freeze"] == () and trained["freeze"] == ("bn",)
    assert random["lr"] > trained["lr"]
    assert random["iterations"] == LENGTHS[0]  # three pictures


def test_a_decay_of_one_s_own_has_no_milestones(index):
    assert "milestones" not in chosen(index, True, False, {"decay": "linear"})
    assert torch.tensor(chosen(index, True, False, {})["milestones"]).tolist() == [1600]


def test_a_backbone_that_takes_regions_of_one_size_alone_keeps_it(index):
    assert (
        chosen(index, True, False, {})["region_size"] == REGION_SIZE
        and chosen(index, True, True, {})["region_size"] == 0
    )
