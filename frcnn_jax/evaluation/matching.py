"""Matches detections with the objects of the ground truth.

Boxes are `(y_min, x_min, y_max, x_max)` in pixels with an exclusive max edge; labels
are 0..L-1. NumPy on the host.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from frcnn_jax.data.records import ImageDetections, ImageGroundTruth


class Pairs(NamedTuple):
    """Detections and objects of the same image that overlap."""

    detections: np.ndarray  # [M] into the detections of all images, in their order
    objects: np.ndarray  # [M] into the objects of all images, in their order
    overlaps: np.ndarray  # [M] in [0, 1]


def check_images(
    detections: Sequence[ImageDetections],
    ground_truths: Sequence[ImageGroundTruth],
    num_classes: int,
) -> None:
    """Checks that detections and ground truth can be compared.

    Args:
      detections: one for each image.
      ground_truths: one for each image, in the same order.
      num_classes: L.

    Raises:
      ValueError: if there are no images, their numbers differ, or a label is not in
        0..L-1.
    """
    if len(detections) != len(ground_truths) or not detections:
        raise ValueError(
            f"got detections of {len(detections)} images and ground truth of "
            f"{len(ground_truths)}, expected the same number, at least 1"
        )
    named_labels = (
        ("detections", [image.labels for image in detections]),
        ("ground truth", [image.labels for image in ground_truths]),
    )
    for name, all_labels in named_labels:
        for index, labels in enumerate(all_labels):
            outside = (labels < 0) | (labels >= num_classes)
            if outside.any():
                raise ValueError(
                    f"{name} of image {index}: label {labels[outside][0]} is not in "
                    f"0..{num_classes - 1}"
                )


def find_pairs(
    detections: Sequence[ImageDetections],
    ground_truths: Sequence[ImageGroundTruth],
    min_overlap: float,
    *,
    difficult_are_crowds: bool = False,
) -> Pairs:
    """Finds all pairs that overlap, whatever their classes.

    Args:
      detections: one for each image.
      ground_truths: one for each image, in the same order.
      min_overlap: in (0, 1].
      difficult_are_crowds: whether the overlap with a difficult object is the share of
        the detection that lies inside, as of COCO's crowds; else it is the IoU.
    """
    found, num_detections, num_objects = [], 0, 0
    for image, truth in zip(detections, ground_truths, strict=True):
        overlaps = box_iou(image.boxes, truth.boxes)
        if difficult_are_crowds and truth.difficult.any():
            share = share_inside(image.boxes, truth.boxes)
            overlaps = np.where(truth.difficult, share, overlaps)
        rows, columns = np.nonzero(overlaps >= min_overlap)
        found.append(
            (rows + num_detections, columns + num_objects, overlaps[rows, columns])
        )
        num_detections += len(image.labels)
        num_objects += len(truth.labels)
    return Pairs(*map(np.concatenate, zip(*found, strict=True)))


class FlatDetections(NamedTuple):
    """The detections of all images, one image after the other."""

    images: np.ndarray  # [D] index of each one's image
    boxes: np.ndarray  # [D, 4]
    scores: np.ndarray  # [D]
    labels: np.ndarray  # [D]


class FlatObjects(NamedTuple):
    """The objects of all images, one image after the other."""

    images: np.ndarray  # [N] index of each one's image
    boxes: np.ndarray  # [N, 4]
    labels: np.ndarray  # [N]
    difficult: np.ndarray  # [N] bool, ignored in evaluation


def flatten(
    detections: Sequence[ImageDetections], ground_truths: Sequence[ImageGroundTruth]
) -> tuple[FlatDetections, FlatObjects]:
    """Joins the detections, and the objects, of all images.

    Args:
      detections: one for each image.
      ground_truths: one for each image, in the same order.
    """
    return (
        FlatDetections(*_join(detections, ("boxes", "scores", "labels"))),
        FlatObjects(*_join(ground_truths, ("boxes", "labels", "difficult"))),
    )


def _join(images: Sequence[Any], names: Sequence[str]) -> list[np.ndarray]:
    counts = [len(image.labels) for image in images]
    joined = [
        np.concatenate([getattr(each, name) for each in images]) for name in names
    ]
    return [np.repeat(np.arange(len(images)), counts), *joined]


def best_objects(
    detections: Sequence[ImageDetections], ground_truths: Sequence[ImageGroundTruth]
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the object that each detection overlaps most, in its class and image.

    Args:
      detections: one for each image.
      ground_truths: one for each image, in the same order.

    Returns:
      [all D] indices into the objects of all images, one after the other, and [all D]
      IoU with them: -1 and 0 where the image has no object of the class.
    """
    objects, overlaps, num_before = [], [], 0
    for found, truth in zip(detections, ground_truths, strict=True):
        same_class = found.labels[:, None] == truth.labels
        iou = np.where(same_class, box_iou(found.boxes, truth.boxes), -1.0)
        # A column for images without objects, where there is no maximum to take.
        iou = np.pad(iou, ((0, 0), (0, 1)), constant_values=-1.0)
        best = iou.max(axis=1)
        objects.append(np.where(best >= 0.0, num_before + iou.argmax(axis=1), -1))
        overlaps.append(np.maximum(best, 0.0))
        num_before += len(truth.labels)
    return np.concatenate(objects), np.concatenate(overlaps)


def box_iou(boxes: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Computes the intersection over union of every pair of boxes.

    Args:
      boxes: [N, 4] boxes, in pixels.
      other: [K, 4] boxes, in pixels.

    Returns:
      [N, K] float64 IoU in [0, 1]; 0 where the union is empty.

    Example:
      >>> square = np.array([[0.0, 0.0, 2.0, 2.0]])
      >>> box_iou(square, square / 2)
      array([[0.25]])
    """
    intersection, areas, other_areas = _intersections(boxes, other)
    union = areas[:, None] + other_areas - intersection
    return intersection / np.where(union > 0.0, union, 1.0)


def share_inside(boxes: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Computes the share of every box that lies inside of each other box.

    Args:
      boxes: [N, 4] boxes, in pixels.
      other: [K, 4] boxes, in pixels.

    Returns:
      [N, K] float64 in [0, 1]; 0 where the box is empty.
    """
    intersection, areas, _ = _intersections(boxes, other)
    return intersection / np.where(areas > 0.0, areas, 1.0)[:, None]


def _intersections(
    boxes: np.ndarray, other: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the [N, K] areas that boxes share, and both's own areas."""
    # In float64, so that an overlap of exactly the threshold is found to be that.
    y_min, x_min, y_max, x_max = boxes.T.astype(np.float64)
    top, left, bottom, right = other.T.astype(np.float64)
    height = np.minimum(y_max[:, None], bottom) - np.maximum(y_min[:, None], top)
    width = np.minimum(x_max[:, None], right) - np.maximum(x_min[:, None], left)
    shared = np.maximum(height, 0.0) * np.maximum(width, 0.0)
    return shared, (y_max - y_min) * (x_max - x_min), (bottom - top) * (right - left)
