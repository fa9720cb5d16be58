"""The recipe of Sec. 3.4 on pictures of all sizes: plateau, accumulation, averaged statistics, resume in mid-epoch."""

import copy
import dataclasses
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import deepres
from deepres.acceleration.on_kernels import accelerate
from deepres.classification.recipe import IMAGENET, paper_recipe
from deepres.records import Run
from deepres.runtime.errors import InputError, silent
from deepres.runtime.ranks import ALONE
from deepres.training.batchnorm import average_statistics
from deepres.training.recipe import Recipe
from deepres.training.schedule import rate
from deepres.training.trainer import Setup, Trainer
from runs import last_weights, run_deepres, run_two_ranks, torchrun, wait_for_checkpoint
from tasks import GivenTask, from_json, merge, plain

SMALL = ("--set", "crop=32", "--set", "sides=36,64", "--iterations", 24, "--batch-size", 8, "--lr", 0.01)
MARKS = ("--set", "window=6", "--set", "evaluate_every=8", "--set", "bn_average=20", "--set", "workers=1")


def arguments(photographs, run, *more):
    return ("train", "resnet18", "--data", photographs, "--run", run, *SMALL, *MARKS, *more)


@pytest.fixture(scope="module")
def undisturbed(photographs, tmp_path_factory):
    place = tmp_path_factory.mktemp("undisturbed")
    result = run_deepres(place, *arguments(photographs, place / "run"), DEEPRES_CACHE=str(place / "cache"))
    assert result.returncode == 0, result.stderr
    return place / "run"


def test_the_recipe_is_the_papers():
    """Sec. 3.4: sides 256 to 480, crops of 224, batch 256, rate 0.1, decay 1e-4, momentum 0.9, 60e4 iterations."""
    recipe = paper_recipe(50, imagenet=True)
    assert recipe == IMAGENET
    assert (recipe.sides, recipe.crop, recipe.batch_size, recipe.iterations) == ((256, 480), 224, 256, 600_000)
    assert (recipe.lr, recipe.weight_decay, recipe.momentum, recipe.decay) == (0.1, 1e-4, 0.9, "plateau")
    assert [rate(recipe, 9, drops=drops) for drops in (0, 1, 2)] == pytest.approx([0.1, 0.01, 0.001])


@pytest.mark.long
def test_a_table_1_network_is_trained_by_it_and_its_weights_tell_the_crop(undisturbed, deepres):
    config = json.loads((undisturbed / "config.json").read_text())
    assert config["recipe"]["name"] == "imagenet"
    assert Run(undisturbed).curve("test_error")[0] == [8, 16, 24]
    report = json.loads(deepres("eval", undisturbed, "--json").stdout)
    assert (report["protocol"], report["crop"], report["images"]) == ("center", 32, 10)
    done = json.loads((undisturbed / "done.json").read_text())
    assert report["top1_error"] == round(done["test_error"], 4)  # the same view in training and afterwards


@pytest.mark.long
def test_a_worker_that_is_killed_ends_the_run_with_one_sentence(process, photographs, tmp_path):
    """As the kernel does where memory runs out."""
    children = Path("/proc/self/task") / str(os.getpid()) / "children"
    if not children.exists():
        pytest.skip("this system does not tell the children of a process")
    longer = ("--iterations", 100_000)
    child = process(*arguments(photographs, "run"), *longer, wait=False, DEEPRES_CHECKPOINT_SECONDS="0.05")
    wait_for_checkpoint(child, tmp_path / "run")
    workers = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
    assert workers
    for worker in workers:
        os.kill(int(worker), signal.SIGKILL)
    _, errors = child.communicate(timeout=120)
    assert child.returncode == 2, errors
    # A thread of Python's may miss the worker as well, and write its traceback between.
    assert errors.count("error: a process that decodes pictures was lost") == 1, errors


@pytest.mark.long
def test_a_run_killed_in_the_middle_of_an_epoch_ends_with_the_same_bits(process, photographs, undisturbed, tmp_path):
    run = tmp_path / "killed"
    child = process(*arguments(photographs, run), wait=False, DEEPRES_CHECKPOINT_SECONDS="0.05")
    wait_for_checkpoint(child, run)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert not (run / "done.json").exists()
    result = process("train", "--run", run)
    assert result.returncode == 0, result.stderr
    assert "going on from iteration" in result.stderr
    assert last_weights(run).read_bytes() == last_weights(undisturbed).read_bytes()
    assert (run / "metrics.jsonl").read_bytes() == (undisturbed / "metrics.jsonl").read_bytes()


@pytest.mark.long
def test_two_ranks_stop_in_the_middle_of_an_epoch_and_end_with_the_same_bits(photographs, tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert run_two_ranks(tmp_path, *arguments(photographs, whole)).returncode == 0
    with torchrun(tmp_path, *arguments(photographs, stopped), DEEPRES_CHECKPOINT_SECONDS="0.05") as launcher:
        wait_for_checkpoint(launcher, stopped)
    assert not (stopped / "done.json").exists()
    result = run_two_ranks(tmp_path, *arguments(photographs, stopped))
    assert result.returncode == 0 and "going on from iteration" in result.stderr
    assert last_weights(stopped).read_bytes() == last_weights(whole).read_bytes()


def test_options_of_resident_images_are_refused(refused, photographs):
    assert "leave --split out" in refused(*arguments(photographs, "run", "--split", "20/8"))
    assert "from the crop" in refused(*arguments(photographs, "run", "--set", "sides=20,64"))
    assert "a divisor of the batch size" in refused(*arguments(photographs, "run", "--set", "accumulate=3"))


def test_bad_input_is_one_sentence(refused, photographs):
    assert "workers is -1" in refused(*arguments(photographs, "run", "--set", "workers=-1"))
    assert "would see one image" in refused(*arguments(photographs, "run", "--set", "accumulate=8"))
    assert "would see one image" in refused(*arguments(photographs, "run", "--bn-group", 7))
    assert "augment" in refused(*arguments(photographs, "run", "--set", "augment=false"))


@pytest.mark.long
def test_test_images_that_do_not_decode_are_named_and_all_of_them_are_too_many(deepres, refused, photographs, tmp_path):
    copy_of = shutil.copytree(photographs, tmp_path / "copy")
    files = sorted((copy_of / "test").rglob("*.*"))
    files[0].write_bytes(b"nothing")
    short = ("--iterations", 2, "--set", "bn_average=0")
    result = deepres(*arguments(copy_of, "one", "--skip-bad", *short))
    assert result.returncode == 0 and result.stderr.count(f"left out of the test: {files[0].relative_to(copy_of)}") == 1
    for file in files:
        file.write_bytes(b"nothing")
    assert "none of the test images decodes" in refused(*arguments(copy_of, "all", "--skip-bad", *short))


@pytest.mark.long
def test_a_run_does_not_go_on_with_other_test_images(deepres, refused, photographs, tmp_path):
    """They may change the rate, and always the figures."""
    copy_of = shutil.copytree(photographs, tmp_path / "copy")
    short = ("--iterations", 2, "--set", "bn_average=0")
    assert deepres(*arguments(copy_of, "run", *short)).returncode == 0
    (tmp_path / "run" / "done.json").unlink()
    next((copy_of / "test").rglob("*.*")).unlink()
    assert "of the test pictures 1 gone" in refused(*arguments(copy_of, "run", *short))


def test_a_short_run_keeps_a_part_of_the_patience_and_averages_over_some_batches():
    for iterations in (1_000, 10_000, 100_000):
        recipe = IMAGENET.scaled(iterations)
        assert recipe.patience * recipe.evaluate_every <= max(0.1 * iterations, recipe.evaluate_every)
        assert recipe.bn_average >= 10 * recipe.batch_size and recipe.window >= 10
    assert IMAGENET.scaled(600_000) == IMAGENET


def test_given_milestones_are_kept_to_and_do_not_go_with_another_decay():
    base = {"network": "resnet18", "data": "x", "recipe": dataclasses.asdict(IMAGENET)}
    recipe = from_json(merge(base, {"milestones": "100,200"}), "test").recipe
    assert (recipe.decay, rate(recipe, 150)) == ("steps", pytest.approx(0.01))
    with pytest.raises(InputError, match="has no milestones"):
        merge(base, {"milestones": "100,200", "decay": "plateau"})
    with pytest.raises(InputError, match="takes milestones"):
        merge(base, {"decay": "steps"})
    assert from_json(merge({"network": "resnet20", "data": "x"}, {"decay": "linear"}), "test").recipe.milestones == ()


def trainer(net, recipe, tmp_path, batch_at=None):
    return Trainer(plain(net), recipe, GivenTask(batch_at), Run(tmp_path), Setup(), ALONE)


def test_the_rate_drops_where_the_error_has_not_fallen_for_the_patience(tmp_path):
    recipe = Recipe(decay="plateau", milestones=(), patience=2, threshold=0.5)
    state = trainer(nn.Conv2d(1, 1, 1), recipe, tmp_path)
    drops = []
    for error in (50.0, 40.0, 39.7, 39.6, 39.0, 39.0, 39.0, 39.0):
        state.note_plateau(error)
        drops.append(state.progress.drops)
    assert drops == [0, 0, 0, 1, 1, 1, 2, 2]
    assert state.rate(0) == pytest.approx(0.001)


def test_accumulated_parts_give_the_gradient_of_the_parts_mean(tmp_path):
    torch.manual_seed(0)
    net = deepres.build("resnet8")
    twin = copy.deepcopy(net)
    images, labels = torch.randn(8, 3, 16, 16), torch.arange(8)
    recipe = Recipe(batch_size=8, accumulate=2, lr=0.1)
    trainer(net, recipe, tmp_path).train_step((images, labels))
    optimizer = torch.optim.SGD(twin.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
    losses = [F.cross_entropy(twin(part), truth) for part, truth in zip(images.split(4), labels.split(4), strict=True)]
    (sum(losses) / 2).backward()
    optimizer.step()
    for mine, other in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(mine, other, atol=1e-6)


@pytest.mark.parametrize("on_kernels", [False, True])
def test_averaged_statistics_are_the_plain_mean_of_those_of_the_batches(tmp_path, on_kernels):
    torch.manual_seed(0)
    net = deepres.build("resnet8").to(memory_format=torch.channels_last).train()
    if on_kernels:
        accelerate(net)
    recipe = dataclasses.replace(Recipe(iterations=5, batch_size=4), milestones=(), bn_average=10)
    batches = [torch.randn(4, 3, 16, 16) + step for step in range(8)]
    task = GivenTask(lambda step: (batches[step], torch.zeros(4).long()))
    average_statistics(net, recipe, task, ALONE, silent)
    first = net.conv1
    maps = [first.conv(batches[step]) for step in (5, 6, 7)]  # ten images take three batches
    means = torch.stack([each.mean((0, 2, 3)) for each in maps]).mean(0)
    variances = torch.stack([each.var((0, 2, 3)) for each in maps]).mean(0)
    assert torch.allclose(first.bn.running_mean, means, atol=1e-5)
    assert torch.allclose(first.bn.running_var, variances, rtol=1e-4)
    assert net.training


def test_a_batch_that_does_not_divide_into_its_parts_on_a_rank_is_refused():
    with pytest.raises(InputError, match="accumulate"):
        Recipe(batch_size=8, accumulate=3)
