"""The data of a run: whole images resident in memory (Sec. 4.2), or pictures read from disk as needed."""

import hashlib

from deepres.classification.recipe import ClassificationConfig
from deepres.data.boxes.layouts import told_of_boxes
from deepres.data.listing import counted
from deepres.data.resident import Data
from deepres.data.sources import load_data_set, still_there
from deepres.data.stream.index import Parts, open_index
from deepres.runtime.errors import InputError, Say
from deepres.runtime.ranks import ALONE, Ranks

Source = Data | Parts


def load_source(config: ClassificationConfig, say: Say, ranks: Ranks = ALONE) -> Source:
    """The data of a configuration; `say` is told of slow steps and of what was found. One rank prepares them for all.

    Raises `InputError` for data that cannot be loaded, without training or test pictures or with a single class, for
    whole images that are not square, and for options that exclude a recipe of crops.
    """
    size, bad, crop = config.image_size, config.skip_bad, config.recipe.crop
    gray = config.in_channels not in (None, 3)
    # A recipe of crops takes pictures as they are.
    for option, given in (("--split", config.split), ("--image-size", size), ("--in-channels", gray)):
        if crop and given:
            raise InputError(f"the recipe {config.recipe.name} takes crops of pictures as they are; leave {option} out")
    # Load the data.
    place, rule = still_there(config.data_path or config.data, "the run"), config.division
    with ranks.one_first(), told_of_boxes(place):
        if crop:
            source: Source = open_index(place, say, rule)
        else:
            source = load_data_set(
                place, split=config.split, image_size=size, skip_bad=bad, division=rule, progress=say
            )
    classes = source.classes if isinstance(source, Data) else source.train.classes
    say(f"{config.data}: {counted(len(source.train), len(source.test), classes)}")
    # Check that they can be trained and tested on.
    if not len(source.train):
        raise InputError(f"{config.data} has no training pictures; add some, in train/ where there is a test/ or val/")
    if not len(source.test):
        raise InputError(f"{config.data} has no test pictures; a class needs two to give one, or put some into test/")
    if len(classes) < 2:
        raise InputError(f"{config.data} has one class alone; give the folder that holds the class folders")
    if isinstance(source, Data) and source.size[0] != source.size[1]:
        height, width = source.size
        raise InputError(
            f"{config.data} has whole images of {width}x{height} pixels, and networks take square ones; give "
            f"--image-size {min(height, width)}"
        )
    return source


def source_fingerprint(source: Source) -> str:
    """The SHA-256 of training and test part that a run records; the test part counts, as its error may set the rate."""
    if isinstance(source, Data):
        return source.fingerprint
    return hashlib.sha256("".join(part.fingerprint for part in source).encode()).hexdigest()
