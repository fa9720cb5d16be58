"""Scores of a batch in memory: our engines, and the libraries that people deploy with, as their users run them.

All contestants but timm have the same start weights (seed 0): torchvision's, where it has the network. Our network then
has its stride on the 3x3, as torchvision's. A few passes in training mode set the running statistics of batch
normalization: without them the scores of an untrained deep network would be far too large.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from deepres.bench.inputs import batch_of, our_network, seconds_of, torchvision_name
from deepres.bench.job import Contestant, Job
from deepres.models.catalog import input_size
from deepres.runtime.errors import InputError, install
from deepres.runtime.versions import version
from deepres.serving import engine as serving
from deepres.serving import onnx
from deepres.serving.agreement import agreement
from deepres.serving.int8 import onnx_model
from deepres.weights.names import torchvision_state_dict
from deepres.weights.state import load_state

TURN_SECONDS = 0.5  # about how long a turn repeats the batch
CHECKED = 64  # images on which scores are compared


def ours(job: Job) -> Contestant:
    """The fastest engine on this machine; its scores are compared with those of the plain network."""
    net, told = network(job), list[str]()
    example = batch_of(job)[0]
    made = serving.engine(net, example, "auto", job.precision, calibration(job), told.append)
    found = agreement(made, net, [pictures(job, CHECKED, seed=2)])
    facts = {"largest_change": found.change, "same_top1": found.same, "told": told[-1]}
    known = {name: fact for name, fact in facts.items() if fact is not None}
    return _repeated(lambda: made(example), job, f"engine {made.name}, {made.precision}", known)


def plain(job: Job) -> Contestant:
    """Our network without an engine, eager, in fp32."""
    return _eager(network(job), job, "the plain network, fp32 eager, channels-last", torch.channels_last)


def torchvision(job: Job) -> Contestant:
    """torchvision's network, eager, in fp32."""
    return _eager(torchvision_net(job), job, f"torchvision {version('torchvision')}, fp32 eager, NCHW")


def timm(job: Job) -> Contestant:
    """timm's network, eager, in fp32."""
    return _eager(timm_net(job), job, f"timm {version('timm')}, fp32 eager, NCHW")


def onnxruntime(job: Job) -> Contestant:
    """torchvision's network, exported by PyTorch, in ONNX Runtime with its defaults; int8 by its own quantization.

    On a GPU, by its provider for CUDA.
    """
    import onnxruntime as ort

    if job.device == "cuda":
        return _provided(job, "cuda")
    session = ort.InferenceSession(_exported(job), providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: batch_of(job)[0].numpy()}

    def scores() -> None:
        session.run(None, feed)

    return _repeated(scores, job, f"ONNX Runtime {ort.__version__}, {job.precision}, defaults")


def tensorrt(job: Job) -> Contestant:
    """The same model in TensorRT, through ONNX Runtime, in fp16 or int8."""
    return _provided(job, "tensorrt")


def _provided(job: Job, provider: onnx.Provider) -> Contestant:
    """ONNX Runtime with a provider for GPUs; images and scores lie in the GPU's memory."""
    import onnxruntime as ort

    images = batch_of(job)[0]
    run, _ = onnx.onnxruntime_opened(_exported(job), provider, images.shape)
    return _repeated(lambda: run(images), job, f"ONNX Runtime {ort.__version__}, {provider}, {job.precision}")


def openvino(job: Job) -> Contestant:
    """The same model in OpenVINO with its defaults, but the precision of the job: OpenVINO would choose bf16 itself."""
    import openvino as ov

    hint = {"INFERENCE_PRECISION_HINT": "bf16" if job.precision == "bf16" else "f32"}
    model = ov.Core().compile_model(ov.Core().read_model(_exported(job)), "CPU", hint)
    images = batch_of(job)[0].numpy()
    setting = f"OpenVINO {ov.__version__.partition('-')[0]}, {job.precision}, defaults"
    return _repeated(lambda: model(images), job, setting)


def network(job: Job) -> nn.Module:
    """Our network in evaluation mode, with torchvision's weights where torchvision has it."""
    try:
        theirs = torchvision_net(job)
    except InputError:
        torch.manual_seed(0)
        return _fitted(our_network(job), job)
    net = our_network(job)
    load_state(net, torchvision_state_dict(theirs.state_dict()))
    return net.eval()


def torchvision_net(job: Job) -> nn.Module:
    """torchvision's network of that name, in evaluation mode. Raises `InputError` where torchvision has none."""
    from torchvision import models

    name = torchvision_name(job)
    torch.manual_seed(0)
    return _fitted(getattr(models, name)(), job)


def timm_net(job: Job) -> nn.Module:
    """timm's network of that name, in evaluation mode. Raises `InputError` where timm is missing or has none."""
    name = torchvision_name(job)
    try:
        from timm import create_model
    except ImportError:
        raise InputError(f"timm is not installed; {install('bench')}") from None
    return create_model(name).eval()


def pictures(job: Job, count: int, seed: int) -> Tensor:
    """Smooth random pictures (count, 3, H, W) of standard deviation 1: the sum of noise at several scales."""
    generator, size = torch.Generator().manual_seed(seed), input_size(job.network)
    total = torch.zeros(count, 3, size, size)
    for cells in (2, 4, 8, 16, 32):
        noise = torch.randn(count, 3, cells, cells, generator=generator)
        total += nn.functional.interpolate(noise, size=(size, size), mode="bilinear")
    return total / total.std()


def calibration(job: Job) -> list[Tensor] | None:
    """Batches from which int8 takes its ranges; None for another precision."""
    return list(pictures(job, 128, seed=1).split(16)) if job.precision == "int8" else None


def _fitted(net: nn.Module, job: Job) -> nn.Module:
    """`net` in evaluation mode, after a few passes in training mode that set its running statistics."""
    net.train()
    with torch.no_grad():
        for seed in range(10):
            net(pictures(job, 8, seed=100 + seed))
    return net.eval()


def _exported(job: Job) -> bytes:
    """torchvision's network, or ours where torchvision has none, as an ONNX model; quantized for int8."""
    try:
        net = torchvision_net(job)
    except InputError:
        net = network(job)
    return onnx_model(net, batch_of(job)[0].cpu(), calibration(job))


def _eager(net: nn.Module, job: Job, setting: str, order: torch.memory_format = torch.contiguous_format) -> Contestant:
    images = batch_of(job)[0].contiguous(memory_format=order)
    net = net.to(job.device, memory_format=order)  # pyright: ignore[reportCallIssue]

    def scores() -> Tensor:
        with torch.no_grad():
            return net(images)

    return _repeated(scores, job, setting)


def _repeated(
    run: Callable[[], object], job: Job, setting: str, facts: dict[str, float | str] | None = None
) -> Contestant:
    """A contestant whose turn calls `run` as often as fills `TURN_SECONDS`."""
    # The second call tells the time of one; the first one may set up and compile.
    seconds_of(job, run)
    count = max(1, round(TURN_SECONDS / seconds_of(job, run)))

    def turn() -> int:
        for _ in range(count):
            run()
        return count * job.batch_size

    return Contestant(turn, setting, facts or {})
