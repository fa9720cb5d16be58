"""Parts of a training step that are one kernel of this project on a GPU: a batch is cut, and its loss is taken."""

import os
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from deepres.data.resident_batches import Cut
from deepres.runtime.cache_folder import cache_folder
from deepres.runtime.errors import reason_of


def makes_kernels() -> bool:
    """Whether Triton makes kernels for this machine's GPU; it takes a C compiler, too. The first call tries it."""
    return trouble() is None


@cache
def trouble() -> str | None:
    """Why Triton makes no kernels here; None where it does."""
    if not torch.cuda.is_available():
        return "there is no GPU"
    if find_spec("triton") is None:
        return "triton is not installed"
    os.environ.setdefault("TRITON_CACHE_DIR", str(cache_folder() / "triton"))
    from deepres.kernels.triton.cross_entropy import cross_entropy

    try:
        cross_entropy(torch.zeros(1, 2, device="cuda"), torch.zeros(1, dtype=torch.int64, device="cuda"))
    except Exception as error:  # Triton raises almost any exception where its tools are missing
        return f"Triton makes no kernel here ({reason_of(error)}), for which it needs a C compiler"
    return None


def fused_cut(device: str) -> Cut | None:
    """The kernel that cuts and flips the images of a batch, with the bits of PyTorch's operations; None without one."""
    if device != "cuda" or not makes_kernels():
        return None
    from deepres.kernels.triton.augment import crop_flip_normalise

    return crop_flip_normalise


def fused_loss(logits: Tensor, labels: Tensor, label_smoothing: float) -> tuple[Tensor, Tensor] | None:
    """The mean cross-entropy of logits (N, K), and the training error in percent; None where no kernel takes them."""
    if not logits.is_cuda or not makes_kernels():
        return None
    from deepres.kernels.triton.cross_entropy import cross_entropy, fits

    return cross_entropy(logits, labels, label_smoothing) if fits(logits) else None
