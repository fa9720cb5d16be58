"""Top-1 and top-5 error with its interval, confusion matrix and per-class error."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

DRAWS, SEED = 10_000, 0  # of the bootstrap


@dataclass(frozen=True)
class Scores:
    """Scores of N images for K classes (N, K), in the order of the images, and the true labels (N,)."""

    scores: Tensor
    labels: Tensor

    def error(self, top: int = 1) -> float:
        """Percent of images whose true class is not among the `top` best scores; all K count where K < top."""
        return percent_wrong(self.correct(top), len(self.labels))

    def correct(self, top: int = 1) -> int:
        """How many images have their true class among the `top` best scores."""
        best = self.scores.topk(min(top, self.scores.shape[1]), dim=1).indices
        return int((best == self.labels[:, None]).sum())

    def interval(self, top: int = 1) -> tuple[float, float]:
        """The bootstrap 95 % interval of `error(top)`, in percent; always the same for the same scores.

        To draw the N images anew with replacement and count the right ones is to draw from a binomial distribution.
        """
        images = torch.full((DRAWS,), float(len(self.labels)), dtype=torch.float64)
        share = torch.full_like(images, self.correct(top) / len(self.labels))
        drawn = torch.binomial(images, share, generator=torch.Generator().manual_seed(SEED))
        low, high = (100 * (1 - drawn / images)).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
        return low, high

    def confusion(self) -> Tensor:
        """Counts (K, K): row the true class, column the predicted one."""
        from torchmetrics.functional.classification import multiclass_confusion_matrix  # loads in seconds: only here

        return multiclass_confusion_matrix(self.scores, self.labels, num_classes=self.scores.shape[1])

    def class_errors(self) -> list[float]:
        """Percent of wrongly classified images of each class; nan for a class without images."""
        counts = self.confusion().double()
        return (100 * (1 - counts.diagonal() / counts.sum(1))).tolist()

    def confused(self, most: int = 10) -> list[tuple[int, int, int]]:
        """The (true class, predicted class, images) of the pairs most often confused, most first; at most `most`."""
        counts = self.confusion().fill_diagonal_(0)
        ordered = counts.flatten().sort(descending=True, stable=True)
        pairs = zip(ordered.indices[:most].tolist(), ordered.values[:most].tolist(), strict=True)
        return [(place // len(counts), place % len(counts), images) for place, images in pairs if images]


def percent_wrong(correct: int, images: int) -> float:
    """The error in percent where `correct` of `images` were right; counts of several parts may be added before."""
    return 100 * (1 - correct / images)


@torch.no_grad()
def score(net: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Scores:
    """Scores of `net`, in evaluation mode, for batches of images (N, C, H, W) and labels (N,).

    Each image is scored by itself, so that the batch size changes no figure. Raises `ValueError` for no batch.
    """
    was_training = net.training
    net.eval()
    pairs = [(net(images).float().cpu(), labels.cpu()) for images, labels in batches]
    net.train(was_training)
    if not pairs:
        raise ValueError("no images to score")
    scores, labels = zip(*pairs, strict=True)
    return Scores(torch.cat(scores), torch.cat(labels))
