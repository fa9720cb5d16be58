"""The numbers of a detector: mean average precision by VOC and COCO, recall of proposals, and what it gets wrong."""
