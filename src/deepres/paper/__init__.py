"""The tables and figures of the paper as runnable sheets: which networks, which recipe, which seeds, which claims."""
