"""The loss of a batch."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from deepres.acceleration.step_kernels import fused_loss

AUXILIARY_WEIGHT = 0.3  # Szegedy et al. 2015, Sec. 5


def classification_loss(
    outputs: Tensor | Sequence[Tensor], labels: Tensor, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The logits (N, K) of a network in training, and their mean cross-entropy with the labels (N,).

    A network with auxiliary classifiers (GoogLeNet) gives several logits, its own first: the loss of each of the
    others is added with weight 0.3 (Szegedy et al. 2015).
    """
    every = [outputs] if isinstance(outputs, Tensor) else outputs
    own, *auxiliary = (F.cross_entropy(one.float(), labels, label_smoothing=label_smoothing) for one in every)
    return every[0], sum((AUXILIARY_WEIGHT * loss for loss in auxiliary), own)


def loss_and_error(
    outputs: Tensor | Sequence[Tensor], labels: Tensor, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The loss of `classification_loss`, and the training error in percent; by one kernel where there is one."""
    fused = fused_loss(outputs, labels, label_smoothing) if isinstance(outputs, Tensor) else None
    if fused is not None:
        return fused
    logits, loss = classification_loss(outputs, labels, label_smoothing)
    return loss, 100 * (logits.detach().argmax(1) != labels).float().mean()
