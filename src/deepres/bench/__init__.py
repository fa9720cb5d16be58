"""Benchmarks against other software: the contestants work in turn, each in a process of its own."""
