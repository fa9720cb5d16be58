"""A check of a run's batch before anything is written: of its images a map is left, with statistics to normalize by."""

import torch

from deepres.classification.recipe import ClassificationConfig
from deepres.classification.source import Source
from deepres.data.resident import Data
from deepres.models.catalog import build
from deepres.runtime.errors import InputError
from deepres.runtime.ranks import Ranks
from deepres.training.batchnorm import smallest_map
from deepres.training.freeze import freeze
from deepres.weights.load import STRUCTURE
from deepres.weights.start import Start


def require_statistics(config: ClassificationConfig, source: Source, ranks: Ranks, start: Start | None) -> None:
    """Raise `InputError` where images are too small, or batch normalization would see a single value of each channel.

    That is one image, whose smallest map has one position.
    """
    # Are the images large enough?
    whole = isinstance(source, Data)
    size = source.size if whole else (config.recipe.crop, config.recipe.crop)
    channels = config.in_channels or (source.channels if whole else 3)
    with torch.device("meta"):
        structure = (
            {} if start is None else {key: start.net.header[key] for key in STRUCTURE if key in start.net.header}
        )
        net = build(config.network, 2, channels, **structure)
        images = net.large_enough(torch.empty(2, channels, *size))
    recipe, own = config.recipe, ranks.part(config.recipe.batch_size)
    batch = own.stop - own.start
    each = batch // recipe.accumulate
    group = recipe.bn_group or each
    # Is one image ever alone: as a micro-batch, as the rest of one cut into groups, or as that of an averaged batch?
    if 1 not in (each, each % group, batch % group if recipe.bn_average else 0):
        return
    # Then the smallest map of the network must have more than one position.
    with torch.device("meta"):
        freeze(net, config.freeze or ())
        positions = smallest_map(net, images)
    if positions == 1:
        raise InputError(
            f"batch normalization would see one image, whose last map has one value at {size[1]}x{size[0]} pixels; "
            "give a larger --batch-size, another --bn-group, or larger images"
        )
