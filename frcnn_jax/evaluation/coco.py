"""Average precision and recall as COCO defines them.

Boxes are in pixels of the original images and have an exclusive max edge. Two things
are not as in COCO's own annotations:

- The area of an object is that of its box; COCO takes that of its mask. Up to 32 x 32
  pixels an object is small and from 96 x 96 on large.
- Difficult objects are treated as crowds. As in `voc.py` they are not to be found, and
  their detections are ignored. But a detection goes to one of them only if no other
  object is left for it, and then by the share of the detection, not of the union, that
  lies inside.

References:
  cocodataset/cocoapi:PythonAPI/pycocotools/cocoeval.py, the same figures. There every
  image, class, size and threshold is matched alone, in Python.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from frcnn_jax.data.records import ImageDetections, ImageGroundTruth
from frcnn_jax.evaluation.greedy import (
    ALL_AREAS,
    MAX_DETECTIONS,
    AreaRange,
    in_ranges,
    match_greedily,
)
from frcnn_jax.evaluation.matching import check_images, flatten
from frcnn_jax.evaluation.ranking import Ranking, weighted_average_precision

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_POINTS = np.linspace(0.0, 1.0, 101)
_AREA_RANGES: dict[str, AreaRange] = {
    "": ALL_AREAS,
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, np.inf),
}
_LARGEST_NUMBERS = (1, 10, MAX_DETECTIONS)  # of detections of an image and class


class ClassRankings(NamedTuple):
    """One class's detections at T IoU thresholds, for objects of A sizes."""

    scores: np.ndarray  # [D] falling
    images: np.ndarray  # [D] index of each detection's image
    places: np.ndarray  # [D] its place in image and class, the best one has 0
    correct: np.ndarray  # [D, T, A] bool
    counted: np.ndarray  # [D, T, A] bool, False where it is ignored
    num_objects: np.ndarray  # [I, A] objects to find in each image


def average_precisions(
    detections: Sequence[ImageDetections],
    ground_truths: Sequence[ImageGroundTruth],
    num_classes: int,
) -> dict[str, float]:
    """Computes COCO's twelve figures, each a mean over the classes that have objects.

    Args:
      detections: one for each image; the 100 best of each class count.
      ground_truths: one for each image, in the same order.
      num_classes: L.

    Returns:
      By name, in [0, 1], or NaN where there is no object to find: the average precision
      over the IoU thresholds 0.5, 0.55, ... 0.95 (`AP`), at one of them (`AP50`,
      `AP75`) and by the size of the objects (`APsmall`, `APmedium`, `APlarge`); the
      recall over the same thresholds with the 1, 10 and 100 best detections of each
      image and class (`AR1`, `AR10`, `AR100`), and by size (`ARsmall`, `ARmedium`,
      `ARlarge`).

    Raises:
      ValueError: if the images cannot be paired, or a label is not in 0..L-1.
    """
    rankings = rank(detections, ground_truths, num_classes)
    once = np.ones((1, len(ground_truths)), np.int64)
    return {name: float(x[0]) for name, x in weighted_figures(rankings, once).items()}


def rank(
    detections: Sequence[ImageDetections],
    ground_truths: Sequence[ImageGroundTruth],
    num_classes: int,
) -> list[ClassRankings]:
    """Matches detections with objects, and ranks those of each class.

    Args:
      detections: one for each image; the 100 best of each class count.
      ground_truths: one for each image, in the same order.
      num_classes: L.

    Returns:
      L of them.

    Raises:
      ValueError: if the images cannot be paired, or a label is not in 0..L-1.
    """
    check_images(detections, ground_truths, num_classes)
    matches = match_greedily(
        detections, ground_truths, IOU_THRESHOLDS, tuple(_AREA_RANGES.values())
    )
    found, truth = flatten(detections, ground_truths)
    scores, labels, images = (
        values[matches.detections]
        for values in (found.scores, found.labels, found.images)
    )
    order = np.argsort(-scores, kind="stable")
    to_find = ~truth.difficult[:, None] & in_ranges(truth.boxes, _AREA_RANGES.values())
    rankings = []
    for label in range(num_classes):
        chosen = order[labels[order] == label]
        counted = ~matches.ignored[chosen]
        num_objects = np.zeros((len(ground_truths), len(_AREA_RANGES)), np.int64)
        of_class = truth.labels == label
        np.add.at(num_objects, truth.images[of_class], to_find[of_class])
        rankings.append(
            ClassRankings(
                scores=scores[chosen],
                images=images[chosen],
                places=matches.places[chosen],
                correct=counted & (matches.objects[chosen] >= 0),
                counted=counted,
                num_objects=num_objects,
            )
        )
    return rankings


def weighted_figures(
    rankings: Sequence[ClassRankings], weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Computes the twelve figures for several weights of the images.

    Args:
      rankings: of the L classes.
      weights: [B, I] integers, how often each image counts.

    Returns:
      By name [B], as `average_precisions` describes them.
    """
    each = [_class_figures(ranking, weights) for ranking in rankings]
    figures = {}
    for name in each[0]:
        # A class without objects has NaN and enters no mean.
        of_classes = np.stack([of_class[name] for of_class in each])
        has_objects = ~np.isnan(of_classes)
        total = np.sum(of_classes, axis=0, where=has_objects)
        count = has_objects.sum(axis=0)
        figures[name] = total / np.where(count > 0, count, np.nan)
    return figures


def _class_figures(
    ranking: ClassRankings, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Computes one class's figures, [B] each, in COCO's order."""
    precisions, recalls = {}, {}
    for index, size in enumerate(_AREA_RANGES):
        each = [
            weighted_average_precision(
                Ranking(
                    ranking.scores,
                    ranking.images,
                    ranking.correct[:, threshold, index],
                    ranking.counted[:, threshold, index],
                    ranking.num_objects[:, index],
                ),
                weights,
                RECALL_POINTS,
            )
            for threshold in range(len(IOU_THRESHOLDS))
        ]
        precisions[f"AP{size}"] = np.mean(each, axis=0)
        if not size:
            precisions |= {"AP50": each[0], "AP75": each[5]}
            for number in _LARGEST_NUMBERS:
                recalls[f"AR{number}"] = _mean_recall(ranking, weights, index, number)
        else:
            recalls[f"AR{size}"] = _mean_recall(ranking, weights, index, MAX_DETECTIONS)
    return precisions | recalls


def _mean_recall(
    ranking: ClassRankings, weights: np.ndarray, size: int, largest_number: int
) -> np.ndarray:
    """Computes [B] recalls, the mean over the thresholds."""
    num_found = np.zeros(len(ranking.num_objects))
    correct = ranking.correct[ranking.places < largest_number, :, size]
    images = ranking.images[ranking.places < largest_number]
    np.add.at(num_found, images, correct.mean(axis=1))
    num_objects = weights @ ranking.num_objects[:, size]
    return (weights @ num_found) / np.where(num_objects > 0, num_objects, np.nan)
