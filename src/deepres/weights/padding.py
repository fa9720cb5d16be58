"""Option A as others pad it: half of the new channels before those of x and half behind, where ours are all behind.

Sec. 3.3 says "with extra zero entries padded", and not where. The function of such a network is that of ours with the
channels of each later stage in another order.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

LAYER = re.compile(r"conv(?P<stage>\d)_x\.(?P<block>\d+)\.residual\.layer(?P<layer>\d)\.(?P<part>conv|bn)\.\w+")


def padded_behind(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict (our names) of a network without projections that is padded on both sides, as ours has it."""
    orders = _orders(state)
    last = max(int(match["layer"]) for match in map(LAYER.fullmatch, state) if match)
    moved = dict(state)
    for key, value in state.items():
        match = LAYER.fullmatch(key)
        if match is None or value.dim() == 0:  # the stem keeps its order, and BN's count has none
            continue
        stage = int(match["stage"])
        # Within F the order does not matter: only what is added to a shortcut, and what reads the sum, is moved.
        if int(match["layer"]) == last:
            moved[key] = moved[key][orders[stage]]
        if int(match["layer"]) == 1 and match["part"] == "conv":
            moved[key] = moved[key][:, orders[stage - 1] if match["block"] == "1" else orders[stage]]
    moved["fc.weight"] = state["fc.weight"][:, orders[max(orders)]]
    return moved


def _orders(state: Mapping[str, Tensor]) -> dict[int, Tensor]:
    """By stage, for each channel of ours that of theirs; stage 1 is conv1."""
    order = torch.arange(len(state["conv1.conv.weight"]))
    orders = {1: order}
    for stage in sorted({int(match["stage"]) for match in map(LAYER.fullmatch, state) if match}):
        width = len(state[f"conv{stage}_x.1.residual.layer1.conv.weight"])
        before = (width - len(order)) // 2
        carried = order + before  # what comes along the shortcut is in front here
        new = [channel for channel in range(width) if not before <= channel < before + len(order)]
        order = torch.cat([carried, torch.tensor(new, dtype=torch.long)])
        orders[stage] = order
    return orders
