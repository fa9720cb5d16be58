"""The fastest way to run a trained network on this processor or GPU."""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from deepres.acceleration.folded import folded
from deepres.runtime.device import without_tf32
from deepres.runtime.errors import InputError, Say, install, require_packages
from deepres.runtime.processor import multiplies_bf16
from deepres.serving import gpu, onnx, openvino, pytorch
from deepres.serving.int8 import onnx_model
from deepres.serving.outputs import SCORES, Outputs, Runner

PRECISIONS = ("fp32", "bf16", "fp16", "int8")
TURNS = 3  # timed turns of each candidate
TOLD = 5  # seconds to make an engine above which they are told
SETTLE = 0.05  # seconds of a turn untimed, then as many timed: at first the previous runtime's threads still spin


@dataclass(frozen=True)
class Engine:
    """A network ready to be run: images (N, C, H, W), of any N, to its outputs, both in float32.

    It computes on `device`; the images lie there or on the processor, and the outputs where the images lie. On a GPU,
    calls with images there do not wait for it, and images in pinned memory are copied to it fastest.
    `image` is the shape (C, H, W) of one image. A call raises `InputError` for images of another shape or type.
    """

    name: str
    precision: str
    image: tuple[int, ...]
    run: Runner
    device: str = "cpu"

    def __call__(self, images: Tensor) -> Outputs:
        """The outputs for `images`, by name."""
        if images.shape[1:] != self.image or not len(images) or images.dtype != torch.float32:
            wanted, given = (", ".join(map(str, shape)) for shape in (self.image, images.shape))
            raise InputError(f"this engine takes float32 images (N, {wanted}), not {images.dtype} ({given})")
        with torch.inference_mode():
            outputs = self.run(images.to(self.device, non_blocking=True))
            return {name: value.to(images.device) for name, value in outputs.items()}

    def scores(self, images: Tensor) -> Tensor:
        """The scores (N, K) of `images`, before softmax, where the network is a classifier."""
        return self(images)[SCORES]


@dataclass
class _Source:
    """The network that engines are made from; its folded form and its ONNX form are made once, on first need."""

    net: nn.Module
    example: Tensor
    precision: str
    calibrate: Iterable[Tensor] | None

    @property
    def device(self) -> str:
        return self.example.device.type

    @cached_property
    def folded(self) -> nn.Module:
        return folded(self.net).to(self.example.device)

    @cached_property
    def onnx(self) -> bytes:
        calibrate = self.calibrate if self.precision == "int8" else None
        return onnx_model(folded(self.net).cpu(), self.example.cpu(), calibrate)

    @cached_property
    def onnx_fp16(self) -> bytes:
        return onnx.exported(pytorch.InPrecision(folded(self.net).cpu(), "fp16"), self.example.cpu())


@dataclass(frozen=True)
class _Kind:
    """A kind of engine: the packages that it needs, the precisions that it has on each device, and its maker."""

    packages: tuple[str, ...]
    precisions: Mapping[str, tuple[str, ...]]
    make: Callable[[_Source], Runner]


def _eager(source: _Source) -> Runner:
    if source.device == "cpu":
        return pytorch.eager(source.folded, source.precision)
    return gpu.captured(source.folded, source.precision, benchmark=True)


def _compiled(source: _Source) -> Runner:
    made = pytorch.compiled if source.device == "cpu" else gpu.compiled
    return made(source.folded, source.precision, source.example)


def _onnxruntime(source: _Source) -> Runner:
    model = source.onnx_fp16 if source.precision == "fp16" else source.onnx
    return onnx.onnxruntime_opened(model, "cpu" if source.device == "cpu" else "cuda")[0]


def _tensorrt(source: _Source) -> Runner:
    return onnx.onnxruntime_opened(source.onnx, "tensorrt", source.example.shape)[0]


def _openvino(source: _Source) -> Runner:
    return openvino.openvino_runner(source.onnx, source.precision, source.example)


ONNX = ("onnx", "onnxscript", "onnxruntime")
FLOATS = {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "bf16", "fp16")}
KINDS = {
    "eager": _Kind((), FLOATS, _eager),
    "compile": _Kind((), FLOATS, _compiled),
    "onnxruntime": _Kind(ONNX, {"cpu": ("fp32", "int8"), "cuda": ("fp32", "fp16")}, _onnxruntime),
    "tensorrt": _Kind(ONNX, {"cuda": ("fp16", "int8")}, _tensorrt),  # its fp32 would be TF32
    "openvino": _Kind(("onnx", "onnxscript", "openvino"), {"cpu": ("fp32", "bf16", "int8")}, _openvino),
}
ENGINES = ("auto", *KINDS)


def engine(
    net: nn.Module,
    example: Tensor,
    name: str = "auto",
    precision: str = "fp32",
    calibrate: Iterable[Tensor] | None = None,
    say: Say = print,
) -> Engine:
    """The engine `name` for `net`, made for batches like `example`, float32 (N, C, H, W); others of another N run, too.

    It computes where the example lies: on the processor, or on a GPU. `auto` makes each engine that this machine can
    run, times them in turn on `example`, and keeps the fastest; `say` is told why the others cannot run. On a GPU it
    leaves out `compile`, which takes minutes and must be named. int8 takes the
    ranges of its maps from the batches (N, C, H, W) of `calibrate`.
    Raises `InputError` for an unknown name or precision, int8 without `calibrate`, and a named engine that
    cannot run here: its package or a compiler is missing, or it does not compute in that precision.
    """
    if "detector" in getattr(net, "header", {}):
        raise InputError(f"{net.name} is a detector, which no engine takes; write it with deepres export")
    _require_known(example, name, precision, calibrate)
    source = _Source(net, example, precision, calibrate)
    if precision == "bf16" and source.device == "cpu" and not multiplies_bf16():
        say("this processor does not multiply bf16: emulated, it is about ten times slower than fp32")
    if source.device == "cuda":
        without_tf32()
    # A named engine, or else the fastest of all.
    if name != "auto":
        chosen, seconds = _made(name, source)
        if seconds > TOLD and source.device == "cuda":
            say(f"the engine {name} was ready after {seconds:.0f} s")
        return chosen
    made = _all_made(source, say)
    if not made:
        raise InputError(f"no engine for {precision} can be had on {source.device} here: {install('serve')}")
    return _fastest(made, example, say)


def _all_made(source: _Source, say: Say) -> list[tuple[Engine, float]]:
    """Each engine that can be had here, with the seconds to make it."""
    made: list[tuple[Engine, float]] = []
    for name, kind in KINDS.items():
        slow = name == "compile" and source.device == "cuda"
        if source.precision in kind.precisions.get(source.device, ()) and not slow:
            try:
                made.append(_made(name, source))
            except InputError as trouble:
                say(f"passed over: {trouble}")
    return made


def require(name: str, precision: str, device: str = "cpu") -> None:
    """Raise `InputError` where the engine `name` lacks a package, or does not compute in `precision` on `device`."""
    kind = KINDS[name]
    if device not in kind.precisions:
        raise InputError(f"{name} does not run on {device}; give --device {next(iter(kind.precisions))}")
    if precision not in kind.precisions[device]:
        place = "" if device == "cpu" else f" on {device}"
        raise InputError(f"{name} has no {precision}{place}; give one of {', '.join(kind.precisions[device])}")
    require_packages((*kind.packages, *["onnxruntime"] * (precision == "int8")), f"{name} needs", "serve")
    if device == "cuda" and name in ("onnxruntime", "tensorrt"):
        onnx.require_provider("cuda" if name == "onnxruntime" else "tensorrt", f"{name} on a GPU")
    if name == "openvino" and precision == "bf16" and not openvino.multiplies_bf16():
        raise InputError("openvino has no bf16 on this processor; take fp32, or the engine eager")


def _require_known(example: Tensor, name: str, precision: str, calibrate: Iterable[Tensor] | None) -> None:
    for what, value, known in (("engine", name, ENGINES), ("precision", precision, PRECISIONS)):
        if value not in known:
            raise InputError(f"unknown {what} {value!r}; give one of {', '.join(known)}")
    if precision == "int8" and calibrate is None:
        raise InputError("int8 takes its ranges from images: give a few hundred of them as `calibrate`")
    if example.ndim != 4 or not len(example):
        raise InputError(f"the example must be images (N, C, H, W), not of shape {tuple(example.shape)}")


def _made(name: str, source: _Source) -> tuple[Engine, float]:
    """The engine, after a first run on the example, and the seconds that it took to make.

    Raises `InputError` where it cannot run here.
    """
    start = time.perf_counter()
    require(name, source.precision, source.device)
    made = Engine(name, source.precision, tuple(source.example.shape[1:]), KINDS[name].make(source), source.device)
    made(source.example)
    return made, time.perf_counter() - start


def _seconds_a_run(engine: Engine, example: Tensor) -> float:
    """The mean time of a run, over the runs of at least `SETTLE` seconds."""
    start, runs = time.perf_counter(), 0
    while time.perf_counter() - start < SETTLE or not runs:
        engine(example)
        if example.is_cuda:
            torch.cuda.synchronize()
        runs += 1
    return (time.perf_counter() - start) / runs


def _fastest(made: list[tuple[Engine, float]], example: Tensor, say: Say) -> Engine:
    """The engine with the smallest median time a run; all are run in turn. `made` has the seconds to make each."""
    engines, ready = (
        [engine for engine, _ in made],
        {engine.name: f" (ready after {cold:.0f} s)" for engine, cold in made if cold > TOLD},
    )
    seconds: dict[str, list[float]] = {engine.name: [] for engine in engines}
    for _ in range(TURNS):
        for engine in engines:
            _seconds_a_run(engine, example)
            seconds[engine.name].append(_seconds_a_run(engine, example))
    ranked = sorted(engines, key=lambda engine: statistics.median(seconds[engine.name]))
    medians = {engine.name: statistics.median(seconds[engine.name]) for engine in ranked}
    told = ", ".join(f"{name} {1000 * medians[name]:.2f} ms{ready.get(name, '')}" for name in medians)
    say(f"the fastest for a batch of {len(example)} in {ranked[0].precision}: {told}")
    return ranked[0]
