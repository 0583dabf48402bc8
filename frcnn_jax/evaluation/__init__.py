"""How good a detector is: PASCAL VOC and COCO figures, and running it on a data set."""
