"""The cost of a network (`cost`), and how strongly its layers respond (`responses`).

Networks are recognized by the names of their modules alone: a block has the child `shortcut`, a layer the children
`conv` and `bn`.
"""
