"""The form in which a detector is tested: faster, with the same detections to rounding."""

from typing import cast

from deepres.acceleration.folded import folded
from deepres.acceleration.on_kernels import accelerate_regions, resolve_kernels, runs_on_kernels
from deepres.models.detection.detector import Detector
from deepres.runtime.errors import silent


def fast_form(net: Detector) -> Detector:
    """A copy of `net` in evaluation mode, with BN in the convolutions and regions pooled by the kernels if they run.

    It does not follow later changes of the weights of `net`. A network that trains on the kernels is tested as it is.
    """
    if runs_on_kernels(net):
        return net
    fast = cast(Detector, folded(net))
    device = next(fast.parameters()).device.type
    if resolve_kernels("auto", device, 0, silent):
        accelerate_regions(fast)
    return fast
