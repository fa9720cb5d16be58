"""Option A with zeros on both sides of x's channels, as others pad it; our networks put all zeros behind them.

Sec. 3.3 says "with extra zero entries padded", and not where. With the channels of each later stage reordered, our
network computes the same function.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

LAYER = re.compile(r"conv(?P<stage>\d)_x\.(?P<block>\d+)\.residual\.layer(?P<layer>\d)\.(?P<part>conv|bn)\.\w+")


def padded_behind(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Reorder the channels of a state dict (our names) from padding on both sides to our padding.

    The network has no projections; the result gives the same scores.
    """
    orders = _orders(state)
    last = max(int(match["layer"]) for match in map(LAYER.fullmatch, state) if match)
    moved = dict(state)
    for key, value in state.items():
        match = LAYER.fullmatch(key)
        if match is None or value.dim() == 0:  # the stem keeps its order, and BN's batch counter is one number
            continue
        stage = int(match["stage"])
        # The order within F does not matter: reorder the outputs of its last layer and the inputs of its first one.
        if int(match["layer"]) == last:
            moved[key] = moved[key][orders[stage]]
        if int(match["layer"]) == 1 and match["part"] == "conv":
            moved[key] = moved[key][:, orders[stage - 1] if match["block"] == "1" else orders[stage]]
    moved["fc.weight"] = state["fc.weight"][:, orders[max(orders)]]
    return moved


def _orders(state: Mapping[str, Tensor]) -> dict[int, Tensor]:
    """For each stage, their channel number of each of our channels; stage 1 is conv1."""
    order = torch.arange(len(state["conv1.conv.weight"]))
    orders = {1: order}
    for stage in sorted({int(match["stage"]) for match in map(LAYER.fullmatch, state) if match}):
        width = len(state[f"conv{stage}_x.1.residual.layer1.conv.weight"])
        before = (width - len(order)) // 2
        carried = order + before  # the shortcut's channels come first here
        new = [channel for channel in range(width) if not before <= channel < before + len(order)]
        orders[stage] = order = torch.cat([carried, torch.tensor(new, dtype=torch.long)])
    return orders
