"""Evaluated splits that no detector has seen."""

import numpy as np

from frcnn_jax.evaluation.evaluated_split import (
    ANCHOR_SCALES,
    PROPOSAL_COUNTS,
    EvaluatedSplit,
)
from tests.helpers.random_images import random_split

CLASS_NAMES = ("cat", "dog", "cow")


def evaluated(detections, annotations, class_names=CLASS_NAMES) -> EvaluatedSplit:
    """Adds proposals and anchors to detections and ground truth."""
    random = np.random.default_rng(0)
    num_objects = sum(len(each.labels) for each in annotations)
    proposal_iou = random.random((len(PROPOSAL_COUNTS), num_objects))
    return EvaluatedSplit(
        class_names=class_names,
        annotations=annotations,
        detections=detections,
        proposal_iou=np.sort(proposal_iou, axis=0).astype(np.float32),
        anchor_iou=random.random(num_objects).astype(np.float32),
        scale_iou=random.random((num_objects, len(ANCHOR_SCALES))).astype(np.float32),
        fingerprints={"detector": f"{random.integers(2**62):016x}", "data": "0" * 16},
        environment={"date": "2026-11-25T12:00:00+00:00", "seconds": 1.5},
    )


def random_evaluated(seed=0, **options) -> EvaluatedSplit:
    """Makes an evaluated split of random boxes."""
    found, there = random_split(seed, num_classes=len(CLASS_NAMES), **options)
    return evaluated(found, there)
