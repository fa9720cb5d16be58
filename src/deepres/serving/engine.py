"""The fastest way to run a trained network on this processor."""

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from deepres.acceleration.folded import folded
from deepres.runtime.errors import InputError, Say, install, require_packages
from deepres.runtime.processor import multiplies_bf16
from deepres.serving import onnx, openvino, pytorch
from deepres.serving.int8 import onnx_model
from deepres.serving.outputs import SCORES, Outputs, Runner

PRECISIONS = ("fp32", "bf16", "int8")
TURNS = 3  # timed turns of each candidate
SETTLE = 0.05  # seconds of a turn untimed, then as many timed: at first the previous runtime's threads still spin


@dataclass(frozen=True)
class Engine:
    """A network ready to be run: images (N, C, H, W), of any N, to its outputs, both in float32 on the processor.

    `image` is the shape (C, H, W) of one image. A call raises `InputError` for images of another shape or type.
    """

    name: str
    precision: str
    image: tuple[int, ...]
    run: Runner

    def __call__(self, images: Tensor) -> Outputs:
        """The outputs for `images`, by name."""
        if images.shape[1:] != self.image or not len(images) or images.dtype != torch.float32:
            wanted, given = (", ".join(map(str, shape)) for shape in (self.image, images.shape))
            raise InputError(f"this engine takes float32 images (N, {wanted}), not {images.dtype} ({given})")
        with torch.inference_mode():
            return self.run(images)

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

    @cached_property
    def folded(self) -> nn.Module:
        return folded(self.net).cpu()

    @cached_property
    def onnx(self) -> bytes:
        return onnx_model(self.folded, self.example, self.calibrate if self.precision == "int8" else None)


@dataclass(frozen=True)
class _Kind:
    """A kind of engine: the packages that it needs, the precisions that it computes in, and its maker."""

    packages: tuple[str, ...]
    precisions: tuple[str, ...]
    make: Callable[[_Source], Runner]


# fmt: off
KINDS = {
    "eager": _Kind((), ("fp32", "bf16"), lambda source: pytorch.eager(source.folded, source.precision)),
    "compile": _Kind((), ("fp32", "bf16"),
        lambda source: pytorch.compiled(source.folded, source.precision, source.example)),
    "onnxruntime": _Kind(("onnx", "onnxscript", "onnxruntime"), ("fp32", "int8"),
        lambda source: onnx.onnxruntime_opened(source.onnx)[0]),
    "openvino": _Kind(("onnx", "onnxscript", "openvino"), PRECISIONS,
        lambda source: openvino.openvino_runner(source.onnx, source.precision, source.example)),
}
# fmt: on
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

    `auto` makes each engine that this machine can run, times them in turn on `example`, and keeps the fastest; `say` is
    told why the others cannot run. int8 takes the ranges of its maps from the batches (N, C, H, W) of `calibrate`.
    Raises `InputError` for an unknown name or precision, int8 without `calibrate`, and a named engine that
    cannot run here: its package or a compiler is missing, or it does not compute in that precision.
    """
    _require_known(example, name, precision, calibrate)
    source = _Source(net, example, precision, calibrate)
    if precision == "bf16" and not multiplies_bf16():
        say("this processor does not multiply bf16: emulated, it is about ten times slower than fp32")
    # A named engine, or else the fastest of all.
    if name != "auto":
        return _made(name, source)
    made: list[Engine] = []
    for candidate in (kind for kind in KINDS if precision in KINDS[kind].precisions):
        try:
            made.append(_made(candidate, source))
        except InputError as trouble:
            say(f"passed over: {trouble}")
    if not made:
        raise InputError(f"no engine for {precision} can be had here: {install('serve')}")
    return _fastest(made, example, say)


def require(name: str, precision: str) -> None:
    """Raise `InputError` where the engine `name` lacks a package, or does not compute in `precision` here."""
    kind = KINDS[name]
    if precision not in kind.precisions:
        raise InputError(f"{name} has no {precision}; give one of {', '.join(kind.precisions)}")
    require_packages((*kind.packages, *["onnxruntime"] * (precision == "int8")), f"{name} needs", "serve")
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


def _made(name: str, source: _Source) -> Engine:
    """The engine, after a first run on the example. Raises `InputError` where it cannot run here."""
    require(name, source.precision)
    made = Engine(name, source.precision, tuple(source.example.shape[1:]), KINDS[name].make(source))
    made(source.example)
    return made


def _seconds_a_run(engine: Engine, example: Tensor) -> float:
    """The mean time of a run, over the runs of at least `SETTLE` seconds."""
    start, runs = time.perf_counter(), 0
    while time.perf_counter() - start < SETTLE or not runs:
        engine(example)
        runs += 1
    return (time.perf_counter() - start) / runs


def _fastest(engines: list[Engine], example: Tensor, say: Say) -> Engine:
    """The engine with the smallest median time a run; all are run in turn."""
    seconds: dict[str, list[float]] = {engine.name: [] for engine in engines}
    for _ in range(TURNS):
        for engine in engines:
            _seconds_a_run(engine, example)
            seconds[engine.name].append(_seconds_a_run(engine, example))
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    ranked = sorted(engines, key=lambda engine: medians[engine.name])
    told = ", ".join(f"{engine.name} {1000 * medians[engine.name]:.1f} ms" for engine in ranked)
    say(f"the fastest for a batch of {len(example)} in {ranked[0].precision}: {told}")
    return ranked[0]
