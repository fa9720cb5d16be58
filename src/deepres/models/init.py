"""Start values: one function that sets those of a whole network."""

from torch import nn

from deepres.models.shortcuts import GateConv


def he_initialise(net: nn.Module, slope: float = 0.0) -> None:
    """Set all parameters of `net` in place as in He et al. 2015 (the paper's reference [13], Sec. 3.4).

    Weights of convolutions and of fully connected layers are drawn from a zero-mean Gaussian of standard deviation
    sqrt(2 / ((1 + slope^2) fan_in)), where `slope` is that of the rectifier's negative part (0 for ReLU). Biases are 0,
    but that of a highway gate is negative (`GateConv`). BN has weight 1 and bias 0.
    """
    if any(parameter.is_meta for parameter in net.parameters()):  # only names and shapes are wanted
        return
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, slope, mode="fan_in", nonlinearity="leaky_relu")
            if module.bias is not None:
                nn.init.constant_(module.bias, module.bias_at_start if isinstance(module, GateConv) else 0.0)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
