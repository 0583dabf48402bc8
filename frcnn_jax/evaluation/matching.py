"""Matches detections with the objects of the ground truth.

Boxes are `(y_min, x_min, y_max, x_max)` in pixels with an exclusive max edge; labels
are 0..L-1. NumPy on the host.
"""

from collections.abc import Sequence

import numpy as np

from frcnn_jax.data.records import ImageDetections, ImageGroundTruth


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


def matching_objects(
    detections: Sequence[ImageDetections],
    ground_truths: Sequence[ImageGroundTruth],
    iou_threshold: float,
) -> np.ndarray:
    """Finds the object that each detection overlaps most, in its class and image.

    Args:
      detections: one for each image.
      ground_truths: one for each image, in the same order.
      iou_threshold: the overlap, in [0, 1], from which a detection has an object.

    Returns:
      [all D] indices into the objects of all images, one after the other; -1 for none.
    """
    objects, num_before = [], 0
    for found, truth in zip(detections, ground_truths, strict=True):
        same_class = found.labels[:, None] == truth.labels
        iou = np.where(same_class, box_iou(found.boxes, truth.boxes), -1.0)
        # A column for images without objects, where there is no maximum to take.
        iou = np.pad(iou, ((0, 0), (0, 1)), constant_values=-1.0)
        best = num_before + iou.argmax(axis=1)
        objects.append(np.where(iou.max(axis=1) >= iou_threshold, best, -1))
        num_before += len(truth.labels)
    return np.concatenate(objects)


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
    # In float64, so that an overlap of exactly the threshold is found to be that.
    boxes, other = boxes[:, None].astype(np.float64), other[None].astype(np.float64)
    top_left = np.maximum(boxes[..., :2], other[..., :2])
    bottom_right = np.minimum(boxes[..., 2:], other[..., 2:])
    intersection = np.prod(np.maximum(bottom_right - top_left, 0.0), axis=-1)
    areas = [np.prod(each[..., 2:] - each[..., :2], axis=-1) for each in (boxes, other)]
    union = areas[0] + areas[1] - intersection
    return intersection / np.where(union > 0.0, union, 1.0)
