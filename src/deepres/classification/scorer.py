"""A trained network and a test protocol as one function from images to softmax scores.

The average over the views of an image is `views.score_views`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Self, TypeVar

import torch
from torch import Tensor, nn

from deepres.acceleration.folded import folded
from deepres.classification.views import CROP, Protocol, fitted, score_views
from deepres.data.augment import normalise
from deepres.models.catalog import input_size
from deepres.models.convolutional import fully_convolutional
from deepres.models.network import Network
from deepres.runtime.device import autocast, precision_of_tests, resolve_device
from deepres.runtime.errors import InputError
from deepres.serving.gpu import captured
from deepres.serving.outputs import SCORES
from deepres.weights.find import require_mean

BATCH_PIXELS = 32 * CROP * CROP
GPU_BATCH = 4  # times as many pixels on a GPU
DECODED_PIXELS = 2**26  # of the decoded pictures held at a time, at their own size: 200 MB
T = TypeVar("T")
Scorer = Callable[[Sequence[Tensor]], Tensor]


@dataclass(frozen=True)
class Execution:
    """How a test runs a network: the batch size (in views of the crop's size), the device and the precision.

    None and `auto` are chosen for the machine. `batch_size` changes no figure beyond rounding.
    """

    batch_size: int | None = None
    device: str = "auto"
    precision: str = "auto"

    def resolved(self) -> Self:
        """The same without `auto`, as chosen for this machine. Raises `InputError` for what is unknown."""
        device = resolve_device(self.device)
        return replace(self, device=device, precision=precision_of_tests(self.precision, device))

    def pixels(self, crop: int) -> int:
        """The most pixels in a batch of views, for a network trained on crops of `crop` pixels a side."""
        usual = BATCH_PIXELS * (GPU_BATCH if self.device == "cuda" else 1)
        return self.batch_size * crop**2 if self.batch_size else usual

    def views(self, crop: int) -> int:
        """How many views of the size of the crop are in a batch."""
        return max(1, self.pixels(crop) // crop**2)


AUTO = Execution()


def pieces(items: Iterable[T], most: int, pixels: Callable[[T], int]) -> Iterator[list[T]]:
    """`items` in lists of at most `most`; a list ends early once it holds `DECODED_PIXELS` pixels."""
    piece: list[T] = []
    held = 0
    for item in items:
        piece.append(item)
        held += pixels(item)
        if len(piece) == most or held >= DECODED_PIXELS:
            yield piece
            piece, held = [], 0
    if piece:
        yield piece


def crop_of(net: Network) -> int:
    """Pixels a side of the training images: from the header of the weights, else the mean image, else the name."""
    recorded = net.header.get("crop")
    if recorded is None and net.mean is not None and net.mean.shape[-1] > 1:
        recorded = net.mean.shape[-1]
    return int(recorded or input_size(str(net.name)))


def is_cropped(net: Network) -> bool:
    """Whether the network was trained on crops: our headers say so, and weights of others for ImageNet were."""
    said = net.header.get("protocol")  # in the header of an exported file
    foreign = "recipe" not in net.header and crop_of(net) == CROP
    return said != "single" if said else "crop" in net.header or foreign


def channels_and_classes(net: Network) -> tuple[int, int]:
    """Input channels and classes of a network, by its first and last parameter.

    An exported file has no parameters and tells them in its header.
    """
    every = list(net.parameters())
    return (every[0].shape[1], len(every[-1])) if every else (net.header["in_channels"], net.header["num_classes"])


def scorer(
    net: Network, protocol: Protocol, execution: Execution, engine: Callable[[Tensor], Tensor] | None = None
) -> Scorer:
    """The function from N images, each uint8 (C, H, W), to softmax scores, float64 (N, K), by `protocol`.

    With `engine`, which computes the same as the network, the views are scored by that. The function raises
    `InputError` for images that the network cannot take, and for scores that are not finite.
    """
    # The mean image, the crop, the device, and the views of the protocol.
    execution = execution.resolved()
    mean, crop, place = require_mean(net, net.name), crop_of(net), torch.device(execution.device)
    channels, views = channels_and_classes(net)[0], protocol.views(crop)
    # The network, made fully convolutional for the dense protocol.
    dense = protocol.name == "dense"
    if dense and net.in_file:
        raise InputError("a file takes views of one size, which the protocol dense has not; give another")
    made = (fully_convolutional(net, crop) if dense else net).eval()
    made = made.to(device=place, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    # On a GPU it is folded, and its forward pass captured; its weights then have the type of the precision.
    on_gpu = execution.device == "cuda" and not net.in_file
    run = engine or (gpu_scores(made, execution.precision, dense) if on_gpu else made)

    # From views to the input of the network, and from images to scores.
    def prepare(images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        images = images.to(place).contiguous(memory_format=torch.channels_last)
        return normalise(images, fitted(mean, height, width).to(place))

    def score(images: Sequence[Tensor]) -> Tensor:
        images = [with_channels(image, channels) for image in images]
        if protocol.name == "single":
            _check_sizes(images, mean)
        with nullcontext() if on_gpu else autocast(execution.precision, execution.device):
            scores = score_views(run, images, views, prepare, execution.pixels(crop))
        if not scores.isfinite().all():
            raise InputError("the network gives scores that are not finite; its weights are damaged, give others")
        return scores

    return score


def gpu_scores(net: nn.Module, precision: str, dense: bool = False) -> Callable[[Tensor], Tensor]:
    """The scores of `net`, which is not changed, for images on its GPU: folded, in `precision`, and captured.

    In fp32 the same scores come in every process. Otherwise cuDNN times its algorithms, but not for the many sizes of
    views of the `dense` test.
    """
    run = captured(folded(net), precision, benchmark=precision != "fp32" and not dense)

    def scores(images: Tensor) -> Tensor:
        outputs = run(images)
        return outputs[SCORES]

    return scores


def with_channels(image: Tensor, channels: int) -> Tensor:
    """An image (C, H, W) for a network of 1 or 3 input channels; gray is repeated or reduced to one channel.

    Raises `InputError` where colour would be lost.
    """
    if image.shape[0] == channels:
        return image
    if channels == 1 and not image.eq(image[:1]).all():
        raise InputError("the network takes grayscale images, these are in colour; give a network for colour")
    return image[:1].expand(channels, -1, -1)


def _check_sizes(images: Sequence[Tensor], mean: Tensor) -> None:
    """Raise `InputError` for an image of another size than the mean image; a mean for each channel has no size."""
    for image in images:
        if image.shape != mean.shape and mean.shape[-2:] != (1, 1):
            raise InputError(
                f"the weights were trained on images of {tuple(mean.shape)}, and one here is {tuple(image.shape)}; "
                f"bring it to that size (deepres eval --image-size {mean.shape[-1]}), or give --protocol center"
            )
