"""Which positions of which epochs a batch shows, and where the draws of an epoch come from."""

from collections.abc import Iterator

import numpy as np
import torch


def epoch_pieces(step: int, batch_size: int, total: int) -> Iterator[tuple[int, slice]]:
    """The epoch and the positions in it of each piece of batch `step`.

    The stream of batches is endless: its number n is position n % total of epoch n // total, and a batch goes
    on across the end of an epoch.
    """
    start, stop = step * batch_size, (step + 1) * batch_size
    while start < stop:
        epoch, position = divmod(start, total)
        piece = slice(position, min(position + stop - start, total))
        yield epoch, piece
        start += piece.stop - piece.start


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """The source of all draws of an epoch, a function of (seed, epoch) alone."""
    state = np.random.SeedSequence([seed % 2**64, epoch]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]) % 2**63)
