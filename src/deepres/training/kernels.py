"""Try this project's kernels for a GPU before a run relies on them: GPUs differ in what a kernel may take of them."""

import copy

import torch
from torch import nn

from deepres.acceleration import on_gpu
from deepres.runtime.device import autocast
from deepres.runtime.errors import InputError, Say, reason_of
from deepres.training.config import Config
from deepres.training.freeze import set_training
from deepres.training.task import AnyTask


def kernels_work(config: Config, asked: str, net: nn.Module, task: AnyTask, say: Say) -> bool:
    """Whether a run whose `config` has kernels on can train on them; on a GPU, one step of a copy of `net` tries it.

    Where they do not work, `say` is told, unless the kernels were `asked` to be on, which raises `InputError`.
    """
    if config.kernels != "on" or config.device != "cuda":
        return config.kernels == "on"
    trial = copy.deepcopy(net).to(device=config.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    set_training(trial)
    on_gpu.accelerate(trial)
    part = task.split(task.batch_at(0), config.recipe.accumulate)[0]
    try:
        with torch.random.fork_rng(), autocast(config.precision, config.device):
            loss, _ = task.loss(trial, part)
        loss.backward()
        torch.cuda.synchronize()
    except Exception as error:  # Triton raises almost any exception for a kernel that it cannot make or run
        if asked == "on":
            raise InputError(f"the kernels do not work on this GPU: {reason_of(error)}; leave --kernels out") from None
        say(f"the kernels do not work on this GPU ({reason_of(error)}); going on without, which takes longer")
        return False
    return True
