"""The form in which a detector is tested: faster, with the same detections to rounding."""

from typing import cast

from deepres.acceleration.folded import folded
from deepres.acceleration.on_kernels import runs_on_kernels
from deepres.models.detection.detector import Detector


def tested_form(net: Detector) -> Detector:
    """`net` in evaluation mode with its BN folded into the convolutions; itself where it trains on the kernels.

    The copy does not follow later changes of the weights of `net`.
    """
    return net if runs_on_kernels(net) else cast(Detector, folded(net))
