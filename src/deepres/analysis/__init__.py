"""What a network costs (`cost`) and how strongly its layers respond (`responses`).

It knows networks only by the names of their modules: a block has a child `shortcut`, a layer the children `conv` and
`bn`.
"""
