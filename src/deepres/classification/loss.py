"""The loss of a batch."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

AUXILIARY_WEIGHT = 0.3  # Szegedy et al. 2015, Sec. 5


def classification_loss(
    outputs: Tensor | Sequence[Tensor], labels: Tensor, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The scores (N, K) in what a network gives in training, and their mean cross-entropy with the labels (N,).

    A network with auxiliary classifiers (GoogLeNet) gives several scores, its own first: the loss of each of the
    others is added with weight 0.3, as its paper has it.
    """
    scores, *auxiliary = (outputs,) if isinstance(outputs, Tensor) else outputs

    def loss(scores: Tensor) -> Tensor:
        return F.cross_entropy(scores.float(), labels, label_smoothing=label_smoothing)

    total = loss(scores)
    for others in auxiliary:
        total = total + AUXILIARY_WEIGHT * loss(others)
    return scores, total
