"""Learning-rate schedules as pure functions of the iteration.

Which recipe warms up, and for how long, is in `classification/recipe.py`.
"""

from deepres.training.recipe import Recipe


def rate(recipe: Recipe, iteration: int, *, warm: bool = True, drops: int = 0) -> float:
    """The learning rate of step `iteration` (counted from 0), Sec. 4.2.

    `warm` says that the warm-up by training error is over (Sec. 4.2); `drops` counts the plateaus of the test error so
    far (Sec. 3.4). The training loop measures both; they do not follow from the iteration.
    """
    # The rate without a warm-up.
    if recipe.decay == "linear":
        start = recipe.warmup_iterations if recipe.warmup == "linear" else 0
        steps = recipe.lr * min(1.0, (recipe.iterations - iteration) / max(1, recipe.iterations - start))
    elif recipe.decay == "plateau":
        steps = recipe.lr * recipe.gamma**drops
    else:
        steps = recipe.lr * recipe.gamma ** sum(iteration >= mark for mark in recipe.milestones)
    # The warm-up keeps it lower at first.
    if recipe.warmup == "error" and not warm:
        return min(recipe.warmup_lr, steps)
    if recipe.warmup == "linear" and iteration < recipe.warmup_iterations:
        return min(recipe.lr * (iteration + 1) / recipe.warmup_iterations, steps)
    return steps
