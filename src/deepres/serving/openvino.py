"""An ONNX model run by OpenVINO."""

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from deepres.runtime import processor
from deepres.runtime.ending import kept_signal_stack
from deepres.serving.outputs import Outputs, Runner

if TYPE_CHECKING:
    from openvino import CompiledModel, Core, Model


def multiplies_bf16() -> bool:
    """Whether OpenVINO computes in bf16 on this processor; where it cannot, it silently computes in fp32."""
    import openvino

    if not processor.multiplies_bf16():
        return False
    with kept_signal_stack():
        return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def compiled_for(core: "Core", model: "Model", settings: Mapping[str, str | int]) -> "CompiledModel":
    """`model` compiled for the processor."""
    with kept_signal_stack():
        return core.compile_model(model, "CPU", dict(settings))


def runner_of(model: "CompiledModel") -> Runner:
    """A compiled model as a function from images to its outputs, by their names in the file."""
    names = [output.get_any_name() for output in model.outputs]

    def run(images: Tensor) -> Outputs:
        with kept_signal_stack():
            values = model(images.contiguous().numpy())
        return {name: torch.from_numpy(values[place]) for place, name in enumerate(names)}

    return run


def openvino_runner(model: bytes, precision: str, example: Tensor) -> Runner:
    """The ONNX model as OpenVINO runs it on the processor, on as many threads as PyTorch has.

    It is compiled for the batch size of `example`, and on first need once more for all other batch sizes. The parts of
    an int8 model that are not quantized are computed in float32.
    """
    import openvino

    core = openvino.Core()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }

    @cache
    def compiled(shape: tuple[int, ...] | None) -> Runner:
        network = core.read_model(model)
        if shape:
            network.reshape(list(shape))
        return runner_of(compiled_for(core, network, settings))

    def run(images: Tensor) -> Outputs:
        same = images.shape == example.shape
        return compiled(tuple(images.shape) if same else None)(images)

    return run
