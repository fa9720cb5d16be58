"""The test protocols: views of an image, dense scores, ensembles, intervals, scores files, and `deepres eval`."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from deepres import InputError, build
from deepres.classification import score_table
from deepres.classification.accuracy import Scores
from deepres.classification.ensemble import average, member_weights
from deepres.classification.scorer import Execution, pieces, scorer
from deepres.classification.views import Protocol, center, dense, fitted, resized, score_views, ten_crops
from deepres.data.pictures import pictures_of
from deepres.data.sources import load_data_set
from deepres.models.convolutional import fully_convolutional
from deepres.weights.file import serialise
from deepres.workflows.evaluate import usual_protocol
from networks import warmed
from runs import run_two_ranks

CLASSES = ("ant", "bee", "cow")
SIZES = ((90, 70), (64, 128), (100, 100), (70, 64), (131, 97))  # width, height
NETS = (("resnet18", 64), ("resnet50", 64), ("plain18", 64), ("resnet18-32px", 32), ("resnet20", 32), ("highway19", 32))
PIXELS = 64 * 64 * 32
CPU = Execution(device="cpu", precision="fp32")


def as_input(images):
    return images.float() / 255 - 0.5


def photograph(seed, size):
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


def pixels(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Pictures of many sizes; the class is the strongest colour."""
    root = tmp_path_factory.mktemp("photos")
    for part, count in (("train", 8), ("test", 5)):
        for label, name in enumerate(CLASSES):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                array = np.array(photograph(1000 * label + number + 100 * count, SIZES[number % len(SIZES)])) // 2
                array[..., label] += 127
                Image.fromarray(array).save(root / part / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def weights(photos, tmp_path_factory):
    """Files of networks of three kinds that know the classes of `photos`: fc fitted to the features of the rest."""
    place = tmp_path_factory.mktemp("weights")
    for name, crop in (("resnet18", 64), ("plain18", 64), ("resnet20", 32)):
        data, net = load_data_set(str(photos), image_size=crop), warmed(name, crop)
        seen = []
        handle = net.fc.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0]))
        with torch.no_grad():
            net(data.train.images.float() / 255 - data.mean()[None])
            handle.remove()
            wanted = torch.nn.functional.one_hot(data.train.labels).double() * 6 - 3
            known = torch.cat([seen[0], torch.ones(len(seen[0]), 1)], 1).double()
            ridge = known.T @ known + 0.1 * torch.eye(known.shape[1])
            fit = torch.linalg.solve(ridge, known.T @ wanted).float()
            net.fc.weight.copy_(fit[:-1].T)
            net.fc.bias.copy_(fit[-1])
        header = {"network": name, "crop": crop, "classes": CLASSES}
        (place / f"{name}.safetensors").write_bytes(serialise(net.state_dict(), data.mean(), header))
    return place


def test_resizing_sets_the_shorter_side_and_keeps_the_aspect_ratio():
    image = pixels(photograph(0, (150, 100)))
    assert resized(image, 50).shape == (3, 50, 75)
    assert resized(image.transpose(1, 2), 200).shape == (3, 300, 200)
    assert resized(image, 100) is image
    with pytest.raises(InputError, match="9000x1"):
        resized(torch.zeros(3, 1, 9000, dtype=torch.uint8), 256)
    reference = pixels(photograph(0, (150, 100)).resize((75, 50), Image.Resampling.BILINEAR))
    assert resized(image, 50).equal(reference)


def test_ten_crops_are_the_corners_and_the_centre_and_their_flips():
    rows, columns = torch.meshgrid(torch.arange(10), torch.arange(14), indexing="ij")
    crops = ten_crops(torch.stack([rows, columns]), 4)
    assert [tuple(crop[:, 0, 0].tolist()) for crop in crops[:5]] == [(0, 0), (0, 10), (6, 0), (6, 10), (3, 5)]
    assert all(crop.shape == (2, 4, 4) for crop in crops)
    assert all(flipped.equal(crop.flip(-1)) for crop, flipped in zip(crops[:5], crops[5:], strict=True))


def test_sizes_are_the_papers_for_224_pixels_and_in_proportion_for_others():
    assert Protocol("center").sizes(224) == Protocol("10-crop").sizes(224) == (256,)
    assert Protocol("dense").sizes(224) == (224, 256, 384, 480, 640)
    assert Protocol("10-crop").sizes(112) == (128,)
    assert Protocol("dense").sizes(112) == (112, 128, 192, 256, 320)
    assert Protocol("dense").sizes(64) == (64, 96, 128, 192)
    assert Protocol("dense", scales=(100,)).sizes(112) == (100,)


def test_the_mean_image_is_stretched_to_a_view_and_kept_at_the_size_of_the_crop():
    mean = torch.rand(3, 8, 8)
    assert fitted(mean, 8, 8) is mean
    assert fitted(mean, 20, 30).mean() == pytest.approx(mean.mean().item(), abs=0.02)
    assert fitted(torch.full((3, 1, 1), 0.4), 5, 7).allclose(torch.full((3, 5, 7), 0.4))


@pytest.mark.parametrize(("name", "crop"), NETS)
def test_a_fully_convolutional_network_is_the_network_at_the_size_of_the_crop(name, crop):
    net = warmed(name, crop)
    images = torch.rand(2, 3, crop, crop) - 0.5
    with torch.no_grad():
        wanted, maps = net(images), fully_convolutional(net, crop)(images)
        larger = fully_convolutional(net, crop)(torch.rand(1, 3, crop + 64, crop + 32))
    assert maps.shape == (2, 3, 1, 1)
    assert (maps[:, :, 0, 0] - wanted).abs().max() <= 1e-5 * max(1, wanted.abs().max())
    step = {"resnet20": 4, "highway19": 4, "resnet18-32px": 8}.get(name, 32)
    assert larger.shape == (1, 3, 64 // step + 1, 32 // step + 1)


def test_dense_at_one_view_of_the_crop_equals_center():
    net, image = warmed("resnet18", 64), pixels(photograph(1, (64, 64)))
    one = Protocol("dense", scales=(64,), flip=False)
    maps = score_views(fully_convolutional(net, 64), [image], one.views(64), as_input, PIXELS)
    crop = score_views(net, [image], lambda own: [center(own, 64)], as_input, PIXELS)
    assert (maps - crop).abs().max() <= 1e-5
    assert len(set(crop.flatten().tolist())) == 3


def test_dense_scores_are_means_of_softmax_over_positions_scales_and_flips():
    net, image = warmed("resnet18", 64), pixels(photograph(2, (90, 70)))
    every = []
    with torch.no_grad():
        for scale in (64, 100):
            for view in (resized(image, scale), resized(image, scale).flip(-1)):
                every.append(fully_convolutional(net, 64)(as_input(view[None])).double().softmax(1).mean((0, 2, 3)))
    found = score_views(
        fully_convolutional(net, 64), [image], lambda own: dense(own, (64, 100), True), as_input, PIXELS
    )
    assert found[0].allclose(torch.stack(every).mean(0), atol=1e-6)


def test_crop_scores_are_means_of_softmax_and_not_of_scores_before_it():
    net, image = warmed("resnet18", 64), pixels(photograph(3, (90, 70)))
    net.fc.weight.data *= 20
    with torch.no_grad():
        before = net(as_input(torch.stack(ten_crops(image, 64)))).double()
    found = score_views(net, [image], lambda own: ten_crops(own, 64), as_input, PIXELS)[0]
    assert found.allclose(before.softmax(1).mean(0), atol=1e-6)
    assert not found.allclose(before.mean(0).softmax(0), atol=1e-3)


@pytest.mark.parametrize("name", ["center", "10-crop", "dense"])
def test_scores_do_not_depend_on_what_shares_a_batch(name):
    net, images = warmed("resnet20", 32), [pixels(photograph(n, size)) for n, size in enumerate(SIZES * 2)]
    if name == "dense":
        net = fully_convolutional(net, 32)
    views = Protocol(name, scales=(32, 48)).views(32)
    alone = torch.cat([score_views(net, [image], views, as_input, 1) for image in images])
    together = score_views(net, images, views, as_input, 10**7)
    assert together.shape == (10, 3)
    assert len({round(score, 4) for score in together[:, 0].tolist()}) > 5
    assert (alone - together).abs().max() < 1e-5
    assert together.sum(1).allclose(torch.ones(10, dtype=torch.float64))


def test_the_interval_holds_the_error_and_narrows_with_more_images():
    def found(images):
        labels = torch.zeros(images, dtype=torch.int64)
        labels[: images // 5] = 1  # a fifth is wrong
        return Scores(torch.tensor([[0.9, 0.1]]).expand(images, -1), labels)

    low, high = found(1000).interval()
    assert (low, high) == found(1000).interval()
    assert (low, high) == pytest.approx((20 - 2.48, 20 + 2.48), abs=0.3)  # 1.96 standard errors
    assert found(100_000).interval() == pytest.approx((20 - 0.248, 20 + 0.248), abs=0.03)
    assert found(1000).interval(top=2) == (0, 0)


def test_no_error_among_few_images_is_no_proof_of_none():
    """The bound of Clopper and Pearson, of scipy's binomtest(0, 20): every draw of a bootstrap would be 0."""
    none = Scores(torch.tensor([[0.9, 0.1]]).expand(20, -1), torch.zeros(20, dtype=torch.int64))
    assert none.interval() == pytest.approx((0, 16.84), abs=0.01)
    every = Scores(torch.tensor([[0.9, 0.1]]).expand(20, -1), torch.ones(20, dtype=torch.int64))
    assert every.interval() == pytest.approx((83.16, 100), abs=0.01)


def test_the_difference_of_two_is_judged_image_by_image():
    labels, right = torch.zeros(1000, dtype=torch.int64), torch.tensor([0.9, 0.1])
    one, other = (right.repeat(1000, 1) for _ in range(2))
    one[:400] = other[:420] = right.flip(0)  # both wrong on 400, the other one on 20 more
    better, worse = Scores(one, labels), Scores(other, labels)
    gap, low, high = better.difference(worse)
    assert gap == pytest.approx(-2)
    assert (low, high) == pytest.approx((-2.87, -1.13), abs=0.2)  # far from 0, though the intervals overlap
    assert better.interval()[1] > worse.interval()[0]
    assert worse.difference(better)[0] == pytest.approx(2)
    assert worse.difference(worse) == (0, 0, 0)


def test_pairs_are_named_in_the_order_of_how_often_they_are_confused():
    true, predicted = torch.tensor([0, 0, 0, 1, 2, 2, 2, 2]), torch.tensor([0, 1, 1, 0, 0, 0, 0, 2])
    found = Scores(torch.nn.functional.one_hot(predicted).float(), true)
    assert found.confused() == [(2, 0, 3), (0, 1, 2), (1, 0, 1)]
    assert found.confused(most=1) == [(2, 0, 3)]


def test_an_ensemble_is_the_weighted_mean_of_the_members():
    one, two = torch.tensor([[0.9, 0.1], [0.4, 0.6]]), torch.tensor([[0.2, 0.8], [0.4, 0.6]])
    assert average([one, two], member_weights(2)).allclose(torch.tensor([[0.55, 0.45], [0.4, 0.6]]).double())
    assert average([one, two], member_weights(2, (3, 1)))[0, 0].item() == pytest.approx(0.725)
    assert average([one, two], member_weights(2, (0, 5))).equal(two.double())
    for wrong in ((1,), (1, -1), (0, 0), (1, float("nan"))):
        with pytest.raises(InputError, match="member weights"):
            member_weights(2, wrong)


def ready_net(net, mean, **facts):
    """`net` as it is opened: with its mean image and what is known of it."""
    net.mean, net.header = mean, net.header | facts
    return net


def test_a_network_for_grayscale_takes_gray_pictures_and_refuses_colour():
    net, mean = warmed("resnet20", 32, in_channels=1), torch.zeros(1, 32, 32)
    score = scorer(ready_net(net, mean), Protocol("center"), CPU)
    gray = pixels(photograph(0, (50, 40)))[:1]
    assert score([gray.expand(3, -1, -1)]).equal(score([gray]))
    with pytest.raises(InputError, match="colour"):
        score([pixels(photograph(0, (50, 40)))])


def test_scores_that_are_not_finite_are_refused():
    net = warmed("resnet20", 32)
    net.fc.bias.data[0] = float("nan")
    score = scorer(ready_net(net, torch.zeros(3, 32, 32)), Protocol("10-crop"), CPU)
    with pytest.raises(InputError, match="not finite"):
        score([pixels(photograph(0, (50, 40)))])


@pytest.mark.parametrize("split", [None, "17/6"])
def test_pictures_are_those_of_the_data_set_one_after_another(photos, tmp_path, split):
    root = tmp_path / "photos"
    for file in photos.rglob("*.png"):
        (root / file.relative_to(photos)).parent.mkdir(parents=True, exist_ok=True)
        (root / file.relative_to(photos)).write_bytes(file.read_bytes())
    (root / "train" / "bee" / "2.png").write_bytes(b"no picture")
    wanted = load_data_set(str(root), image_size=40, skip_bad=True, split=split).test
    pictures = pictures_of(str(root), "test", split, True, print)
    found = list(pictures.decoded(image_size=40, skip_bad=True))
    assert pictures.count == len(found) == len(wanted) == (6 if split else 15)
    assert [image.label for image in found] == wanted.labels.tolist()
    assert torch.stack([image.pixels for image in found]).equal(wanted.images)
    own = [image.pixels.shape[1:] for image in pictures.decoded(skip_bad=True)]
    assert len(set(own)) > 2


def evaluated(deepres, *arguments):
    result = deepres("eval", *arguments, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("protocol", ["center", "10-crop", "dense"])
def test_every_protocol_tests_photographs_of_any_size(deepres, photos, weights, protocol):
    more = ("--scales", "64,80", "--no-flip") if protocol == "dense" else ()
    report = evaluated(deepres, weights / "resnet18.safetensors", "--data", photos, "--protocol", protocol, *more)
    assert report["images"] == 15
    assert report["top1_error"] == 0  # the colours are easy: a wrong mean or class order would show
    assert report["top1_interval"] == [0, round(100 * (1 - 0.025 ** (1 / 15)), 4)]
    assert report["class_errors"] == [0, 0, 0]
    assert report["protocol"] == protocol
    assert report["crop"] == 64
    assert report["scales"] == ([64, 80] if protocol == "dense" else [73])
    assert report.get("flip") is (False if protocol == "dense" else None)


def test_weights_with_a_crop_are_tested_at_the_centre_by_default(deepres, photos, weights):
    assert evaluated(deepres, weights / "resnet20.safetensors", "--data", photos)["protocol"] == "center"
    text = deepres("eval", weights / "resnet20.safetensors", "--data", photos).stdout
    assert "resnet20 on 15 test images" in text
    assert "top-1 error 0.00 (0.00 to 21.80) %" in text


def test_classes_in_another_order_are_told_apart_by_their_names(deepres, photos, weights, tmp_path):
    turned = tmp_path / "turned"
    for part in ("train", "test"):
        for name, other in (("ant", "z-ant"), ("bee", "bee"), ("cow", "cow")):
            (turned / part).mkdir(parents=True, exist_ok=True)
            (turned / part / other).symlink_to(photos / part / name, target_is_directory=True)
    from deepres.weights.file import read_file

    own = read_file(weights / "resnet18.safetensors")
    named = own.header | {"classes": ["z-ant", "bee", "cow"]}
    (tmp_path / "own.safetensors").write_bytes(serialise(own.state, own.mean, named))
    report = evaluated(deepres, "own.safetensors", "--data", turned, "--protocol", "center")
    assert report["classes"] == ["bee", "cow", "z-ant"]
    assert report["top1_error"] == 0


def test_an_ensemble_of_different_nets_gives_each_members_error_and_its_own(deepres, photos, weights, tmp_path):
    files = [weights / f"{name}.safetensors" for name in ("resnet18", "plain18", "resnet20")]
    how = ("--data", photos, "--protocol", "10-crop")
    report = evaluated(deepres, *files, *how, "--member-weights", "2,1,1", "--save-scores", "kept.safetensors")
    assert [own["network"] for own in report["members"]] == ["resnet18", "plain18", "resnet20"]
    assert [own["crop"] for own in report["members"]] == [64, 64, 32]
    assert [own["weight"] for own in report["members"]] == [0.5, 0.25, 0.25]
    assert report["network"] == "ensemble of 3"
    kept = score_table.read_scores(tmp_path / "kept.safetensors")
    assert len(set(kept.names)) == 15 and kept.names[0] == "test/ant/0.png"
    alone = evaluated(deepres, files[2], *how)
    for figure in ("top1_error", "top1_interval", "top5_error", "scales"):
        assert report["members"][2][figure] == alone[figure]
    assert "together" in deepres("eval", "kept.safetensors").stdout


def test_scores_that_were_kept_are_members_without_running_the_nets(deepres, photos, weights, tmp_path):
    first, second = (weights / f"{name}.safetensors" for name in ("resnet18", "plain18"))
    how = ("--data", photos, "--protocol", "center")
    both = evaluated(deepres, first, second, *how, "--save-scores", "both.safetensors")
    evaluated(deepres, first, *how, "--save-scores", "first.safetensors")
    again = evaluated(deepres, "both.safetensors")
    assert again == both
    mixed = evaluated(
        deepres, "first.safetensors", second, *how, "--batch-size", 3, "--save-scores", "mixed.safetensors"
    )
    assert [own["network"] for own in mixed["members"]] == ["resnet18", "plain18"]
    one, other = (score_table.read_scores(tmp_path / f"{name}.safetensors") for name in ("both", "mixed"))
    for own, same in zip(one.members, other.members, strict=True):
        assert own.scores.allclose(same.scores, atol=1e-6)


def test_the_kernels_are_used_where_they_can_be_and_can_be_left_out(deepres, refused, photos, weights, tmp_path):
    how = (weights / "resnet18.safetensors", "--data", photos, "--protocol", "10-crop")
    reports = [
        evaluated(deepres, *how, "--kernels", kernels, "--save-scores", f"{kernels}.safetensors")
        for kernels in ("auto", "off")
    ]
    assert [report["kernels"] for report in reports] == ["on", "off"]
    with_kernels, without = (
        score_table.read_scores(tmp_path / f"{name}.safetensors").members[0].scores for name in ("auto", "off")
    )
    assert with_kernels.allclose(without, atol=1e-5) and not torch.equal(with_kernels, without)
    assert "unknown value none" in refused("eval", *how, "--kernels", "none").replace("'", "")


def test_scores_kept_as_json_are_members_too(deepres, photos, weights, tmp_path):
    how = (weights / "resnet20.safetensors", "--data", photos, "--protocol", "center")
    report = evaluated(deepres, *how, "--save-scores", "kept.json")
    kept = json.loads((tmp_path / "kept.json").read_text())
    assert len(kept["scores.0"]) == len(kept["labels"]) == len(kept[score_table.HEADER]["names"]) == 15
    assert evaluated(deepres, "kept.json") == report


def test_scores_are_kept_also_where_their_report_cannot_be_made(
    refused, deepres, photos, weights, tmp_path, monkeypatch
):
    from deepres.workflows import evaluate

    def broken(table, shares):
        raise InputError("no report")

    monkeypatch.setattr(evaluate, "report", broken)
    how = (weights / "resnet20.safetensors", "--data", photos, "--protocol", "center")
    assert "no report" in refused("eval", *how, "--save-scores", "kept.safetensors")
    assert len(score_table.read_scores(tmp_path / "kept.safetensors").names) == 15


def test_a_class_without_a_test_picture_has_no_error_and_the_report_is_json(deepres, photos, weights, tmp_path):
    mine = tmp_path / "mine"
    for part, names in (("train", CLASSES), ("test", CLASSES[:2])):
        for name in names:
            (mine / part).mkdir(parents=True, exist_ok=True)
            (mine / part / name).symlink_to(photos / part / name, target_is_directory=True)
    how = ("eval", weights / "resnet20.safetensors", "--data", mine, "--protocol", "center")
    assert "NaN" not in deepres(*how, "--json").stdout
    assert json.loads(deepres(*how, "--json").stdout)["class_errors"][2] is None
    assert "2 cow" in deepres(*how).stdout


def test_one_prediction_makes_all_figures_where_scores_tie():
    """Scores in bf16 often do."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2000, 10, generator=generator).mul(4).round()
    found = Scores(values, torch.randint(10, (2000,), generator=generator))
    counts = found.confusion()
    assert counts.sum() == 2000 and counts.diagonal().sum() == found.correct()
    assert Scores(torch.ones(3, 1), torch.zeros(3, dtype=torch.int64)).confusion().tolist() == [[3]]


def test_few_pictures_are_held_at_their_own_size_where_they_are_large():
    sizes = [2**25, 2**25, 10, 2**26, *[1] * 5]
    assert [len(piece) for piece in pieces(sizes, 3, lambda size: size)] == [2, 2, 3, 2]


def test_members_are_joined_by_the_names_of_images_and_classes():
    def table(names, labels, classes, values):
        member = score_table.Member({"network": "a"}, torch.tensor(values))
        return score_table.ScoreTable("photos", names, torch.tensor(labels), classes, (member,))

    first = table(("x", "y"), (0, 1), ("ant", "bee"), [[0.9, 0.1], [0.2, 0.8]])
    second = table(("y", "x"), (0, 1), ("bee", "ant"), [[0.7, 0.3], [0.4, 0.6]])
    joined = score_table.joined([first, second])
    assert joined.members[1].scores.tolist() == torch.tensor([[0.6, 0.4], [0.3, 0.7]]).tolist()
    for wrong, words in (
        (table(("x", "z"), (0, 1), ("ant", "bee"), [[0.9, 0.1], [0.2, 0.8]]), "different images"),
        (table(("x", "y"), (1, 1), ("ant", "bee"), [[0.9, 0.1], [0.2, 0.8]]), "other labels"),
        (
            table(("x", "y"), (0, 1), ("ant", "bee", "cow"), [[0.9, 0.1, 0], [0.2, 0.8, 0]]),
            "ant, bee, cow, and the first member has ant, bee:",
        ),
    ):
        with pytest.raises(InputError, match=words):
            score_table.joined([first, wrong])


@pytest.mark.long
def test_two_ranks_give_the_report_of_one(deepres, photos, weights, tmp_path):
    how = ("eval", weights / "resnet20.safetensors", "--data", photos, "--protocol", "10-crop", "--json")
    two = run_two_ranks(tmp_path, *how, "--save-scores", "two.safetensors")
    assert two.returncode == 0, two.stderr
    one = deepres(*how, "--save-scores", "one.safetensors")
    assert json.loads(two.stdout) == json.loads(one.stdout)
    mine, theirs = (score_table.read_scores(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    assert mine.names == theirs.names
    assert mine.members[0].scores.allclose(theirs.members[0].scores, atol=1e-6)


def test_bad_pictures_are_named_and_left_out_only_on_request(deepres, refused, photos, weights, tmp_path):
    for label in CLASSES:
        for part in ("train", "test"):
            (tmp_path / "mine" / part / label).mkdir(parents=True)
            (tmp_path / "mine" / part / label / "0.png").write_bytes((photos / part / label / "0.png").read_bytes())
    (tmp_path / "mine" / "test" / "bee" / "cut.png").write_bytes((photos / "test" / "bee" / "0.png").read_bytes()[:90])
    command = (weights / "resnet18.safetensors", "--data", "mine", "--protocol", "center")
    assert "test/bee/cut.png does not decode" in refused("eval", *command)
    report = evaluated(deepres, *command, "--skip-bad")
    assert (report["images"], report["skipped"]) == (3, 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--protocol", "center", "--scales", "64,80"), "takes one shorter side"),
        (("--protocol", "10-crop", "--scales", "63"), "has no room in a shorter side of 63"),
        (("--protocol", "single", "--scales", "64"), "--scales is for --protocol dense"),
        (("--protocol", "10-crop", "--no-flip"), "--no-flip is for --protocol dense"),
        (("--protocol", "dense", "--scales", "64,large"), "give numbers with commas"),
        (("--protocol", "dense", "--scales", "0"), "below 1"),
        (("--protocol", "dense", "--scales", "90000"), "give smaller scales"),
        (("--protocol", "dense", "--image-size", 32), "leave --image-size out"),
        (("--protocol", "single"), "--image-size 64"),
        (("--member-weights", "-1"), "member weights"),
        (("--member-weights", "1,2"), "2 member weights for 1 members"),
        (("--batch-size", 0), "--batch-size"),
        (("--save-scores", "/dev/null/scores"), "cannot be written"),
        (("--wrong", "list.txt"), "ends in .csv"),
    ],
)
def test_bad_options_are_refused_in_one_sentence(refused, photos, weights, arguments, words):
    assert words in refused("eval", weights / "resnet18.safetensors", "--data", photos, *arguments)


def test_weights_of_other_classes_are_refused(refused, weights, tmp_path):
    for part in ("train", "test"):
        (tmp_path / "two" / part / "eel").mkdir(parents=True)
        photograph(0, (64, 64)).save(tmp_path / "two" / part / "eel" / "0.png")
    message = refused("eval", weights / "resnet18.safetensors", "--data", "two", "--protocol", "center")
    assert "knows the classes ant, bee, cow, and two has eel: the first lacks eel" in message


def test_a_damaged_scores_file_is_refused(refused, photos, weights, deepres, tmp_path):
    from safetensors.torch import save_file

    save_file({"labels": torch.zeros(2)}, tmp_path / "kept.safetensors", {score_table.HEADER: "{}"})
    assert "is damaged" in refused("eval", "kept.safetensors")
    member = score_table.Member({"network": "a"}, torch.zeros(2, 2))
    table = score_table.ScoreTable("photos", ("x", "y", "z"), torch.zeros(3).long(), ("a", "b"), (member,))
    score_table.write_scores(tmp_path / "short.safetensors", table)
    assert "is damaged" in refused("eval", "short.safetensors")


def test_what_is_read_is_not_written_over(refused, photos, weights, tmp_path):
    net, other = tmp_path / "net.safetensors", tmp_path / "other.safetensors"
    for file in (net, other):
        shutil.copy(weights / "resnet18.safetensors", file)
    before = net.read_bytes()
    assert "would be lost" in refused("eval", net, "--data", photos, "--save-scores", net)
    assert "not a file of scores" in refused("eval", net, "--data", photos, "--save-scores", other)
    (tmp_path / "mine.csv").write_text("name,age\nAnn,40\n")
    for option in ("--save-scores", "--wrong"):
        assert "give another name" in refused("eval", net, "--data", photos, option, "mine.csv")
    assert (tmp_path / "mine.csv").read_text() == "name,age\nAnn,40\n"
    assert "would be lost" in refused("convert", net, "--to", net)
    assert net.read_bytes() == other.read_bytes() == before


def test_wrong_images_are_listed_the_surest_first(deepres, photos, weights, tmp_path):
    """Of labels that are exchanged, so that all images are wrong but those of one kind."""
    how = ("eval", weights / "resnet18.safetensors", "--data", photos, "--save-scores", "right.safetensors")
    assert deepres(*how, "--wrong", "none.csv").returncode == 0
    assert (tmp_path / "none.csv").read_text().splitlines() == ["image,true,predicted,score,score_of_true"]
    table = score_table.read_scores(tmp_path / "right.safetensors")
    labels = torch.where(table.labels < 2, 1 - table.labels, table.labels)
    score_table.write_scores(tmp_path / "other.safetensors", replace(table, labels=labels))
    for _ in range(2):  # such a list may be made anew
        assert deepres("eval", "other.safetensors", "--wrong", "list.csv").returncode == 0
    rows = list(csv.DictReader((tmp_path / "list.csv").read_text().splitlines()))
    assert len(rows) == 10 and {(row["true"], row["predicted"]) for row in rows} == {("ant", "bee"), ("bee", "ant")}
    sure = [float(row["score"]) for row in rows]
    assert sure == sorted(sure, reverse=True) and min(sure) > max(float(row["score_of_true"]) for row in rows)


def test_runs_of_different_splits_are_not_tested_together(deepres, refused, folder, tmp_path):
    """One of them would be tested on images that it has seen."""
    short = ("--data", folder, "--iterations", 1, "--batch-size", 4)
    assert deepres("train", "resnet8", *short, "--split", "40/8", "--run", "part").returncode == 0
    assert deepres("train", "resnet8", *short, "--run", "whole").returncode == 0
    message = refused("eval", "part", "whole")
    assert "different splits, 40/8 (part) and no split (whole)" in message
    assert evaluated(deepres, "part", "whole", "--data", folder)["images"] == 18


def test_real_photographs_are_scored_by_every_protocol(real_data):
    pictures = pictures_of(str(real_data / "flowers"), "test", None, False, print)
    assert pictures.count == 649
    images = [image.pixels for image in pictures.decoded(step=200)]
    trained = ready_net(warmed("resnet18", 112, num_classes=5), torch.full((3, 112, 112), 0.4), crop=112)
    for name in ("center", "10-crop", "dense"):
        found = scorer(trained, Protocol(name, scales=(112, 128)), CPU)(images)
        assert found.shape == (4, 5)
        assert found.sum(1).allclose(torch.ones(4, dtype=torch.float64))


@pytest.mark.parametrize(
    "option",
    [("--protocol", "10-crop"), ("--data", "elsewhere"), ("--split", "9/1"), ("--batch-size", 3), ("--skip-bad",)],
)
def test_what_is_for_networks_is_refused_where_scores_alone_are_given(refused, tmp_path, option):
    member = score_table.Member({"network": "a", "weights": "a.pth", "protocol": "center"}, torch.eye(2))
    table = score_table.ScoreTable("photos", ("x", "y"), torch.arange(2), ("a", "b"), (member,))
    score_table.write_scores(tmp_path / "kept.json", table)
    assert f"{option[0]} is for networks" in refused("eval", "kept.json", *option)


def test_scores_that_cannot_be_kept_are_told_beside_the_figures(deepres, refused, photos, weights, tmp_path):
    how = (weights / "resnet20.safetensors", "--data", photos)
    (tmp_path / "file").write_text("")
    result = deepres("eval", *how, "--save-scores", "file/kept.safetensors")
    assert result.returncode == 2 and "top-1 error" in result.stdout and "error: " in result.stderr
    (tmp_path / "folder").mkdir()
    assert "is a folder" in refused("eval", *how, "--save-scores", "folder")


def test_whole_images_of_224_pixels_are_no_crops():
    """By the header: ours of crops say so; weights of others for ImageNet were trained on crops."""
    mean = torch.zeros(3, 224, 224)
    for facts, name in (
        ({"recipe": "cifar"}, "single"),
        ({"recipe": "imagenet", "crop": 224}, "center"),
        ({}, "center"),
    ):
        assert usual_protocol([ready_net(build("resnet18", 3), mean, **facts)]).name == name
