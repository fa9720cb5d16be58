"""Multi-task Network Cascades on the networks of the catalog: a detector that gives a mask of each object."""
