"""The limits of this machine, the work that a network asks for, and the share of the limits that it reaches."""

from collections.abc import Callable
from timeit import timeit

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
PATIENCE = 2.0  # seconds after which a product is not repeated: where bf16 is emulated, one takes ten seconds and more
SIDE = 2048  # of the multiplied matrices
GPU_SIDE, GPU_VALUES, GPU_REPEATS = 8192, 2**29, 10
VALUES = 2**26  # of a streamed array: 256 MiB in fp32, far more than a cache holds


def gpu_limits(precision: str) -> Json:
    """The same of a GPU: a large matrix product and a copy within its memory, whose bytes are read and written."""
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    with torch.inference_mode():
        first, second = torch.randn(2, GPU_SIDE, GPU_SIDE, dtype=kind, device="cuda")
        product = GPU_SIDE**3 / _best(_repeated(lambda: first @ second)) * GPU_REPEATS
        read, written = torch.zeros(2, GPU_VALUES, device="cuda")
        stream = 2 * 4 * GPU_VALUES / _best(_repeated(lambda: written.copy_(read))) * GPU_REPEATS
    return {"product_multiply_adds": product, "multiply_adds": product, "bytes": stream}


def _repeated(run: Callable[[], object]) -> Callable[[], None]:
    """Several runs one after the other, until the GPU has done them."""

    def runs() -> None:
        for _ in range(GPU_REPEATS):
            run()
        torch.cuda.synchronize()

    return runs


def limits_of(job: Job) -> Json:
    """The limits of the device that does the job."""
    return machine_limits(job.precision) if job.device == "cpu" else gpu_limits(job.precision)


def machine_limits(precision: str) -> Json:
    """Multiply-adds per second of large matrix products and convolutions, and bytes per second of a large addition.

    Products and convolutions are in bf16 for that precision, otherwise in fp32. Each is the best of several repeats.
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
    """The shortest time of a run, in seconds."""
    seconds: list[float] = []
    while len(seconds) < REPEATS and sum(seconds) < PATIENCE:
        seconds.append(timeit(run, number=1))
    return min(seconds)


def asked(job: Job) -> Json:
    """Multiply-adds and bytes that a job needs for one image.

    Multiply-adds are those of the definition of a convolution. Winograd's algorithm needs as little as a quarter of
    them, and may so reach more than the machine's limit. Training costs three forward passes: two are for the gradients
    with respect to images and weights. Bytes count the maps that convolutions and fc read and write; BN, ReLU and
    additions cost nothing here. A forward pass moves input and output; training also moves the gradient of the output,
    the input again, and the gradient of the input.
    """
    size = input_size(job.network)
    with torch.device("meta"):
        net = our_network(job)
    width = 2 if job.precision in ("bf16", "fp16") else 4
    multiply_adds = stages(net, size)[-1].multiply_adds
    read, written = _values_moved(net, size)
    if job.task == "infer":
        return {"multiply_adds": multiply_adds, "bytes": width * (read + written)}
    return {"multiply_adds": 3 * multiply_adds, "bytes": width * (3 * read + 2 * written)}


def _values_moved(net: nn.Module, size: int) -> tuple[int, int]:
    """Values that the convolutions and fc of `net`, which is not used again, read and write for one image."""
    moved: list[tuple[int, int]] = []

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        moved.append((inputs[0].numel(), output.numel()))

    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    with evaluating(net), torch.no_grad():
        net(torch.zeros(1, 3, size, size, device="meta"))
    return sum(read for read, _ in moved), sum(written for _, written in moved)


def shares(record: Json, limits: Json, need: Json) -> Json:
    """The record with the limits, and the share of each that our median speed reaches.

    int8 has no shares: the limits are those of floating-point numbers.
    """
    if record["work"]["precision"] == "int8":
        return record | {"limits": limits}
    speed = record["ours"]["images_per_second"]
    reached = {name: speed * need[name] / limits[name] for name in ("multiply_adds", "bytes")}
    return record | {"limits": limits, "asked": need, "share": reached}
