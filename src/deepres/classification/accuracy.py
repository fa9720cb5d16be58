"""Top-1 and top-5 error with its interval, confusion matrix and per-class error."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

DRAWS, SEED = 10_000, 0  # resamplings of the bootstrap, and the seed of its generator


@dataclass(frozen=True)
class Scores:
    """Scores of N images for K classes (N, K), in the order of the images, and the true labels (N,)."""

    scores: Tensor
    labels: Tensor

    def error(self, top: int = 1) -> float:
        """Percent of images whose true class is not among the `top` best scores; all K count where K < top."""
        return percent_wrong(self.correct(top), len(self.labels))

    def hits(self, top: int = 1) -> Tensor:
        """Whether each image has its true class among the `top` best scores, bool (N,)."""
        best = self.scores.topk(min(top, self.scores.shape[1]), dim=1).indices
        return (best == self.labels[:, None]).any(1)

    def correct(self, top: int = 1) -> int:
        """How many images have their true class among the `top` best scores."""
        return int(self.hits(top).sum())

    def interval(self, top: int = 1) -> tuple[float, float]:
        """The bootstrap 95 % interval of `error(top)`, in percent; always the same for the same scores.

        Where all images are right, or all wrong, every resampling is the same. The interval then ends at the error at
        which this result has a probability of 1/40, as the interval of Clopper and Pearson does.
        """
        wrong = ~self.hits(top)
        rare = 100 * (1 - 0.025 ** (1 / len(wrong)))
        if not wrong.any():
            return 0.0, 0.0 if top >= self.scores.shape[1] else rare
        return (100 - rare, 100.0) if wrong.all() else _bootstrap(wrong)

    def difference(self, other: "Scores", top: int = 1) -> tuple[float, float, float]:
        """`error(top)` minus that of `other` on the same images, and its bootstrap 95 % interval, in percent.

        An image is drawn for both at once, so that the interval is narrow where both are wrong on the same images.
        """
        own, others = self.hits(top), other.hits(top)
        return self.error(top) - other.error(top), *_bootstrap(others & ~own, own & ~others)

    def predicted(self) -> Tensor:
        """The class with the best score of each image, int64 (N,), with ties broken as in `hits`."""
        return self.scores.topk(1, dim=1).indices[:, 0]

    def confusion(self) -> Tensor:
        """Counts (K, K): row the true class, column the predicted one."""
        classes = self.scores.shape[1]
        return (self.labels * classes + self.predicted()).bincount(minlength=classes**2).view(classes, classes)

    def class_errors(self) -> list[float]:
        """Percent of wrongly classified images of each class; nan for a class without images."""
        counts = self.confusion().double()
        return (100 * (1 - counts.diagonal() / counts.sum(1))).tolist()

    def confused(self, most: int = 10) -> list[tuple[int, int, int]]:
        """(true class, predicted class, images) of the at most `most` pairs most often confused, most first."""
        counts = self.confusion().fill_diagonal_(0)
        ordered = counts.flatten().sort(descending=True, stable=True)
        pairs = zip(ordered.indices[:most].tolist(), ordered.values[:most].tolist(), strict=True)
        return [(place // len(counts), place % len(counts), images) for place, images in pairs if images]


def percent_wrong(correct: int, images: int) -> float:
    """The error in percent where `correct` of `images` were right; counts of several parts may be summed first."""
    return 100 * (1 - correct / images)


def _bootstrap(more: Tensor, less: Tensor | None = None) -> tuple[float, float]:
    """The 95 % interval of the percentage of `more` minus that of `less`; both are bool (N,) and never both True.

    The count of `more` among N images drawn with replacement has a binomial distribution; that of `less` has another
    one over the images that are left.
    """
    generator, total = torch.Generator().manual_seed(SEED), float(len(more))
    images, share = torch.full((DRAWS,), total, dtype=torch.float64), more.double().mean()
    drawn = torch.binomial(images, share.expand(DRAWS), generator)
    if less is not None and share < 1:
        left = less.double().mean() / (1 - share)
        drawn = drawn - torch.binomial(images - drawn, left.clamp(max=1).expand(DRAWS), generator)
    low, high = (100 * drawn / total).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


@torch.no_grad()
def score(net: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Scores:
    """Scores of `net` for batches of images (N, C, H, W) and labels (N,).

    The network is in evaluation mode, so that the batch size changes no error. Raises `ValueError` for no batch.
    """
    was_training = net.training
    net.eval()
    pairs = [(net(images).float(), labels) for images, labels in batches]  # a GPU is waited for at the end alone
    net.train(was_training)
    if not pairs:
        raise ValueError("no images to score")
    scores, labels = (torch.cat(parts).cpu() for parts in zip(*pairs, strict=True))
    return Scores(scores, labels)
