"""Which objects are found: by their size, their shape, and the boxes before detection.

All functions are of the N objects of all images, one image after the other.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from frcnn_jax.data.records import ImageDetections, ImageGroundTruth
from frcnn_jax.evaluation.matching import best_objects, check_images, flatten

# Upper ends; the side of a box is the square root of its area, in pixels.
SIDE_EDGES = (16.0, 32.0, 64.0, 128.0, 256.0)
# Upper ends of height / width.
ASPECT_EDGES = (0.5, 0.8, 1.25, 2.0)


class Bins(NamedTuple):
    """Objects in ranges of a quantity: below the first edge, ..., from the last on."""

    edges: tuple[float, ...]  # [bins - 1]
    num_objects: np.ndarray  # [bins]
    num_found: np.ndarray  # [bins]


def finding_scores(
    detections: Sequence[ImageDetections],
    ground_truths: Sequence[ImageGroundTruth],
    num_classes: int,
    *,
    iou_threshold: float = 0.5,
) -> np.ndarray:
    """Computes the best score of a detection that finds each object, as VOC defines it.

    Args:
      detections: one for each image.
      ground_truths: one for each image, in the same order.
      num_classes: L.
      iou_threshold: the overlap, in [0, 1], from which an object is found.

    Returns:
      [N]; -inf for an object that no detection finds.

    Raises:
      ValueError: if the images cannot be paired, or a label is not in 0..L-1.
    """
    check_images(detections, ground_truths, num_classes)
    found, truth = flatten(detections, ground_truths)
    objects, overlaps = best_objects(detections, ground_truths)
    is_near = (objects >= 0) & (overlaps >= iou_threshold)
    scores = np.full(len(truth.labels), -np.inf)
    np.maximum.at(scores, objects[is_near], found.scores[is_near])
    return scores


def by_side(boxes: np.ndarray, is_found: np.ndarray) -> Bins:
    """Counts objects, and those found, by the square root of their area.

    Args:
      boxes: [N, 4], in pixels.
      is_found: [N] bool.
    """
    height, width = _sides(boxes)
    return _count(np.sqrt(height * width), SIDE_EDGES, is_found)


def by_aspect(boxes: np.ndarray, is_found: np.ndarray) -> Bins:
    """Counts objects, and those found, by height / width.

    Args:
      boxes: [N, 4], in pixels.
      is_found: [N] bool.
    """
    height, width = _sides(boxes)
    return _count(height / np.where(width > 0.0, width, np.nan), ASPECT_EDGES, is_found)


def recalls(best_iou: np.ndarray, iou_thresholds: np.ndarray) -> np.ndarray:
    """Computes the share of objects that some box overlaps enough.

    Args:
      best_iou: [..., N] IoU of each object with the box that overlaps it most.
      iou_thresholds: [T].

    Returns:
      [..., T] in [0, 1]; NaN without objects.
    """
    if not best_iou.shape[-1]:
        return np.full((*best_iou.shape[:-1], len(iou_thresholds)), np.nan)
    # 0.7 in float32 is not 0.7 in float64.
    thresholds = np.asarray(iou_thresholds, best_iou.dtype)
    return (best_iou[..., None] >= thresholds).mean(axis=-2)


def _sides(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    height, width = (boxes[:, 2:].astype(np.float64) - boxes[:, :2]).T
    return height, width


def _count(values: np.ndarray, edges: tuple[float, ...], is_found: np.ndarray) -> Bins:
    bins = np.searchsorted(edges, values, side="right")
    counts = [
        np.bincount(each, minlength=len(edges) + 1) for each in (bins, bins[is_found])
    ]
    return Bins(edges, *counts)
