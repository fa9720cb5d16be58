"""A network as an ONNX model, run by ONNX Runtime."""

import torch
from torch import Tensor, nn

from deepres.runtime.errors import InputError
from deepres.serving.pytorch import Run

IMAGES, SCORES = "images", "scores"


def exported(net: nn.Module, example: Tensor) -> bytes:
    """The folded `net` as a serialized ONNX model of float32 for any number of images of the size of `example`.

    Its input is called `images` (N, C, H, W), its output `scores` (N, K). Raises `InputError` where PyTorch has no
    ONNX for an operation of `net`.
    """
    two = example[:1].repeat(2, 1, 1, 1)  # torch.export would keep a number of one image for good
    try:
        program = torch.onnx.export(
            net,
            (two,),
            input_names=[IMAGES],
            output_names=[SCORES],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = str(cause).strip().partition("\n")[0]
        raise InputError(
            f"PyTorch cannot write this network as ONNX ({reason}); give --format torch-export, or the engine eager"
        ) from error
    assert program is not None
    return program.model_proto.SerializeToString()


def onnxruntime_run(model: bytes) -> Run:
    """The ONNX model as ONNX Runtime runs it on the processor, on as many threads as PyTorch has."""
    return onnxruntime_opened(model)[0]


def onnxruntime_opened(model: bytes) -> tuple[Run, dict[str, str]]:
    """As `onnxruntime_run`, and what the model says of itself."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        (scores,) = session.run([SCORES], {IMAGES: images.contiguous().numpy()})
        return torch.from_numpy(scores)

    return run, session.get_modelmeta().custom_metadata_map
