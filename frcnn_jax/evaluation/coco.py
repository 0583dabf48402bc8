"""Average precision and recall as COCO defines them.

Boxes are in pixels of the original images and have an exclusive max edge. Two things
are not as in COCO's own annotations:

- The area of an object is that of its box; COCO takes that of its mask. Up to 32 x 32
  pixels an object is small and from 96 x 96 on large.
- Difficult objects are treated as crowds. As in `voc.py` they are ignored, and so
  are their detections. But a detection goes to one of them only if no other
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
from frcnn_jax.evaluation.ranking import (
    Ranking,
    mean_over_classes,
    weighted_average_precision,
    weighted_sum,
)

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_POINTS = np.linspace(0.0, 1.0, 101)
_AREA_RANGES: dict[str, AreaRange] = {
    "": ALL_AREAS,
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, np.inf),
}


FIGURES = (
    *("AP", "AP50", "AP75", "APsmall", "APmedium", "APlarge"),
    *("AR1", "AR10", "AR100", "ARsmall", "ARmedium", "ARlarge"),
)


class COCORanking(NamedTuple):
    """One class's detections, judged at every IoU threshold for every size."""

    # All thresholds of a size, then those of the next; the second axis has A * T.
    ranking: Ranking
    places: np.ndarray  # [D] place in image and class by score; the best one has 0


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
) -> list[COCORanking]:
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
    # By size first, then by threshold, as few detections change with the latter.
    num_ways = len(_AREA_RANGES) * len(IOU_THRESHOLDS)
    counted, taken = (
        np.swapaxes(each, 1, 2).reshape(len(order), num_ways)
        for each in (~matches.ignored, matches.objects >= 0)
    )
    to_find = ~truth.difficult[:, None] & in_ranges(truth.boxes, _AREA_RANGES.values())
    rankings = []
    for label in range(num_classes):
        chosen = order[labels[order] == label]
        of_class = truth.labels == label
        num_objects = np.zeros((len(ground_truths), len(_AREA_RANGES)), int)
        np.add.at(num_objects, truth.images[of_class], to_find[of_class])
        ranking = Ranking(
            scores=scores[chosen],
            images=images[chosen],
            correct=(taken & counted)[chosen],
            counted=counted[chosen],
            num_objects=np.repeat(num_objects, len(IOU_THRESHOLDS), axis=1),
        )
        rankings.append(COCORanking(ranking, matches.places[chosen]))
    return rankings


def weighted_figures(
    rankings: Sequence[COCORanking], weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Computes the twelve figures for several weights of the images.

    Args:
      rankings: of the L classes.
      weights: [B, I] integers, how often each image counts.

    Returns:
      By name [B], as `average_precisions` describes them.
    """
    each = [_class_figures(ranking, weights) for ranking in rankings]
    return {
        name: mean_over_classes(np.stack([of_class[name] for of_class in each]))
        for name in each[0]
    }


def _class_figures(
    class_ranking: COCORanking, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Computes one class's figures, [B] each."""
    ranking, places = class_ranking
    precision = weighted_average_precision(ranking, weights, RECALL_POINTS)
    precision = precision.reshape(len(_AREA_RANGES), len(IOU_THRESHOLDS), -1)
    figures = {"AP50": precision[0, 0], "AP75": precision[0, 5]}
    recall = _mean_recall(ranking, weights, places < MAX_DETECTIONS)
    for index, size in enumerate(_AREA_RANGES):
        figures[f"AP{size}"] = precision[index].mean(axis=0)
        figures[f"AR{size or MAX_DETECTIONS}"] = recall[index]
    for number in (1, 10):
        figures[f"AR{number}"] = _mean_recall(ranking, weights, places < number)[0]
    return {name: figures[name] for name in FIGURES}


def _mean_recall(
    ranking: Ranking, weights: np.ndarray, is_kept: np.ndarray
) -> np.ndarray:
    """Computes [A, B] recalls of some detections, the mean over the thresholds."""
    shape = (-1, len(_AREA_RANGES), len(IOU_THRESHOLDS))
    share_found = ranking.correct[is_kept].reshape(shape).mean(axis=2)
    num_found = np.zeros((len(ranking.num_objects), len(_AREA_RANGES)))
    np.add.at(num_found, ranking.images[is_kept], share_found)
    num_objects = ranking.num_objects[:, :: len(IOU_THRESHOLDS)]
    total = weighted_sum(weights, num_objects)
    return (weighted_sum(weights, num_found) / np.where(total > 0, total, np.nan)).T
