"""A folded network on a GPU, run by PyTorch: fused or compiled, and captured as CUDA graphs."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepres.acceleration.captured_forward import CapturedForward
from deepres.acceleration.on_cudnn import on_cudnn
from deepres.serving.outputs import Outputs, Runner
from deepres.serving.pytorch import DTYPES, InPrecision, compiling


def captured(net: nn.Module, precision: str, benchmark: bool = False) -> CapturedForward:
    """The folded `net` from images (N, C, H, W) of any size to float32 outputs by name, all on the GPU.

    `benchmark` lets cuDNN time its algorithms, as pays where few shapes come often; the rounding of scores may then
    differ from one process to the next.
    """
    return CapturedForward(on_cudnn(InPrecision(net, precision)), DTYPES[precision], benchmark=benchmark)


def compiled(net: nn.Module, precision: str, example: Tensor) -> Runner:
    """As `captured`, compiled for batches of the shape of `example`: fewer images are padded, more are divided.

    The compiler times kernels of its own for every layer, which takes up to minutes. Raises `InputError` where PyTorch
    cannot compile.
    """
    import torch._inductor.config as inductor

    made = InPrecision(net, precision)
    made.compile(mode="max-autotune-no-cudagraphs", dynamic=False)
    forward = CapturedForward(made, DTYPES[precision], benchmark=True)

    def run(images: Tensor) -> Outputs:
        parts: list[Outputs] = []
        for part in images.split(len(example)):
            whole = F.pad(part, (0, 0, 0, 0, 0, 0, 0, len(example) - len(part)))
            # Weights become constants, as in `pytorch.compiled`; the times of the kernels are not listed.
            with inductor.patch(freezing=True, autotune_num_choices_displayed=0):
                found = forward(whole)
            assert not isinstance(found, Tensor)
            parts.append(found)
        return {name: torch.cat([part[name] for part in parts])[: len(images)] for name in parts[0]}

    return compiling(run, example)
