"""The tables and figures of the paper as sheets that can be run: networks, recipes, seeds, claims, printed numbers."""
