"""Ours against what people use instead: contestants in turn, each in a process of its own."""
