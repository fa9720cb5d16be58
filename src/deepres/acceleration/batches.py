"""How training batches are cut out of resident images: on a GPU by one kernel of this project."""

from importlib.util import find_spec

from deepres.data.resident_batches import Cut


def fused_cut(device: str) -> Cut | None:
    """The kernel that cuts and flips the images of a batch, with the bits of PyTorch's operations; None without one."""
    if device != "cuda" or find_spec("triton") is None:
        return None
    from deepres.kernels.triton.augment import crop_flip_normalise

    return crop_flip_normalise
