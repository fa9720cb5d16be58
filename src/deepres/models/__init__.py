"""The networks of the paper, as it draws them: no data, no device, no recipe inside.

`catalog.build` makes a network by name; `imagenet` holds Table 1, `cifar` the nets of Sec. 4.2, `blocks` and
`shortcuts` what they are made of, `init` the start values, `convert` and `weights` from and to files.
"""
