"""The networks of the paper and those that it compares with. They know nothing of data, devices, recipes or files.

`catalog.build` makes a network by name, and `registry` is the table of networks. `imagenet` holds Table 1, `cifar` the
networks of Sec. 4.2; `spec` reads their names. `blocks` and `shortcuts` are what they are made of, `init` sets start
values, and `network` is what all networks share. `rivals` and `prelu` hold the networks of others.
"""
