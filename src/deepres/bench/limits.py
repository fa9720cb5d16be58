"""What this machine can do at all, and what a network asks of it."""

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepres.analysis.cost import stages
from deepres.analysis.mode import evaluating
from deepres.bench.inputs import our_network
from deepres.bench.job import Job
from deepres.models.catalog import input_size
from deepres.records import Json

REPEATS = 7
PATIENCE = 2.0  # seconds, after which one is not repeated: emulated products take ten and more
SIDE = 2048  # of the multiplied matrices
VALUES = 2**26  # of a streamed array: 256 MiB in fp32, far more than a cache holds


def machine_limits(precision: str) -> Json:
    """Multiply-adds a second of large products and convolutions, and bytes a second of a large addition.

    In bf16 for that precision, else in fp32. The best of some repeats each: a limit is what was reached once.
    """
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    first, second = torch.randn(2, SIDE, SIDE, dtype=kind)
    images = torch.randn(16, 128, 56, 56, dtype=kind).contiguous(memory_format=torch.channels_last)
    kernel = torch.randn(128, 128, 3, 3, dtype=kind).contiguous(memory_format=torch.channels_last)
    left, right, total = torch.zeros(3, VALUES)
    with torch.inference_mode():
        product = SIDE**3 / _best(lambda: first @ second)
        convolution = 128 * 9 * images.numel() / _best(lambda: F.conv2d(images, kernel, padding=1))
        stream = 3 * 4 * VALUES / _best(lambda: torch.add(left, right, out=total))
    return {
        "product_multiply_adds": product,
        "convolution_multiply_adds": convolution,
        "multiply_adds": max(product, convolution),
        "bytes": stream,
    }


def _best(run: Callable[[], object]) -> float:
    """The least seconds of a run."""
    seconds: list[float] = []
    while len(seconds) < REPEATS and sum(seconds) < PATIENCE:
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def asked(job: Job) -> Json:
    """Multiply-adds and bytes for one image of `work`, of convolutions as they are written.

    Winograd's way needs a quarter of the multiply-adds: networks on it may reach more than the machine's limit.
    Training costs a forward pass and twice that for the gradients (of the images, of the weights). Bytes count every
    layer's map read and written once, as if BN, ReLU and additions came free: forward the input and the output, in
    training also the output's gradient, the input again, and its gradient.
    """
    size = input_size(job.network)
    with torch.device("meta"):
        net = our_network(job)
    read, written = _values_moved(net, size)
    width = 2 if job.precision == "bf16" else 4
    multiply_adds = stages(net, size)[-1].multiply_adds
    if job.task == "infer":
        return {"multiply_adds": multiply_adds, "bytes": width * (read + written)}
    return {"multiply_adds": 3 * multiply_adds, "bytes": width * (3 * read + 2 * written)}


def _values_moved(net: nn.Module, size: int) -> tuple[int, int]:
    """Values that the convolutions and fc of `net` read and write for one image."""
    read = written = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal read, written
        read, written = read + inputs[0].numel(), written + output.numel()

    layers = [module for module in net.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    try:
        with evaluating(net), torch.no_grad():
            net(torch.zeros(1, 3, size, size, device="meta"))
    finally:
        for handle in handles:
            handle.remove()
    return read, written


def shares(record: Json, limits: Json, need: Json) -> Json:
    """The record with the limits beside it, and the share of each that our median reaches.

    No share for int8: the limits are those of floating-point numbers.
    """
    if record["work"]["precision"] == "int8":
        return record | {"limits": limits}
    speed = record["ours"]["images_per_second"]
    reached = {name: speed * need[name] / limits[name] for name in ("multiply_adds", "bytes")}
    return record | {"limits": limits, "asked": need, "share": reached}
