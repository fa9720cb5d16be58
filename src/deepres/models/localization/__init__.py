"""Localizers on the networks of the catalog: modules and functions of tensors, and nothing of data or training."""
