"""Training: the recipe as a frozen value, schedules as pure functions, the loop, its checkpoints."""
