"""Which classes a detector takes for one another, and for the background."""

from collections.abc import Sequence

import numpy as np

from frcnn_jax.data.records import ImageDetections, ImageGroundTruth
from frcnn_jax.evaluation.matching import check_images, find_pairs, flatten


def confusion_matrix(
    detections: Sequence[ImageDetections],
    ground_truths: Sequence[ImageGroundTruth],
    score_thresholds: np.ndarray,
    *,
    iou_threshold: float = 0.5,
) -> np.ndarray:
    """Counts objects by their class and that of their detection.

    Detections of at least their class's score threshold are paired with objects of any
    class, those that overlap most first, each box once. A detection that is left and
    overlaps a difficult object is ignored.

    Args:
      detections: one for each image.
      ground_truths: one for each image, in the same order.
      score_thresholds: [L], one for each class.
      iou_threshold: the overlap, in (0, 1], from which boxes are paired.

    Returns:
      [L + 1, L + 1] counts: the row is the object's class, the column the detection's.
      The last row counts detections without an object, the last column objects without
      a detection.

    Raises:
      ValueError: if the images cannot be paired, or a label is not in 0..L-1.

    Example:
      >>> box = np.array([[0.0, 0.0, 8.0, 8.0]])
      >>> class Truth:
      ...     boxes, labels, difficult = box, np.array([0]), np.array([False])
      >>> found = ImageDetections(box, np.array([0.9]), np.array([1]))
      >>> print(confusion_matrix([found], [Truth], np.array([0.5, 0.5])))
      [[0 1 0]
       [0 0 0]
       [0 0 0]]
    """
    num_classes = len(score_thresholds)
    check_images(detections, ground_truths, num_classes)
    found, truth = flatten(detections, ground_truths)
    is_kept = found.scores >= score_thresholds[found.labels]
    pairs = find_pairs(detections, ground_truths, iou_threshold)
    object_of = np.full(len(found.labels), -1)
    is_taken = np.zeros(len(truth.labels), bool)
    for pair in np.argsort(-pairs.overlaps, kind="stable"):
        detection, item = pairs.detections[pair], pairs.objects[pair]
        is_free = object_of[detection] < 0 and not is_taken[item]
        if is_kept[detection] and is_free and not truth.difficult[item]:
            object_of[detection], is_taken[item] = item, True
    of_difficult = pairs.detections[truth.difficult[pairs.objects]]
    is_kept[of_difficult] &= object_of[of_difficult] >= 0

    matrix = np.zeros((num_classes + 1, num_classes + 1), int)
    # The background, index -1, is added as the last label.
    rows = np.append(truth.labels, num_classes)[object_of[is_kept]]
    np.add.at(matrix, (rows, found.labels[is_kept]), 1)
    missed = truth.labels[~is_taken & ~truth.difficult]
    np.add.at(matrix, (missed, num_classes), 1)
    return matrix
