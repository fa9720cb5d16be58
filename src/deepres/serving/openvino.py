"""An ONNX model run by OpenVINO."""

from functools import cache

import torch
from torch import Tensor

from deepres.runtime import processor
from deepres.serving.pytorch import Run


def multiplies_bf16() -> bool:
    """Whether OpenVINO computes in bf16 on this processor; where it does not, it takes fp32 without a word."""
    import openvino

    return processor.multiplies_bf16() and "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def openvino_run(model: bytes, precision: str, example: Tensor) -> Run:
    """The ONNX model as OpenVINO runs it on the processor, on as many threads as PyTorch has.

    It is compiled for as many images as `example` has, and on first need once more for any other number. What is
    not quantized in an int8 model is computed in float32.
    """
    import openvino

    core = openvino.Core()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }

    @cache
    def compiled(shape: tuple[int, ...] | None) -> openvino.CompiledModel:
        network = core.read_model(model)
        if shape:
            network.reshape(list(shape))
        return core.compile_model(network, "CPU", settings)

    def run(images: Tensor) -> Tensor:
        same = images.shape == example.shape
        return torch.from_numpy(compiled(tuple(images.shape) if same else None)(images.contiguous().numpy())[0])

    return run
