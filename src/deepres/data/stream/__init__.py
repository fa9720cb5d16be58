"""Data sets too large for memory.

`index` knows where each picture is stored. `loader` has batches decoded by worker processes (`workers`, `transport`),
for classification those of `labelled`. `statistics` are those of the augmentation, and `check` decodes every picture.
"""
