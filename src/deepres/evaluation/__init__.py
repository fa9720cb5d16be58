"""Errors of a network on test images."""
