"""Weights on disk: our files, files of other libraries and repositories, checkpoints, the Hugging Face hub."""
