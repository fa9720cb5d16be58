"""Augmented pictures and their boxes, and batches of one aspect ratio, as functions of (seed, step)."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from box_folders import voc_object, voc_xml
from deepres.data.boxes.index import BoxIndex
from deepres.data.boxes.opening import open_boxes
from deepres.data.boxes.truth import Truth
from deepres.data.order import Order, evenly, grouped
from deepres.data.stream.loader import Reading, Stream, _Epochs
from deepres.detection.scenes import Augmentation, Scene, augmented, mean_colour, plain, training_samples
from deepres.runtime.errors import InputError
from images import png

WHOLE = Augmentation(sides=(30,), longest=400, flip=False, colour=0.0, keep_difficult=False)
PLACES = [(2, 4, 12, 10), (30, 1, 38, 29)]  # left, top, right, bottom of two red and green rectangles


def drawn(size=(40, 30)) -> bytes:
    """A black picture with a red and a green rectangle, `size` being width and height."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    for channel, (left, top, right, bottom) in enumerate(PLACES):
        pixels[top:bottom, left:right, channel] = 255
    return png(Image.fromarray(pixels))


def truth(difficult=(False, False), crowd=(False, False)) -> Truth:
    boxes = torch.tensor(PLACES, dtype=torch.float32)
    flags = (torch.tensor(own) for own in (difficult, crowd))
    return Truth(boxes, torch.tensor([4, 7]), *flags, torch.ones(2))


def extent(channel: Tensor) -> list[int]:
    """The box around what is lit."""
    rows, columns = (channel > 127).nonzero().unbind(1)
    return [columns.min().item(), rows.min().item(), columns.max().item() + 1, rows.max().item() + 1]


def view(how: Augmentation, draws: list[float], objects: Truth, proposals: Tensor | None = None) -> Scene:
    return augmented(how, drawn(), draws, (objects, proposals))


def several(how: Augmentation, count: int = 40) -> list[Scene]:
    draws = torch.rand(count, 2, generator=torch.Generator().manual_seed(0)).tolist()
    return [view(how, own, truth()) for own in draws]


def same(ones: list[Scene], others: list[Scene]) -> bool:
    pairs = zip(ones, others, strict=True)
    return all(
        torch.equal(one.image, other.image)
        and all(
            torch.equal(getattr(one.objects, name), getattr(other.objects, name))
            for name in ("boxes", "labels", "crowds")
        )
        for one, other in pairs
    )


# --- augmentation ---


def test_mirrored_boxes_lie_where_the_mirrored_pixels_are():
    found = several(Augmentation((30,), 400, True, 0.0, False))
    boxes = {tuple(extent(scene.image[0])) for scene in found}
    assert boxes == {(2, 4, 12, 10), (28, 4, 38, 10)}
    for scene in found:
        assert scene.objects.boxes.tolist() == [extent(scene.image[channel]) for channel in (0, 1)]
        assert scene.objects.labels.tolist() == [4, 7]


@pytest.mark.parametrize(("side", "longest", "size"), [(60, 400, (60, 80)), (47, 400, (47, 63)), (60, 70, (52, 70))])
def test_resized_boxes_lie_where_the_resized_pixels_are(side, longest, size):
    """To half a pixel of the resized picture, also where height and width are not scaled alike."""
    scene = view(Augmentation((side,), longest, False, 0.0, False), [0.1, 0.2], truth())
    assert scene.image.shape[1:] == size and scene.size == (30, 40)
    for channel, box in enumerate(scene.objects.boxes):
        assert (box - torch.tensor(extent(scene.image[channel]))).abs().max() <= 0.51


def test_sides_are_drawn_among_those_given():
    found = several(Augmentation((30, 45, 60), 400, False, 0.0, False))
    assert {scene.image.shape[1] for scene in found} == {30, 45, 60}


def test_colours_change_in_the_share_of_pictures_that_is_asked_for_and_keep_their_channels():
    plain = several(WHOLE, 1)[0]
    assert all(torch.equal(scene.image, plain.image) for scene in several(WHOLE, 5))
    changed = [not torch.equal(s.image, plain.image) for s in several(Augmentation((30,), 400, False, 0.5, False), 60)]
    assert 15 < sum(changed) < 45
    for scene in several(Augmentation((30,), 400, False, 1.0, False)):
        red, green, blue = scene.image[:, 4:10, 2:12].float().mean((1, 2))
        assert red > green and red > blue


def test_a_scene_is_a_function_of_its_draws_whatever_the_global_generator():
    how = Augmentation((30, 45, 60), 400, True, 0.5, False)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    ones = several(how)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert same(ones, several(how))
    assert len({(s.image.shape, s.image.float().mean().item()) for s in ones}) > 10


def test_difficult_objects_are_left_out_unless_they_are_asked_for_and_crowds_stand_apart():
    difficult, crowd = truth(difficult=(True, False)), truth(crowd=(False, True))
    kept = Augmentation((30,), 400, False, 0.0, True)
    assert view(WHOLE, [0, 0], difficult).objects.labels.tolist() == [7]
    assert view(kept, [0, 0], difficult).objects.labels.tolist() == [4, 7]
    objects = view(WHOLE, [0, 0], crowd).objects
    assert objects.labels.tolist() == [4] and objects.crowds.tolist() == [list(PLACES[1])]


def test_a_picture_without_objects_is_a_scene():
    nothing = Truth(*(getattr(truth(), name)[:0] for name in ("boxes", "labels", "difficult", "crowd", "areas")))
    scene = view(Augmentation((60,), 400, True, 1.0, False), [0.3, 0.7], nothing)
    assert (
        scene.objects.boxes.shape == (0, 4) and scene.objects.crowds.shape == (0, 4) and not len(scene.objects.labels)
    )


def test_given_proposals_move_as_boxes_do():
    how = Augmentation((30, 47), 400, True, 0.0, False)
    draws = torch.rand(10, 2, generator=torch.Generator().manual_seed(0)).tolist()
    found = [view(how, own, truth(crowd=(True, False)), truth().boxes) for own in draws]
    assert len({scene.proposals[0, 0].item() for scene in found}) > 2
    for scene in found:
        assert torch.equal(scene.proposals, torch.cat([scene.objects.crowds, scene.objects.boxes]))
    assert view(how, draws[0], truth()).proposals is None


def test_a_test_sees_the_whole_picture():
    scene = plain(60, 400, drawn(), (), truth())
    assert scene.image.shape == (3, 60, 80) and scene.size == (30, 40)


# --- the order of batches of one group ---


def stream(groups: Tensor | None, batch_size: int, steps: int, seed: int = 0) -> list[list[int]]:
    total = 23 if groups is None else len(groups)
    epochs = _Epochs(Order(seed, batch_size), total, 2, groups)
    return [epochs.request(step).places.tolist() for step in range(steps)]


@pytest.mark.parametrize(("total", "batch_size"), [(23, 4), (24, 4), (23, 1), (7, 5), (3, 8), (23, 23)])
def test_every_picture_is_shown_once_in_an_epoch(total, batch_size):
    groups = torch.randint(2, (total,), generator=torch.Generator().manual_seed(total))
    shown = [place for batch in stream(groups, batch_size, 3 * total) for place in batch]
    for epoch in range(3 * batch_size):
        assert sorted(shown[epoch * total :][:total]) == list(range(total))


@pytest.mark.parametrize("batch_size", [2, 4])
def test_batches_are_of_one_group_but_for_those_at_the_ends_of_epochs(batch_size):
    groups = (torch.arange(50) % 3 == 0).long()
    mixed = 0
    for step, batch in enumerate(stream(groups, batch_size, 100)):
        kinds = set(groups[batch].tolist())
        # What is left of two groups, and what fills up the batch over the end of the epoch, are at most these.
        position = step * batch_size % 50
        if len(kinds) > 1:
            mixed += 1
            assert position > 50 - 3 * batch_size
    assert 0 < mixed < 100 * batch_size / 50 * 3


def test_the_order_of_groups_and_pictures_is_drawn_anew_in_each_epoch_and_by_each_seed():
    groups = (torch.arange(40) < 20).long()
    ones, others = stream(groups, 4, 20), stream(groups, 4, 20, seed=1)
    assert ones != others and ones[:10] != ones[10:]
    kinds = [groups[batch[0]].item() for batch in ones[:10]]
    assert sorted(kinds) != kinds and sorted(kinds, reverse=True) != kinds


def test_a_batch_at_any_step_is_that_of_a_run_from_the_start():
    groups = torch.arange(23) % 2
    epochs = _Epochs(Order(0, 4), 23, 2, groups)
    every = stream(groups, 4, 40)
    for step in (39, 3, 17, 5, 6):
        assert epochs.request(step).places.tolist() == every[step]


def test_the_parts_of_ranks_together_are_the_batch():
    groups = torch.arange(23) % 2
    parts = [_Epochs(Order(0, 6, slice(3 * rank, 3 * rank + 3)), 23, 2, groups) for rank in range(2)]
    whole = _Epochs(Order(0, 6), 23, 2, groups)
    for step in range(15):
        own = [part.request(step) for part in parts]
        assert np.array_equal(np.concatenate([one.places for one in own]), whole.request(step).places)
        assert np.array_equal(np.concatenate([one.draws for one in own]), whole.request(step).draws)


def test_without_groups_the_order_is_what_it_was():
    """The places of an epoch are the first numbers of its generator, and the draws the next."""
    generator = Order(0, 4).generator(0)
    places, draws = torch.randperm(23, generator=generator), torch.rand(23, 2, generator=generator)
    request = _Epochs(Order(0, 4), 23, 2).request(2)
    assert request.places.tolist() == places[8:12].tolist()
    assert np.array_equal(request.draws, draws[8:12].numpy())


def test_one_group_alone_loses_no_picture():
    generator = torch.Generator().manual_seed(0)
    order = grouped(torch.arange(11), torch.zeros(11, dtype=torch.int64), 4, 2, generator)
    assert order[:2].tolist() == [0, 1] and sorted(order.tolist()) == list(range(11)) and order[-1] == 10


def test_places_for_a_short_test_are_spread_evenly():
    assert evenly(10, 5).tolist() == [0, 2, 4, 6, 8]
    assert evenly(4, 0).tolist() == evenly(4, 9).tolist() == [0, 1, 2, 3]


# --- pictures on disk ---


def opened(root: Path) -> BoxIndex:
    """Eleven pictures, five of them upright, with up to two boxes each."""
    random = np.random.default_rng(0)
    for number in range(12):
        width, height = (44, 32) if number % 2 == 0 else (30, 41)
        file = root / "JPEGImages" / f"{number:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(file)
        objects = [voc_object("ab"[box], (1 + box, 2, 20 + box, 25)) for box in range(number % 3)]
        voc_xml(root / "Annotations" / f"{number:02}.xml", "".join(objects), (width, height), file.name)
    listed = root / "ImageSets" / "Main"
    listed.mkdir(parents=True)
    (listed / "trainval.txt").write_text("".join(f"{number:02}\n" for number in range(11)))
    (listed / "test.txt").write_text("11\n")
    return open_boxes(str(root), lambda message: None).train


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> BoxIndex:
    return opened(tmp_path_factory.mktemp("boxes"))


def scenes(index: BoxIndex, workers: int, steps: range) -> list[list[Scene]]:
    how = Augmentation((32, 40), 60, True, 0.5, False)
    batches = Stream(training_samples(index, how), lambda batch, draws: batch, Order(0, 4), Reading(workers))
    try:
        return [batches.batch(step) for step in steps]
    finally:
        batches.close()


@pytest.mark.long
def test_workers_do_not_change_a_bit_of_a_batch_and_a_resumed_run_sees_the_same(index):
    assert len(index) == 11
    alone, two = scenes(index, 0, range(9)), scenes(index, 2, range(9))
    assert all(same(*pair) for pair in zip(alone, two, strict=True))
    later = scenes(index, 1, range(5, 9))
    assert all(same(*pair) for pair in zip(alone[5:], later, strict=True))
    assert Counter(len(scene.objects.boxes) for batch in alone for scene in batch).keys() == {0, 1, 2}


def test_batches_from_disk_are_upright_or_landscape(index):
    batches = scenes(index, 0, range(11))
    shapes = [{scene.image.shape[1] > scene.image.shape[2] for scene in batch} for batch in batches]
    assert sum(len(own) == 1 for own in shapes) >= 4 and {True} in shapes and {False} in shapes


def test_the_mean_colour_is_that_of_the_pictures(index):
    expected = torch.stack(
        [
            torch.from_numpy(np.array(Image.open(Path(index.pictures.root) / name))).double().mean((0, 1))
            for name in index.names
        ]
    ).mean(0)
    found = mean_colour(index, Reading(0))
    assert found.shape == (3, 1, 1) and found.dtype == torch.float32
    assert torch.allclose(found.flatten().double(), expected / 255, atol=2e-3)


def test_pictures_of_which_none_decodes_have_no_mean_colour(tmp_path):
    index = opened(tmp_path)
    for file in (tmp_path / "JPEGImages").iterdir():
        file.write_bytes(b"no picture")
    with pytest.raises(InputError, match="no picture that decodes"):
        mean_colour(index, Reading(0, skip_bad=True))
