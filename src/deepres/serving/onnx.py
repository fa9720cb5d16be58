"""A network as an ONNX model, run by ONNX Runtime."""

import warnings

import torch
from torch import Tensor, nn

from deepres.runtime.errors import InputError
from deepres.serving.outputs import Outputs, Runner, named

IMAGES = "images"


def exported(net: nn.Module, example: Tensor) -> bytes:
    """The folded `net` as a serialized ONNX model of float32 for any number of images of the size of `example`.

    Its input is named `images` (N, C, H, W). Its outputs have the names that the network gives them: `scores` (N, K)
    for a classifier. Raises `InputError` where PyTorch cannot write an operation of `net` as ONNX, and where the
    package onnxscript is older than PyTorch.
    """
    two = example[:1].repeat(2, 1, 1, 1)  # for a single image, torch.export would fix the batch size at 1
    with torch.inference_mode():
        names = list(named(net(two)))
    try:
        with warnings.catch_warnings():  # PyTorch 2.11 warns of its own copies of trees
            warnings.filterwarnings("ignore", "`isinstance.treespec, LeafSpec.` is deprecated", FutureWarning)
            program = torch.onnx.export(
                net,
                (two,),
                input_names=[IMAGES],
                output_names=names,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                verbose=False,
            )
    except ModuleNotFoundError as error:
        raise InputError(
            f"onnxscript is too old for PyTorch {torch.__version__} ({error}); install a newer one"
        ) from None
    except torch.onnx.OnnxExporterError as error:
        # The sentence of the innermost error says why.
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = str(cause).strip().partition("\n")[0]
        raise InputError(
            f"PyTorch cannot write this network as ONNX ({reason}); give --format torch-export, or the engine eager"
        ) from error
    assert program is not None
    return program.model_proto.SerializeToString()


def onnxruntime_opened(model: bytes) -> tuple[Runner, dict[str, str]]:
    """The ONNX model as ONNX Runtime runs it on the processor, on as many threads as PyTorch has; and its metadata."""
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
