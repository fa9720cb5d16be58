"""The data of a run of localization: pictures with objects of one class each."""

from deepres.data.boxes.index import BoxParts
from deepres.data.boxes.one_class import of_one_class
from deepres.data.boxes.opening import open_boxes
from deepres.data.division import Division
from deepres.data.sources import still_there
from deepres.localization.recipe import LocalizationConfig
from deepres.runtime.errors import InputError, Say
from deepres.runtime.ranks import ALONE, Ranks


def open_pictures(
    data: str, say: Say, train_set: str | None = None, test_set: str | None = None, division: Division = "hash"
) -> BoxParts:
    """Both parts of data with boxes, without the pictures that have objects of several classes, or none.

    `say` is told how many these are. Errors as of `open_boxes`.
    """
    train, test = open_boxes(data, say, train_set, test_set, division)
    return BoxParts(
        of_one_class(train, f"{data}: training", say),
        of_one_class(test, f"{data}: test", say),
    )


def load_source(config: LocalizationConfig, say: Say, ranks: Ranks = ALONE) -> BoxParts:
    """The data of a configuration; `say` is told of slow steps and of what was found. One rank prepares them for all.

    Raises `InputError` for data that cannot be read, and for those without training or test pictures of one class.
    """
    place = still_there(config.data_path or config.data, "the run")
    with ranks.one_first():
        source = open_pictures(place, say, config.train_set, config.test_set, config.division)
    train, test = source
    say(
        f"{config.data}: {len(train):,} training and {len(test):,} test pictures with objects of one of "
        f"{len(train.classes)} classes"
    )
    for part, what in ((train, "training"), (test, "test")):
        if not len(part):
            raise InputError(
                f"{config.data} has no {what} pictures with objects of one class alone; give others, or name sets by "
                "--train-set and --test-set"
            )
    return source
