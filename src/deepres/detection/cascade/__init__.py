"""Instance segmentation by Multi-task Network Cascades: what a cascade learns from true masks."""
