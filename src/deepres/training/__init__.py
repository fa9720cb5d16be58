"""Training: the recipe as a frozen value, schedules as pure functions, the training loop and its checkpoints."""
