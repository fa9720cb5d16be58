"""Weights on disk: our file, those of other libraries and repositories, checkpoints, the Hugging Face hub."""
