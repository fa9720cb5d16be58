"""A network as an ONNX model, run by ONNX Runtime."""

import torch
from torch import Tensor, nn

from deepres.runtime.errors import InputError
from deepres.serving.outputs import Outputs, Runner, output_names

IMAGES = "images"


def exported(net: nn.Module, example: Tensor) -> bytes:
    """The folded `net` as a serialized ONNX model of float32 for any number of images of the size of `example`.

    Its input is called `images` (N, C, H, W), its outputs as those of the network: `scores` (N, K) where it
    classifies. Raises `InputError` where PyTorch has no ONNX for an operation of `net`.
    """
    two = example[:1].repeat(2, 1, 1, 1)  # torch.export would keep a number of one image for good
    try:
        program = torch.onnx.export(
            net,
            (two,),
            input_names=[IMAGES],
            output_names=output_names(net, two),
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


def onnxruntime_runner(model: bytes) -> Runner:
    """The ONNX model as ONNX Runtime runs it on the processor, on as many threads as PyTorch has."""
    return onnxruntime_opened(model)[0]


def onnxruntime_opened(model: bytes) -> tuple[Runner, dict[str, str]]:
    """As `onnxruntime_runner`, and what the model says of itself."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(images: Tensor) -> Outputs:
        values = session.run(names, {IMAGES: images.contiguous().numpy()})
        return dict(zip(names, map(torch.from_numpy, values), strict=True))

    return run, session.get_modelmeta().custom_metadata_map
