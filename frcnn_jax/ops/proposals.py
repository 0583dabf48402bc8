"""From the region proposal network's output to the boxes that the RoI head looks at.

Boxes are `(y_min, x_min, y_max, x_max)` in pixels of the resized image; one image each.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Real

from frcnn_jax.ops.boxes import ImageSize, clip_boxes, decode_boxes
from frcnn_jax.ops.checks import check_arrays, check_count
from frcnn_jax.ops.suppression import nms, sortable, take_selected


class Proposals(NamedTuple):
    """Boxes that probably hold an object, best first, padded."""

    boxes: Float[Array, "p 4"]  #: in pixels, inside the image; padding is zero
    scores: Float[Array, " p"]  #: objectness; padding is zero
    mask: Bool[Array, " p"]  #: False for padding


@check_arrays
def propose(
    objectness: Float[Array, " n"],
    deltas: Real[Array, "n 4"],
    anchors: Real[Array, "n 4"],
    image_size: ImageSize,
    *,
    pre_nms: int,
    post_nms: int,
    iou_threshold: float = 0.7,
    min_size: int | float | Real[Array, ""],
) -> Proposals:
    """Decodes, clips, filters and ranks the anchors' predictions, and runs NMS.

    Args:
      objectness: [N] scores to rank by; an anchor with -inf (padding) never counts.
      deltas: [N, 4] predicted deltas.
      anchors: [N, 4] anchors, in pixels.
      image_size: (height, width) of the true image, in pixels; may be traced.
      pre_nms: how many of the best enter NMS.
      post_nms: P, how many leave it at most.
      iou_threshold: of NMS.
      min_size: boxes with a side shorter than this many pixels are dropped; may be
        traced.

    Returns:
      `Proposals` of P slots, without gradient: the RoI head's loss must not be lowered
      by moving the proposals ("approximate joint training").

    Raises:
      ValueError: if pre_nms or post_nms is not an integer >= 0, or iou_threshold lies
        outside (0, 1).

    Example:
      >>> anchors = jnp.array([[0.0, 0, 20, 20], [0, 1, 20, 21], [0, 0, 2, 2]])
      >>> proposals = propose(
      ...     jnp.array([0.5, 0.9, 0.7]), jnp.zeros((3, 4)), anchors, (20.0, 20.0),
      ...     pre_nms=3, post_nms=2, min_size=16)
      >>> print(proposals.boxes, proposals.mask)
      [[ 0.  1. 20. 20.]
       [ 0.  0.  0.  0.]] [ True False]

    References:
      Ren et al., Faster R-CNN, section 3.3.
    """
    check_count("pre_nms", pre_nms)
    check_count("post_nms", post_nms)
    objectness, deltas = jax.lax.stop_gradient((objectness, deltas))
    boxes = clip_boxes(decode_boxes(anchors, deltas), image_size)
    large = (boxes[:, 2:] - boxes[:, :2] >= min_size).all(axis=1)
    scores, is_number = sortable(objectness.astype(jnp.float32))
    scores = jnp.where(large & is_number, scores, -jnp.inf)
    scores, order = jax.lax.top_k(scores, min(pre_nms, scores.shape[0]))
    boxes = boxes[order]
    selection = nms(
        boxes,
        scores,
        scores > -jnp.inf,
        iou_threshold=iou_threshold,
        max_outputs=post_nms,
    )
    return Proposals(
        take_selected(boxes, selection),
        take_selected(scores, selection),
        selection.mask,
    )
