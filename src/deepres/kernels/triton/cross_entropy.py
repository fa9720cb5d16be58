"""The cross-entropy of a batch, its gradient, and the training error in one launch."""

# pyright: basic, reportUnknownParameterType=false, reportArgumentType=false, reportOperatorIssue=false, reportCallIssue=false
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS = 32  # logits of so many images are handled at once
MOST_CLASSES, MOST_IMAGES = 128, 1024  # one program takes the whole batch, so that its sums have one order


@triton.jit
def _cross_entropy(
    logits, labels, gradient, figures, count, classes, stride, smoothing, ROWS: tl.constexpr, CLASSES: tl.constexpr
):
    own = tl.arange(0, CLASSES)
    known = own < classes
    loss = tl.zeros((ROWS,), tl.float32)
    wrong = tl.zeros((ROWS,), tl.float32)
    for start in range(0, count, ROWS):
        row = start + tl.arange(0, ROWS)
        here = row < count
        inside = here[:, None] & known[None, :]
        x = tl.load(logits + row[:, None] * stride + own[None, :], mask=inside, other=0.0).to(tl.float32)
        x = tl.where(known[None, :], x, float("-inf"))
        label = tl.load(labels + row, mask=here, other=0)
        # Softmax scores, and the share of each class that the loss asks for.
        above = x - tl.max(x, 1)[:, None]
        powers = tl.exp(above)
        total = tl.sum(powers, 1)
        share = tl.where(own[None, :] == label[:, None], 1.0 - smoothing, 0.0) + smoothing / classes
        logs = tl.where(known[None, :], above - tl.log(total)[:, None], 0.0)
        loss += tl.where(here, -tl.sum(tl.where(known[None, :], share * logs, 0.0), 1), 0.0)
        wrong += tl.where(here & (tl.argmax(x, 1) != label), 1.0, 0.0)
        slope = (powers / total[:, None] - share) / count
        tl.store(gradient + row[:, None] * classes + own[None, :], slope, mask=inside)
    tl.store(figures, tl.sum(loss, 0) / count)
    tl.store(figures + 1, 100.0 * tl.sum(wrong, 0) / count)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
        count, classes = logits.shape
        gradient = torch.empty(count, classes, device=logits.device)
        figures = torch.empty(2, device=logits.device)
        sizes: dict[str, Any] = {"ROWS": ROWS, "CLASSES": max(2, triton.next_power_of_2(classes))}
        given = (logits, labels, gradient, figures, count, classes, logits.stride(0), smoothing)
        _cross_entropy[(1,)](*given, **sizes)
        ctx.save_for_backward(gradient)
        ctx.kind = logits.dtype
        loss, error = figures.unbind()
        ctx.mark_non_differentiable(error)
        return loss, error

    @staticmethod
    def backward(ctx: Any, slope: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * slope).to(ctx.kind), None, None


def cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """The mean cross-entropy of `logits` (N, K) with `labels` int64 (N,), and the training error in percent: scalars.

    As `F.cross_entropy` computes it in float32. N is `MOST_IMAGES` and K is `MOST_CLASSES` at most.
    """
    return _CrossEntropy.apply(logits, labels, label_smoothing)  # pyright: ignore[reportReturnType]


def fits(logits: Tensor) -> bool:
    """Whether the kernel takes these `logits` (N, K)."""
    count, classes = logits.shape
    return logits.stride(1) == 1 and count <= MOST_IMAGES and classes <= MOST_CLASSES
