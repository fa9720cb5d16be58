"""Verbs whose options are too many for `cli.py`: parse, call the library, print."""
