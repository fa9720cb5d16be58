"""Errors of a network on test images: its views of an image, ensembles, figures."""
