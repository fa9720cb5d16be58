"""The data of a run of detection."""

from deepres.data.boxes.index import BoxParts
from deepres.data.boxes.opening import open_boxes
from deepres.data.sources import still_there
from deepres.detection.recipe import DetectionConfig
from deepres.runtime.errors import InputError, Say
from deepres.runtime.ranks import ALONE, Ranks


def load_source(config: DetectionConfig, say: Say, ranks: Ranks = ALONE, masks: bool = False) -> BoxParts:
    """The data of a configuration; `say` is told of slow steps and of what was found. One rank prepares them for all.

    With `masks`, objects have those that the data have. Raises `InputError` for data that cannot be read, and for those
    without training or test pictures, without boxes, or without masks where these are asked for.
    """
    place = still_there(config.data_path or config.data, "the run")
    with ranks.one_first():
        source = open_boxes(place, say, config.train_set, config.test_set, config.division, masks)
    train, test = source
    objects = train.objects
    trained = ~objects.crowd if config.keep_difficult else ~(objects.crowd | objects.difficult)
    boxes, counted = len(objects), int((~(test.objects.difficult | test.objects.crowd)).sum())
    say(
        f"{config.data}: {len(train):,} training and {len(test):,} test pictures, {boxes:,} training boxes of "
        f"{len(train.classes)} classes"
    )
    for part, what in ((train, "training"), (test, "test")):
        if not len(part):
            raise InputError(f"{config.data} has no {what} pictures; name others by --train-set and --test-set")
    require_boxes(config.data, boxes)
    if masks and not all(part.objects.masks is not None and part.objects.masks.known.any() for part in source):
        raise InputError(
            f"{config.data} has no masks of its training or test objects; give polygons or RLE (COCO), "
            "SegmentationObject (VOC) or polygons of LabelMe, or train a detector of boxes"
        )
    if not trained.any():
        raise InputError(
            f"all {boxes:,} training boxes of {config.data} are difficult ones or crowds, which are not trained on; "
            "give --set keep_difficult=true for difficult ones"
        )
    if not counted:
        raise InputError(f"the test pictures of {config.data} have no object that counts; name others by --test-set")
    return source


def require_boxes(data: str, boxes: int) -> None:
    """Raise `InputError` where data have no boxes."""
    if not boxes:
        raise InputError(f"{data} has no boxes to train on; see what is wrong with deepres data check")
