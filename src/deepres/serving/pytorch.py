"""A folded network run by PyTorch itself, operation by operation or compiled."""

import copy

import torch
from torch import Tensor, nn

from deepres.acceleration.compiled import compile_alone
from deepres.models.classifier import Classifier
from deepres.runtime.errors import InputError
from deepres.serving.outputs import Outputs, Runner, named

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class InPrecision(nn.Module):
    """A copy of `net` in the type of `precision`, so that weights are not cast in every run, as autocast does.

    It takes images (N, C, H, W) of any type to outputs by name, float32. The layer that gives a classifier's scores
    stays in float32: scores that are rounded tie.
    """

    def __init__(self, net: nn.Module, precision: str):
        super().__init__()
        self.dtype = DTYPES[precision]
        self.net = copy.deepcopy(net).to(self.dtype)
        for module in self.net.modules():
            if isinstance(module, Classifier):
                module.float()
        self.eval()

    def forward(self, images: Tensor) -> Outputs:
        """The outputs by name."""
        outputs = named(self.net(images.to(self.dtype, memory_format=torch.channels_last)))
        return {name: value.float() if value.is_floating_point() else value for name, value in outputs.items()}


def eager(net: nn.Module, precision: str) -> Runner:
    """The folded `net` from images (N, C, H, W) to float32 outputs; weights and maps are in `precision`."""
    return InPrecision(net, precision)


def compiled(net: nn.Module, precision: str, example: Tensor) -> Runner:
    """As `eager`, compiled for images like `example`, and once more when the batch size changes.

    Raises `InputError` where PyTorch cannot compile, for example without a C++ compiler.
    """
    import torch._inductor.config as inductor

    made = InPrecision(net, precision)
    compile_alone(made.net)

    def run(images: Tensor) -> Outputs:
        # Freezing makes the weights constants of the graph. As an option of `compile` the tracer would not see it; so
        # it is set around each call, as each may compile.
        with inductor.patch(freezing=True):
            return made(images)

    return compiling(run, example)


def compiling(run: Runner, example: Tensor) -> Runner:
    """`run` after a first call on the example, which compiles. Raises `InputError` where PyTorch cannot compile."""
    from torch._dynamo.exc import TorchDynamoException

    try:
        with torch.inference_mode():
            run(example)
    except TorchDynamoException as error:
        cause = str(error).strip().partition("\n")[0]
        raise InputError(f"compile, which takes a C++ compiler, fails here; PyTorch says: {cause}") from error
    return run
