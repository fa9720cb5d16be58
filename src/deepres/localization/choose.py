"""Rate, batch and length that suit a data set: the recipe `auto`, which is not in the paper."""

from collections.abc import Mapping
from typing import Any

from deepres.localization.recipe import LOCALIZER
from deepres.training.recipe import EVALUATE_AT_MOST_EVERY

BATCH = 32  # crops of a step
EPOCHS = 60  # passes over the training pictures
LENGTHS = (1_000, LOCALIZER.iterations)  # range of the iterations
TRAINED_RATE, RANDOM_RATE = 0.005, 0.02


def chosen(pictures: int, trained: bool, given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a configuration for a number of training pictures, without those that are `given`.

    With a `trained` backbone BN stays fixed (Appendix A); random weights train it, at a higher rate.
    """
    batch: int = given.get("batch_size", BATCH)
    whole = round(pictures * EPOCHS / batch / 100) * 100
    length: int = given.get("iterations", min(max(whole, LENGTHS[0]), LENGTHS[1]))
    fields: dict[str, Any] = {
        "freeze": ("bn",) if trained else (),
        "iterations": length,
        "milestones": (round(0.8 * length),),
        "lr": TRAINED_RATE if trained else RANDOM_RATE,
        "warmup": "linear",
        "warmup_iterations": max(1, length // 20),
        "batch_size": batch,
        "window": max(1, min(100, length // 10)),
        "evaluate_every": min(length, max(length // 10, EVALUATE_AT_MOST_EVERY)),
    }
    if "crop" in given and "sides" not in given:  # the paper's sides in proportion
        fields["sides"] = tuple(round(side * given["crop"] / 224) for side in LOCALIZER.sides)
    left_out = {*given, *(["milestones"] if "epochs" in given or "decay" in given else [])}
    return {name: value for name, value in fields.items() if name not in left_out}
