"""The last layer, which gives the logits: in float32, also under autocast and behind maps of another type."""

import torch
from torch import Tensor, nn


class Classifier(nn.Linear):
    """`nn.Linear` in the type of its weights: logits rounded to bf16 tie, and then the first class would win."""

    def forward(self, input: Tensor) -> Tensor:
        """As `nn.Linear`."""
        device = input.device.type
        if input.is_meta or not torch.is_autocast_enabled(device):  # there is no autocast for meta
            return super().forward(input.to(self.weight.dtype))
        with torch.autocast(device, enabled=False):
            return super().forward(input.to(self.weight.dtype))


def give_scores_in_full(net: nn.Module) -> None:
    """Turn the last linear layer of `net` into a `Classifier`, in place; parameters and names stay."""
    last = [module for module in net.modules() if type(module) is nn.Linear][-1]
    last.__class__ = Classifier
