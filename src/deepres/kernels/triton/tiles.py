"""How each kernel divides its work on a GPU.

Tiles of maps are those that were fastest, or near them, of four tried on one H100 with an earlier form of the kernels
(resnet20 at 128 images: 0.784 ms a captured step). Those of the kernels' gradients follow from registers and shared
memory. No kernel was measured on a GPU since it had its present form.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Tile:
    """`positions` a program, on `warps` warps; `band` positions are normalised at once.

    `valid` taps, which divide 9, are multiplied at once, as a product over `taps` (a power of two) times the channels.
    """

    positions: int
    warps: int
    band: int = 64
    stages: int = 1
    taps: int = 1
    valid: int = 1

    @property
    def options(self) -> dict[str, int]:
        """The launch options of Triton."""
        return {"num_warps": self.warps, "num_stages": self.stages}

    def grid(self, positions: int, more: int = 0) -> tuple[int]:
        """The number of programs for that many positions, and so many more."""
        return (-(-positions // self.positions) + more,)


@dataclass(frozen=True)
class Share:
    """As `Tile`, of a gradient of weights: `taps` of a kernel a program (`valid` of them used), `splits` programs."""

    positions: int
    warps: int
    taps: int
    valid: int
    splits: int
    stages: int = 2

    @property
    def options(self) -> dict[str, int]:
        """The launch options of Triton."""
        return {"num_warps": self.warps, "num_stages": self.stages}


# By the channels of the output; of the input, for gradients of kernels.
FORWARD = {16: Tile(256, 4, 128, 3), 32: Tile(128, 4, 128, 3), 64: Tile(64, 4, 64, 3)}
INPUT_GRADIENT = {16: Tile(128, 4, 64, 3), 32: Tile(128, 4, 128, 3), 64: Tile(64, 4, 64, 3)}
WEIGHT_GRADIENT = {16: Share(64, 4, 4, 3, 48, 3), 32: Share(64, 4, 4, 3, 32, 3), 64: Share(64, 4, 1, 1, 16, 3)}
IMAGES = Tile(128, 4)
IMAGES_GRADIENT = Share(128, 4, 1, 9, 256, 1)
POOL = Tile(64, 4)
# In float32, where each product is three of shorter numbers.
EXACT = Tile(64, 4)
EXACT_SHARE = Share(32, 4, 1, 1, 64, 1)

# Copies of BN's sums. 64 channels have too few programs to be in each other's way.
COPIES = {16: 8, 32: 4, 64: 1}


def forward(channels: int, dtype: torch.dtype) -> Tile:
    """For a convolution with that many channels of output."""
    return EXACT if dtype == torch.float32 else FORWARD[channels]


def input_gradient(channels: int, dtype: torch.dtype) -> Tile:
    """For the gradient of the input of a convolution with that many channels of output."""
    return EXACT if dtype == torch.float32 else INPUT_GRADIENT[channels]


def weight_gradient(channels: int, dtype: torch.dtype) -> Share:
    """For the gradients of kernels with that many channels of input."""
    return EXACT_SHARE if dtype == torch.float32 else WEIGHT_GRADIENT[channels]


def of_images(dtype: torch.dtype) -> Tile:
    """For conv1."""
    return EXACT if dtype == torch.float32 else IMAGES


def of_images_gradient(dtype: torch.dtype) -> Share:
    """For the gradient of its kernel."""
    return EXACT_SHARE if dtype == torch.float32 else IMAGES_GRADIENT
