"""The rival `tuned` on a GPU: stock PyTorch with all that an expert switches on, in its fastest setting there.

Channels-last, autocast to bf16, images in the GPU's memory and augmented there, a fused optimizer whose rate is a
tensor, `torch.compile` in its modes, the whole step captured as a CUDA graph: each is tried for a limited time.
"""

import gc
import signal
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from types import FrameType

import torch
from torch import Tensor

from deepres.bench.gpu_rivals import source
from deepres.bench.inference import network
from deepres.bench.inputs import batch_of, many, our_network, release, seconds_of
from deepres.bench.job import Contestant, Job
from deepres.classification.loss import classification_loss
from deepres.runtime.device import autocast
from deepres.runtime.errors import InputError, reason_of

WARM_UP, STEPS, REPEATS = 3, 10, 3


@dataclass(frozen=True)
class Setting:
    """How the network is run: compiled in a `mode` of torch.compile or eager, and captured as one CUDA graph or not."""

    mode: str | None = None
    captured: bool = False

    def __str__(self) -> str:
        how = "eager" if self.mode is None else f"torch.compile {self.mode}"
        return f"{how}, captured" if self.captured else how


# Those that start at once come first, then the strongest, so that something is known when the time is over.
SETTINGS = (
    Setting(captured=True),
    Setting("default", captured=True),
    Setting("reduce-overhead"),
    Setting(),
    Setting("default"),
    Setting("max-autotune"),
)
Maker = Callable[[Setting], Callable[[], object]]  # sets up a setting, and returns what is repeated


class _LateError(BaseException):
    """The time for a setting is over. Not an `Exception`, which the compiler would take for its own."""


@contextmanager
def limited(seconds: float) -> Generator[None]:
    """Raise `_LateError` in the context after so many seconds; it has no limit where the system has no timer."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def late(number: int, frame: FrameType | None) -> None:
        raise _LateError

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def train(job: Job) -> Contestant:
    """Training steps in the fastest setting."""
    return _fastest(job, lambda setting: trainer(job, setting))


def infer(job: Job) -> Contestant:
    """Scores of a batch in the GPU's memory, in the fastest setting; weights and maps are in the job's precision."""
    return _fastest(job, lambda setting: scorer(job, setting))


def trainer(job: Job, setting: Setting) -> Callable[[], object]:
    """A training step in one setting, ready to be repeated."""
    net = our_network(job).train().to(job.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    forward: Callable[[Tensor], Tensor] = net if setting.mode is None else torch.compile(net, mode=setting.mode)
    rate = torch.tensor(0.1, device=job.device)
    optimizer = torch.optim.SGD(net.parameters(), rate, momentum=0.9, weight_decay=1e-4, fused=True)
    advance, batch = source(job)

    def step() -> Tensor:
        images, labels = batch()
        with autocast(job.precision, job.device):
            _, loss = classification_loss(forward(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    run = captured(step) if setting.captured else step

    def whole() -> None:
        advance()
        run()

    return whole


def scorer(job: Job, setting: Setting) -> Callable[[], object]:
    """Scores in one setting, ready to be repeated."""
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(job.precision, torch.float32)
    net = network(job).to(job.device, kind, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    forward: Callable[[Tensor], Tensor] = net if setting.mode is None else torch.compile(net, mode=setting.mode)
    images = batch_of(job)[0].to(kind, memory_format=torch.channels_last)

    def scores() -> Tensor:
        with torch.no_grad():
            return forward(images)

    return captured(scores) if setting.captured else scores


def captured(run: Callable[[], object]) -> Callable[[], None]:
    """`run` as a CUDA graph, which is replayed; its tensors stay where they are."""
    side = torch.cuda.Stream()  # of the warm-up, too: autograd keeps to the stream on which it first saw a parameter
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            run()
    torch.cuda.current_stream().wait_stream(side)
    gc.collect()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        run()
    return graph.replay


def usable(job: Job) -> Sequence[Setting]:
    """The settings that can be tried: a processor captures nothing, and compiling may be switched off."""
    return [
        setting
        for setting in SETTINGS
        if (job.compile or setting.mode is None) and not (setting.captured and job.device == "cpu")
    ]


def _fastest(job: Job, make: Maker) -> Contestant:
    """Try every setting, those that compile within the job's patience; the facts tell the time of each.

    Raises `InputError` where none works.
    """
    torch.set_float32_matmul_precision("high")
    best: tuple[float, Setting, Callable[[], object]] | None = None
    facts: dict[str, float | str] = {}
    left = job.patience
    for setting in usable(job):
        begun = time.perf_counter()
        run, told = _tried(job, setting, make, job.patience if setting.mode is None else left)
        spent = time.perf_counter() - begun
        left -= spent if setting.mode is not None else 0
        facts[str(setting)] = told
        facts[f"{setting}: tried for"] = spent
        if run is not None and isinstance(told, float) and (best is None or told < best[0]):
            best = told, setting, run
        del run
        release(job.device)
    if best is None:
        raise InputError(f"no setting of stock PyTorch works: {facts}")
    _, setting, run = best
    return Contestant(many(job, run), f"{job.precision}, channels-last, in the GPU's memory, {setting}", facts)


def _tried(job: Job, setting: Setting, make: Maker, allowed: float) -> tuple[Callable[[], object] | None, float | str]:
    """The setting at work, and its seconds a step; None, and the reason, where it does not work in time."""
    if setting.mode is not None and allowed < 1:
        return None, "not tried: the time for all settings was over"
    try:
        with limited(allowed):
            run = make(setting)
            for _ in range(WARM_UP):
                run()
            return run, median(_seconds_a_step(job, run) for _ in range(REPEATS))
    except _LateError:
        return None, f"did not work within {allowed:.0f} s"
    except (RuntimeError, torch.OutOfMemoryError) as error:
        return None, f"does not work: {reason_of(error)[:200]}"
    finally:
        gc.collect()


def _seconds_a_step(job: Job, run: Callable[[], object]) -> float:
    def steps() -> None:
        for _ in range(STEPS):
            run()

    return seconds_of(job, steps) / STEPS
