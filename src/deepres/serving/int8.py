"""Static quantization after training: an ONNX model in int8, with ranges taken from the maps of given images."""

import tempfile
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from deepres.runtime.errors import InputError
from deepres.runtime.processor import int8_sums_overflow
from deepres.serving.onnx import IMAGES, exported


def onnx_model(net: nn.Module, example: Tensor, calibrate: Iterable[Tensor] | None) -> bytes:
    """The folded `net` as an ONNX model (as `onnx.exported`), quantized to int8 where `calibrate` is given."""
    model = exported(net, example)
    return model if calibrate is None else quantized(model, calibrate)


def quantized(model: bytes, calibrate: Iterable[Tensor]) -> bytes:
    """The ONNX `model` with int8 weights (a scale for each channel) and uint8 maps, between QDQ pairs.

    The range of a map goes from its smallest to its largest value over the batches (N, C, H, W) of `calibrate`.
    Raises `InputError` where `calibrate` holds no images.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    # The images, one batch at a time.
    left = iter(calibrate)
    first = next(left, None)
    if first is None:
        raise InputError("int8 takes its ranges from images, and `calibrate` holds none; give it a few hundred")
    feeds = ({IMAGES: images.detach().contiguous().numpy()} for images in chain([first], left))

    class Batches(CalibrationDataReader):
        def get_next(self) -> dict[str, Any]:
            return next(feeds, {})

    # The quantizer reads and writes files.
    with tempfile.TemporaryDirectory() as folder:
        whole, prepared, done = (Path(folder) / name for name in ("whole.onnx", "prepared.onnx", "int8.onnx"))
        whole.write_bytes(model)
        quant_pre_process(whole, prepared, skip_symbolic_shape=True)  # that is for transformers, and knows less
        quantize_static(
            prepared,
            done,
            Batches(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=int8_sums_overflow(),
        )
        return done.read_bytes()
