"""Learning rates as pure functions of the iteration."""

from deepres.training.recipe import Recipe


def rate(recipe: Recipe, iteration: int, *, warm: bool = True) -> float:
    """The learning rate of step `iteration` (counted from 0), Sec. 4.2.

    `warm` says that the warm-up by training error is over: it is measured in the loop, not a number of iterations.
    """
    if recipe.decay == "linear":
        start = recipe.warmup_iterations if recipe.warmup == "linear" else 0
        steps = recipe.lr * min(1.0, (recipe.iterations - iteration) / max(1, recipe.iterations - start))
    else:
        steps = recipe.lr * recipe.gamma ** sum(iteration >= mark for mark in recipe.milestones)
    if recipe.warmup == "error" and not warm:
        return min(recipe.warmup_lr, steps)
    if recipe.warmup == "linear" and iteration < recipe.warmup_iterations:
        return min(recipe.lr * (iteration + 1) / recipe.warmup_iterations, steps)
    return steps
