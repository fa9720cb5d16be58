"""Static quantization after training: an ONNX model of float32 to one of int8, from images that show its ranges."""

import tempfile
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

from torch import Tensor

from deepres.runtime.errors import InputError
from deepres.runtime.processor import int8_sums_overflow
from deepres.serving.onnx import IMAGES


def quantized(model: bytes, calibrate: Iterable[Tensor]) -> bytes:
    """The ONNX `model` with int8 weights, a scale for each channel, and uint8 maps, between QDQ pairs.

    The ranges of the maps are the smallest and largest values for the batches (N, C, H, W) of `calibrate`. Raises
    `InputError` where it holds no images.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    left = iter(calibrate)
    first = next(left, None)
    if first is None:
        raise InputError("int8 takes its ranges from images, and `calibrate` holds none; give it a few hundred")
    feeds = ({IMAGES: images.detach().contiguous().numpy()} for images in chain([first], left))

    class Batches(CalibrationDataReader):
        def get_next(self) -> dict[str, Any]:
            return next(feeds, {})

    with tempfile.TemporaryDirectory() as folder:
        prepared, done = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        quant_pre_process(onnx.load_model_from_string(model), prepared)
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
