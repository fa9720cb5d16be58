"""A folded network run by PyTorch itself, operation by operation or compiled."""

import copy

import torch
from torch import Tensor, nn

from deepres.acceleration.compiled import compile_alone
from deepres.runtime.errors import InputError
from deepres.serving.outputs import Outputs, Runner, named


def eager(net: nn.Module, precision: str) -> Runner:
    """The folded `net` from images (N, C, H, W) to float32 outputs; weights and maps are in `precision`."""
    return _converting(*_in_precision(net, precision))


def compiled(net: nn.Module, precision: str, example: Tensor) -> Runner:
    """As `eager`, compiled for images like `example`, and once more when the batch size changes.

    Raises `InputError` where PyTorch cannot compile, for example without a C++ compiler.
    """
    import torch._inductor.config as inductor
    from torch._dynamo.exc import TorchDynamoException

    fast, dtype = _in_precision(net, precision)
    compile_alone(fast)
    converting = _converting(fast, dtype)

    def run(images: Tensor) -> Outputs:
        # Freezing makes the weights constants of the graph. As an option of `compile` the tracer would not see it; so
        # it is set around each call, as each may compile.
        with inductor.patch(freezing=True):
            return converting(images)

    try:
        with torch.inference_mode():
            run(example)
    except TorchDynamoException as error:
        cause = str(error).strip().partition("\n")[0]
        raise InputError(f"compile, which takes a C++ compiler, fails here; PyTorch says: {cause}") from error
    return run


def _in_precision(net: nn.Module, precision: str) -> tuple[nn.Module, torch.dtype]:
    """A copy of `net` in the type of `precision`, so that weights are not cast in every run, as autocast does."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    return copy.deepcopy(net).to(dtype), dtype


def _converting(net: nn.Module, dtype: torch.dtype) -> Runner:
    def run(images: Tensor) -> Outputs:
        outputs = named(net(images.to(dtype, memory_format=torch.channels_last)))
        return {name: value.float() if value.is_floating_point() else value for name, value in outputs.items()}

    return run
