"""The rival `textbook`: the training loop as popular repositories write it.

PIL images through torchvision's transforms, a DataLoader with two workers that start again in each epoch, fp32, eager,
NCHW, `.item()` on the loss and the accuracy of every step, and a test after every epoch.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from deepres.bench.inputs import data_of, on_a_batch, our_network
from deepres.bench.job import Contestant, Job, is_epoch
from deepres.classification.loss import classification_loss
from deepres.data.resident import ImageSet

SETTING = "PIL, DataLoader with 2 workers, fp32 eager, NCHW, .item() a step"
MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
NORMALISE = [transforms.ToTensor(), transforms.Normalize(MEAN, DEVIATION)]
AUGMENT = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]


class PILImages(Dataset[tuple[Tensor, Any]]):
    """Images as in `torchvision.datasets.CIFAR10`: an array (N, H, W, C) in memory, a PIL image made of each item."""

    def __init__(self, images: ImageSet, transform: Callable[[Image.Image], Tensor]):
        self.data = np.ascontiguousarray(images.images.permute(0, 2, 3, 1).numpy())
        self.targets: list[int] = images.labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        return self.transform(Image.fromarray(self.data[index])), self.targets[index]


def _loaders(job: Job) -> tuple[DataLoader[tuple[Tensor, Any]], DataLoader[tuple[Tensor, Any]]]:
    """The loaders of the training and of the test images."""
    data = data_of(job)
    train = PILImages(data.train, transforms.Compose([*AUGMENT, *NORMALISE]))
    test = PILImages(data.test, transforms.Compose(NORMALISE))
    return (
        DataLoader(train, job.batch_size, shuffle=True, num_workers=2),
        DataLoader(test, job.batch_size, num_workers=2),
    )


def stock_step(net: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """A training step of stock PyTorch, which returns the scores (N, K) and waits for the loss."""
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)

    def step(images: Tensor, labels: Tensor) -> Tensor:
        scores, loss = classification_loss(net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
        return scores

    return step


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """The share of the scores (N, K) whose largest is the label's (N,)."""
    return (scores.argmax(1) == labels).float().mean().item()


def train(job: Job) -> Contestant:
    """An epoch with the test after it, or a step on a batch in memory."""
    net = our_network(job).train()
    take = stock_step(net)

    def step(images: Tensor, labels: Tensor) -> float:
        return accuracy(take(images, labels), labels)

    if not is_epoch(job):
        return Contestant(on_a_batch(job, step), SETTING)
    training, testing = _loaders(job)

    def epoch() -> int:
        net.train()
        count = 0
        for images, labels in training:
            step(images, labels)
            count += len(labels)
        net.eval()
        with torch.no_grad():
            for images, labels in testing:
                accuracy(net(images), labels)
        return count

    return Contestant(epoch, SETTING)


def load_batches(job: Job) -> Contestant:
    """The batches of an epoch."""
    training, _ = _loaders(job)
    return Contestant(lambda: sum(len(labels) for _, labels in training), "PIL, DataLoader with 2 workers")
