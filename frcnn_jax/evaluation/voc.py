"""Average precision as PASCAL VOC defines it.

Boxes have an exclusive max edge, so a width is `x_max - x_min`. In the VOC development
kit and chainercv the max edge is the last pixel inside, so they add 1 to widths; add it
to the max edges of their boxes, and the figures agree.

References:
  chainer/chainercv:chainercv/evaluations/eval_detection_voc.py, the same figures.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from frcnn_jax.data.records import ImageDetections, ImageGroundTruth
from frcnn_jax.evaluation.matching import best_objects, check_images, flatten
from frcnn_jax.evaluation.ranking import (
    Ranking,
    average_precision_of,
    mean_over_classes,
)

# The peers' rounding (the fourth is 0.30000000000000004), so their figures.
RECALL_POINTS = np.arange(0.0, 1.1, 0.1)


class PrecisionRecall(NamedTuple):
    """One class's curve: a point for each of its D detections, best first."""

    precision: np.ndarray  # [D] in [0, 1]; NaN until a detection counts
    recall: np.ndarray  # [D] in [0, 1]; NaN without objects to find
    num_objects: int  # to find: without the difficult ones


class VOCResult(NamedTuple):
    """The figures of L classes; NaN without objects, which the mean excludes."""

    rankings: list[Ranking]  # L of them
    voc07_ap: np.ndarray  # [L] in [0, 1], 11-point (VOC 2007)
    area_ap: np.ndarray  # [L] in [0, 1], every-point (VOC 2010 and later)
    voc07_map: float  # the mean of voc07_ap; NaN if no class has objects
    area_map: float


def average_precisions(
    detections: Sequence[ImageDetections],
    ground_truths: Sequence[ImageGroundTruth],
    num_classes: int,
    *,
    iou_threshold: float = 0.5,
) -> VOCResult:
    """Computes the average precision of every class.

    Args:
      detections: one for each image.
      ground_truths: one for each image, in the same order.
      num_classes: L.
      iou_threshold: the overlap with an object, in [0, 1], from which it is found.

    Returns:
      The ranking and both average precisions of every class, and their means.

    Raises:
      ValueError: if the images cannot be paired, or a label is not in 0..L-1.
    """
    rankings = rank(detections, ground_truths, num_classes, iou_threshold=iou_threshold)
    voc07_ap, area_ap = (
        np.array([average_precision_of(ranking, points) for ranking in rankings])
        for points in (RECALL_POINTS, None)
    )
    means = [float(mean_over_classes(each)) for each in (voc07_ap, area_ap)]
    return VOCResult(rankings, voc07_ap, area_ap, *means)


def rank(
    detections: Sequence[ImageDetections],
    ground_truths: Sequence[ImageGroundTruth],
    num_classes: int,
    *,
    iou_threshold: float = 0.5,
) -> list[Ranking]:
    """Assigns detections to objects and ranks those of each class.

    The detections of a class are ranked by descending score over all images; where
    scores are equal, the earlier image comes first. Each is assigned to the object of
    its class and image that it overlaps most. It is a false positive if that overlap is
    below the threshold, ignored if the object is difficult, and a true positive if it
    is the first one assigned to that object.

    Args:
      detections: one for each image.
      ground_truths: one for each image, in the same order.
      num_classes: L.
      iou_threshold: as for `average_precisions`.

    Returns:
      L rankings; `curve` makes a precision-recall curve of one.
    """
    return next(
        rank_at_thresholds(detections, ground_truths, num_classes, [iou_threshold])
    )


def rank_at_thresholds(
    detections: Sequence[ImageDetections],
    ground_truths: Sequence[ImageGroundTruth],
    num_classes: int,
    iou_thresholds: Iterable[float],
) -> Iterator[list[Ranking]]:
    """Yields what `rank` returns, for one IoU threshold after the other.

    Args:
      detections: one for each image.
      ground_truths: one for each image, in the same order.
      num_classes: L.
      iou_thresholds: each in [0, 1].
    """
    check_images(detections, ground_truths, num_classes)
    found, truth = flatten(detections, ground_truths)
    best, overlaps = best_objects(detections, ground_truths)
    order = np.argsort(-found.scores, kind="stable")
    labels = found.labels[order]
    for iou_threshold in iou_thresholds:
        objects = np.where(overlaps >= iou_threshold, best, -1)[order]
        # The False is what index -1, no object, finds: that detection is not ignored.
        counted = ~np.append(truth.difficult, False)[objects]
        is_first = np.zeros(len(objects), bool)
        is_first[np.unique(objects, return_index=True)[1]] = True
        correct = is_first & counted & (objects >= 0)
        yield [
            Ranking(
                scores=found.scores[order][labels == label],
                images=found.images[order][labels == label],
                correct=correct[labels == label],
                counted=counted[labels == label],
                num_objects=np.bincount(
                    truth.images[(truth.labels == label) & ~truth.difficult],
                    minlength=len(detections),
                ),
            )
            for label in range(num_classes)
        ]


def curve(ranking: Ranking) -> PrecisionRecall:
    """Computes the precision and recall of a class's best detection, best two, ..."""
    num_correct, num_counted = np.cumsum(ranking.correct), np.cumsum(ranking.counted)
    num_objects = int(ranking.num_objects.sum())
    return PrecisionRecall(
        precision=num_correct / np.where(num_counted, num_counted, np.nan),
        recall=num_correct / (num_objects or np.nan),
        num_objects=num_objects,
    )
