"""What a network costs (`cost`) and how strongly its layers respond (`responses`).

Networks are read by the names of their parts alone: a block has a child `shortcut`, a layer the children
`conv` and `bn`.
"""
