"""Blocks compiled by PyTorch: the same training, one graph for each shape, and only where it pays."""

import copy
import dataclasses
import json
import shutil
import time

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch.nn import functional as F

import deepres
from deepres.acceleration.compiled import CompiledBlock, compile_blocks
from deepres.models.blocks import Block, basic, stage
from deepres.models.shortcuts import option_a
from deepres.records import Run
from deepres.runtime.errors import InputError
from deepres.training import compile as compiling
from deepres.training import loop
from deepres.training.batchnorm import group_batch_norm
from deepres.training.compile import resolve_compile
from deepres.training.config import Config
from deepres.training.recipe import Recipe
from deepres.workflows.configure import resolve
from runs import checkpoints
from tasks import GivenTask

CHANNELS_LAST = {"memory_format": torch.channels_last}
MARKS = ("--iterations", 6, "--batch-size", 8, "--lr", 0.05, "--set", "window=2", "--set", "evaluate_every=3")
# PyTorch hides this warning of its own compiler, unless warnings are errors.
grad_of_inputs = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
pytestmark = [pytest.mark.long, grad_of_inputs]
CONFIG = Config("resnet8", "data", device="cpu", precision="fp32", kernels="off", recipe=Recipe(iterations=1000))


def train(folder, run):
    return ("train", "resnet8", "--data", folder, *MARKS, "--run", run)


def batch():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(8, 3, 32, 32, generator=generator) - 0.5
    return images.to(**CHANNELS_LAST), torch.randint(4, (8,), generator=generator)


TASK = GivenTask(lambda step: batch())


def resnet(name="resnet8"):
    torch.manual_seed(0)
    return deepres.build(name, num_classes=4).to(**CHANNELS_LAST)


@pytest.fixture
def traced():
    """Graphs are made, and then run by PyTorch's own operations: without the minute of a C++ compiler. Counts them."""
    torch.compiler.reset()
    counters.clear()
    with torch.compiler.set_stance("default", force_backend="eager"):
        yield lambda: counters["stats"]["unique_graphs"]
    torch.compiler.reset()


@pytest.fixture
def long_run(monkeypatch):
    """Every run is long enough to be worth a trial."""
    monkeypatch.setattr(compiling, "LEAST_SECONDS", {"cpu": 0.0})


def train_steps(net, steps):
    optimizer = torch.optim.SGD(net.parameters(), 0.01, 0.9)
    losses = []
    for _ in range(steps):
        images, labels = batch()
        loss = F.cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


class Small(nn.Module):
    """Two blocks of one shape: the least that PyTorch's compiler can be shown on."""

    def __init__(self):
        super().__init__()
        self.blocks = stage(3, 3, 1, 2, basic, option_a)
        self.fc = nn.Linear(3, 4)

    def forward(self, x):
        return self.fc(self.blocks(x.requires_grad_()).mean((2, 3)))


def test_compiled_blocks_train_as_the_plain_ones():
    """By PyTorch's real compiler: losses, weights and running statistics of five steps to 1e-4, relative."""
    torch.manual_seed(0)
    plain = Small().to(**CHANNELS_LAST)
    net = copy.deepcopy(plain)
    torch.compiler.reset()
    counters.clear()
    compile_blocks(net)
    expected, losses = train_steps(plain, 5), train_steps(net, 5)
    assert counters["stats"]["unique_graphs"] == 1
    assert losses == pytest.approx(expected, rel=1e-4)
    assert len(set(losses)) == 5
    ours, theirs = net.state_dict(), plain.state_dict()
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-5)


def test_a_deep_network_compiles_as_many_graphs_as_a_shallow_one(traced):
    """Five shapes of blocks and the first layer, without a break; a copy of the network adds none."""
    graphs = {}
    for name in ("resnet20", "resnet110"):
        net = resnet(name)
        compile_blocks(net)
        assert sum(isinstance(module, CompiledBlock) for module in net.modules()) == 3 * ((int(name[6:]) - 2) // 6)
        train_steps(net, 1)
        train_steps(copy.deepcopy(net), 1)
        graphs[name] = traced()
        assert not counters["graph_break"]
        torch.compiler.reset()
        counters.clear()
    assert graphs == {"resnet20": 6, "resnet110": 6}


def test_evaluation_compiles_nothing(traced):
    net = resnet()
    images, _ = batch()
    expected = net.eval()(images)
    compile_blocks(net)
    with torch.no_grad():
        assert torch.equal(net(images), expected)
    assert traced() == 0
    train_steps(net.train(), 1)
    assert traced() == 4
    with torch.no_grad():
        net.eval()(images[:3])
    assert traced() == 4


def test_batch_statistics_over_groups_and_gates_compile_as_well(traced):
    grouped, gated = resnet(), resnet("highway19")
    group_batch_norm(grouped, 4)
    for net in (grouped, gated):
        expected = train_steps(copy.deepcopy(net), 2)
        compile_blocks(net)
        assert train_steps(net, 2) == pytest.approx(expected, rel=1e-4)
    assert traced() > 4
    assert not counters["graph_break"]


def cut_back(run, copy_):
    """A copy of a finished run as it was one checkpoint before its end."""
    shutil.copytree(run, copy_)
    shutil.rmtree(checkpoints(copy_)[-1])
    (copy_ / "done.json").unlink()
    return copy_


def assert_same_bits(run, other):
    for file in ("metrics.jsonl", checkpoints(other)[-1].relative_to(other) / "weights.safetensors"):
        assert (run / file).read_bytes() == (other / file).read_bytes()


def recorded(run):
    config = json.loads((run / "config.json").read_text())
    return config["compile"], config["kernels"]


def test_a_compiled_run_goes_on_with_the_same_bits_by_its_record_alone(deepres, folder, tmp_path, traced, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    whole = tmp_path / "whole"
    assert deepres(*train(folder, whole), "--compile", "on").returncode == 0
    assert traced() == 4
    assert recorded(whole) == ("on", "off")
    cut = cut_back(whole, tmp_path / "cut")
    assert resolve(CONFIG, Run(cut), print).compile == "on"
    torch.compiler.reset()
    counters.clear()
    result = deepres("train", "--run", cut)
    assert "going on from iteration 5" in result.stderr
    assert traced() == 4
    assert_same_bits(cut, whole)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_code_compiled_anew_for_the_rest_of_a_run_gives_the_same_bits(process, folder, tmp_path):
    """By PyTorch's real compiler, in another process that finds nothing compiled."""
    whole, how = tmp_path / "whole", {"DEEPRES_CHECKPOINT_SECONDS": "0"}
    result = process(*train(folder, whole), "--compile", "on", **how, TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "1"))
    assert result.returncode == 0, result.stderr
    cut = cut_back(whole, tmp_path / "cut")
    result = process("train", "--run", cut, **how, TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "2"))
    assert "going on from iteration 5" in result.stderr, result.stderr
    assert list((tmp_path / "2").rglob("*.so"))
    assert_same_bits(cut, whole)


def test_a_short_run_is_not_compiled_and_nothing_is_said_of_it(deepres, folder, tmp_path, traced):
    result = deepres(*train(folder, tmp_path / "run"), "--kernels", "off")
    assert result.returncode == 0, result.stderr
    assert "compil" not in result.stderr
    assert recorded(tmp_path / "run") == ("off", "off")
    assert traced() == 0


def test_a_trial_does_not_change_the_bits_of_the_run(deepres, folder, tmp_path, traced, long_run):
    tried, plain = tmp_path / "tried", tmp_path / "plain"
    result = deepres(*train(folder, tried), "--kernels", "off")
    assert "training goes on without" in result.stderr  # six steps do not make up for compiling
    assert traced() == 4
    assert deepres(*train(folder, plain), "--kernels", "off", "--compile", "off").returncode == 0
    assert recorded(tried) == recorded(plain) == ("off", "off")
    assert_same_bits(tried, plain)


def test_a_run_from_before_there_was_compiling_goes_on_without(
    deepres, folder, tmp_path, long_run, traced, monkeypatch
):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    assert deepres(*train(folder, tmp_path / "run"), "--kernels", "off", "--compile", "off").returncode == 0
    cut = cut_back(tmp_path / "run", tmp_path / "cut")
    config = json.loads((cut / "config.json").read_text())
    del config["compile"]
    (cut / "config.json").write_text(json.dumps(config))
    result = deepres("train", "--run", cut)
    assert result.returncode == 0, result.stderr
    assert traced() == 0
    assert_same_bits(cut, tmp_path / "run")


@pytest.mark.parametrize("slow", ["eager", "compiled"])
def test_auto_takes_what_makes_the_whole_run_shorter_and_touches_nothing(traced, long_run, slow):
    def dawdle(module, arguments):
        compiled = any(isinstance(inner, CompiledBlock) for inner in module.modules())
        if compiled == (slow == "compiled"):
            time.sleep(0.3)

    net, said = resnet(), []
    net.register_forward_pre_hook(dawdle)
    before, random = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    assert resolve_compile(CONFIG, net, TASK, said.append) == (slow == "eager")
    assert traced() == 4
    assert f"goes on {'compiled' if slow == 'eager' else 'without'}" in said[0]
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert {type(module) for module in net.modules() if isinstance(module, Block)} == {Block}


def test_without_a_compiler_auto_says_so_and_goes_on_and_on_is_refused(
    refused, folder, tmp_path, long_run, monkeypatch
):
    monkeypatch.setenv("CXX", "/nonexistent")
    said = []
    assert not resolve_compile(CONFIG, resnet(), TASK, said.append)
    [sentence] = said
    assert "no C++ compiler was found (/nonexistent, or CXX); going on without" in sentence
    message = refused(*train(folder, tmp_path / "run"), "--compile", "on")
    assert "no C++ compiler was found (/nonexistent, or CXX); mend that, or give --compile off" in message
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--kernels", "on"), "kernels and compile cannot both be on"),
        (("--memory-budget", "1"), "compile cannot be on with a memory budget"),
        (("--compile", "of"), "unknown value 'of' of compile; give one of auto, on, off"),
    ],
)
def test_what_does_not_go_together_with_compiling_is_refused(refused, folder, tmp_path, more, sentence):
    assert sentence in refused(*train(folder, tmp_path / "run"), "--compile", "on", *more)
    assert not (tmp_path / "run" / "config.json").exists()


def test_beside_the_kernels_or_a_memory_budget_auto_is_off_without_a_trial(long_run):
    def no_trial(step):
        raise AssertionError

    for change in ({"kernels": "on"}, {"memory_budget": 1.0}, {"device": "mps"}):
        assert not resolve_compile(dataclasses.replace(CONFIG, **change), resnet(), GivenTask(no_trial), print)
    with pytest.raises(InputError, match="not for mps"):
        resolve_compile(dataclasses.replace(CONFIG, device="mps", compile="on"), resnet(), GivenTask(no_trial), print)


def test_the_trial_takes_parts_of_a_batch_as_training_does(traced, long_run, monkeypatch):
    seen = []
    monkeypatch.setattr(compiling, "compile_blocks", lambda net: seen.append("compiled"))
    recipe = dataclasses.replace(CONFIG.recipe, accumulate=4)
    net = resnet()
    net.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    resolve_compile(dataclasses.replace(CONFIG, compile="auto", recipe=recipe), net, TASK, lambda message: None)
    assert "compiled" in seen and {size for size in seen if size != "compiled"} == {2}
