"""From the RoI head's output to the detections that are reported.

Boxes are `(y_min, x_min, y_max, x_max)` in pixels of the resized image; one image each.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int, Real

from frcnn_jax.ops.boxes import ImageSize, clip_boxes, decode_boxes
from frcnn_jax.ops.checks import check_arrays, check_count
from frcnn_jax.ops.suppression import batched_nms, take_selected


class Detections(NamedTuple):
    """Objects found, best first, padded."""

    boxes: Float[Array, "d 4"]  #: in pixels, inside the image; padding is zero
    scores: Float[Array, " d"]  #: probabilities; padding is zero
    labels: Int[Array, " d"]  #: classes, from 0; padding is zero
    mask: Bool[Array, " d"]  #: False for padding


@check_arrays
def select_detections(
    probabilities: Float[Array, "r c"],
    deltas: Real[Array, "r c 4"],
    rois: Real[Array, "r 4"],
    roi_mask: Bool[Array, " r"],
    image_size: ImageSize,
    *,
    score_threshold: float = 0.05,
    iou_threshold: float = 0.3,
    max_detections: int = 100,
) -> Detections:
    """Decodes the box of every RoI and class, and runs NMS within each class.

    Args:
      probabilities: [R, C] class probabilities, column 0 the background.
      deltas: [R, C, 4] deltas of the classes, un-normalized.
      rois: [R, 4] boxes that the head looked at, in pixels.
      roi_mask: [R] which of them are real.
      image_size: (height, width) of the true image, in pixels; may be traced.
      score_threshold: detections score more than this.
      iou_threshold: of NMS within a class.
      max_detections: D, detections at most, over all classes.

    Returns:
      `Detections` of D slots; labels count from 0, the background has none.

    Raises:
      ValueError: if iou_threshold lies outside (0, 1) or max_detections is
        not an integer >= 0.

    Example:
      >>> detections = select_detections(
      ...     jnp.array([[0.1, 0.2, 0.7]]), jnp.zeros((1, 3, 4)),
      ...     jnp.array([[0.0, 0, 8, 8]]), jnp.array([True]), (16.0, 16.0),
      ...     max_detections=3)
      >>> print(detections.labels, detections.scores, detections.mask)
      [1 0 0] [0.7 0.2 0. ] [ True  True False]

    References:
      Girshick, Fast R-CNN, section 3.1.
    """
    check_count("max_detections", max_detections)
    num_rois, num_classes = probabilities.shape[0], probabilities.shape[1] - 1
    scores = probabilities[:, 1:].reshape(-1).astype(jnp.float32)
    boxes = decode_boxes(
        jnp.repeat(rois, num_classes, axis=0), deltas[:, 1:].reshape(-1, 4)
    )
    boxes = clip_boxes(boxes, image_size)
    labels = jnp.tile(jnp.arange(num_classes, dtype=jnp.int32), num_rois)
    candidate = jnp.repeat(roi_mask, num_classes) & (scores > score_threshold)
    selection = batched_nms(
        boxes,
        scores,
        labels,
        candidate,
        iou_threshold=iou_threshold,
        max_outputs=max_detections,
    )
    return Detections(
        take_selected(boxes, selection),
        take_selected(scores, selection),
        take_selected(labels, selection),
        selection.mask,
    )
