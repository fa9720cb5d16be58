"""A network as an ONNX model, run by ONNX Runtime: on the processor, or on a GPU by its CUDA or TensorRT provider."""

import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from deepres.runtime.cache_folder import cache_folder
from deepres.runtime.errors import InputError
from deepres.serving.outputs import Outputs, Runner, named

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

IMAGES = "images"
Provider = Literal["cpu", "cuda", "tensorrt"]  # what of ONNX Runtime computes
PROVIDERS: dict[Provider, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
TYPES = {
    "tensor(float)": torch.float32,
    "tensor(float16)": torch.float16,
    "tensor(uint8)": torch.uint8,
    "tensor(int64)": torch.int64,
}


def exported(net: nn.Module, example: Tensor) -> bytes:
    """The folded `net` as a serialized ONNX model of float32 for any number of images of the size of `example`.

    Its input is named `images` (N, C, H, W). Its outputs have the names that the network gives them: `scores` (N, K)
    for a classifier. Raises `InputError` where PyTorch cannot write an operation of `net` as ONNX, and where the
    package onnxscript is older than PyTorch.
    """
    two = example[:1].repeat(2, 1, 1, 1)  # for a single image, torch.export would fix the batch size at 1
    with torch.inference_mode():
        names = list(named(net(two)))
    with writing():
        program = torch.onnx.export(
            net,
            (two,),
            input_names=[IMAGES],
            output_names=names,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    return program.model_proto.SerializeToString()


@contextmanager
def writing() -> Generator[None]:
    """Errors of PyTorch's exporter to ONNX, raised inside, become `InputError`, as `exported` raises them."""
    try:
        with warnings.catch_warnings():  # PyTorch 2.11 warns of its own copies of trees
            warnings.filterwarnings("ignore", "`isinstance.treespec, LeafSpec.` is deprecated", FutureWarning)
            yield
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


def require_provider(provider: Provider, who: str) -> None:
    """Raise `InputError` where the ONNX Runtime that is installed lacks `provider`, which `who` needs."""
    import onnxruntime

    if PROVIDERS[provider] not in onnxruntime.get_available_providers():
        raise InputError(
            f"{who} needs ONNX Runtime's {PROVIDERS[provider]}, which the installed one lacks: put the package "
            f"onnxruntime-gpu{' and TensorRT' * (provider == 'tensorrt')} in the place of onnxruntime"
        )


def onnxruntime_opened(
    model: bytes, provider: Provider = "cpu", size: Sequence[int] = ()
) -> tuple[Runner, dict[str, str]]:
    """The ONNX model as ONNX Runtime runs it, and its metadata.

    On the processor it takes as many threads as PyTorch has. On a GPU, images and outputs are tensors there, and
    nothing is copied. TensorRT builds its kernels for batches of up to the `size` (N, C, H, W), once for each machine:
    they are kept in the cache folder.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(model, options, providers=providers(provider, size))
    if provider == "cpu":
        return _on_processor(session), session.get_modelmeta().custom_metadata_map
    # ONNX Runtime goes on with another provider, with a warning at most, where the named one does not start.
    if PROVIDERS[provider] not in session.get_providers():
        raise InputError(
            f"ONNX Runtime's {PROVIDERS[provider]} does not start here: its libraries (CUDA, cuDNN, TensorRT) are "
            "missing or of another version; take the engine eager"
        )
    return bound(session, "cuda"), session.get_modelmeta().custom_metadata_map


def providers(provider: Provider, size: Sequence[int] = ()) -> list[tuple[str, dict[str, Any]]]:
    """The providers that a session tries in order, with their settings; each takes the operations left by the others.

    fp32 is fp32 in the CUDA provider, not TF32. TensorRT computes in fp16 what its kernels are fastest in.
    """
    processor = (PROVIDERS["cpu"], dict[str, Any]())
    if provider == "cpu":
        return [processor]
    device = torch.cuda.current_device() if torch.cuda.is_available() else 0
    cuda: dict[str, Any] = {"device_id": device, "use_tf32": 0, "cudnn_conv_algo_search": "EXHAUSTIVE"}
    if provider == "cuda":
        return [(PROVIDERS["cuda"], cuda), processor]
    folder = cache_folder() / "tensorrt"
    folder.mkdir(parents=True, exist_ok=True)
    tensorrt: dict[str, Any] = {
        "device_id": device,
        "trt_fp16_enable": True,
        "trt_int8_enable": True,  # of layers between quantizing nodes alone
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(folder),
    }
    if size:
        shapes = {"min": (1, *size[1:]), "opt": size, "max": size}
        tensorrt |= {
            f"trt_profile_{name}_shapes": f"{IMAGES}:{'x'.join(map(str, shape))}" for name, shape in shapes.items()
        }
    return [(PROVIDERS["tensorrt"], tensorrt), (PROVIDERS["cuda"], cuda), processor]


def _on_processor(session: "InferenceSession") -> Runner:
    names = [output.name for output in session.get_outputs()]

    def run(images: Tensor) -> Outputs:
        values = session.run(names, {IMAGES: images.contiguous().numpy()})
        return dict(zip(names, map(torch.from_numpy, values), strict=True))

    return run


def bound(session: "InferenceSession", device: str) -> Runner:
    """The session as a function of images on `device` to outputs there, which it reads and writes where they lie."""
    outputs = [(output.name, TYPES[output.type], output.shape[1:]) for output in session.get_outputs()]

    def run(images: Tensor) -> Outputs:
        images, binding = images.contiguous(), session.io_binding()
        made = {
            name: torch.empty((len(images), *shape), dtype=dtype, device=images.device)
            for name, dtype, shape in outputs
        }
        _bind(binding.bind_input, IMAGES, images, device)
        for name, value in made.items():
            _bind(binding.bind_output, name, value, device)
        # ONNX Runtime has a stream of its own, so each waits for the other.
        if images.is_cuda:
            torch.cuda.current_stream(images.device).synchronize()
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return made

    return run


def _bind(bind: Any, name: str, value: Tensor, device: str) -> None:
    """Tell a binding where the tensor `value` lies."""
    kind = torch.empty(0, dtype=value.dtype).numpy().dtype
    bind(name, device, value.device.index or 0, kind, tuple(value.shape), value.data_ptr())
