"""Data sets: found (`sources`), decoded to whole images in memory (`resident`), or read as needed (`stream`).

`augment` and `crops` have the augmentations of Sec. 4.2 and Sec. 3.4.
"""
