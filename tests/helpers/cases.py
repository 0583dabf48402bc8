"""Detections and ground truth of one image, written as rows."""

from types import SimpleNamespace

import numpy as np

from frcnn_jax.data.records import ImageDetections

SQUARE = (0.0, 0.0, 10.0, 10.0)
FAR = (50.0, 50.0, 60.0, 60.0)
NAN = float("nan")


def detected(*rows):
    """Rows are (box, score, label)."""
    boxes, scores, labels = zip(*rows, strict=True) if rows else ([], [], [])
    return ImageDetections(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.array(scores, np.float32),
        labels=np.array(labels, np.int32),
    )


def truth(*rows):
    """Rows are (box, label) or (box, label, difficult)."""
    return SimpleNamespace(
        boxes=np.array([row[0] for row in rows], np.float32).reshape(-1, 4),
        labels=np.array([row[1] for row in rows], np.int32),
        difficult=np.array([row[2:] == (True,) for row in rows], bool),
    )
