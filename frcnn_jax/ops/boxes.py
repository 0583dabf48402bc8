"""Boxes: area, overlap, clipping, and the regression targets of Faster R-CNN.

A box is float32 `(y_min, x_min, y_max, x_max)` in pixels of the resized image, the max
edge exclusive: height is `y_max - y_min`. A padded box is all zero. One image each.
"""

import math

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Real

from frcnn_jax.ops.checks import check_arrays

# exp() of a delta beyond this would turn a stride of 16 into more than 1000 pixels.
MAX_LOG_SCALE = math.log(1000.0 / 16.0)

# (height, width) of the true image in pixels: numbers, or an array that may be traced.
ImageSize = Real[Array, "2"] | tuple[int | float, int | float]


@check_arrays
def box_area(boxes: Real[Array, "n 4"]) -> Float[Array, " n"]:
    """Computes the area of every box.

    Args:
      boxes: [N, 4] boxes, in pixels.

    Returns:
      [N] areas, in square pixels; 0 for padding.

    Example:
      >>> print(box_area(jnp.array([[0.0, 0.0, 2.0, 3.0], [0.0, 0.0, 0.0, 0.0]])))
      [6. 0.]
    """
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


@check_arrays
def box_iou(
    boxes: Real[Array, "n 4"], other: Real[Array, "k 4"]
) -> Float[Array, "n k"]:
    """Computes the intersection over union of every pair of boxes.

    Args:
      boxes: [N, 4] boxes, in pixels.
      other: [K, 4] boxes, in pixels.

    Returns:
      [N, K] IoU in [0, 1]. A pair whose union is empty (padding), infinite or NaN has
      IoU 0.

    Example:
      >>> a = jnp.array([[0.0, 0.0, 2.0, 2.0]])
      >>> b = jnp.array([[0.0, 1.0, 2.0, 3.0], [0.0, 0.0, 0.0, 0.0]])
      >>> print(box_iou(a, b).round(3))
      [[0.333 0.   ]]
    """
    return pairwise_iou(boxes.T, other.T)


@check_arrays
def encode_boxes(
    anchors: Real[Array, "n 4"], boxes: Real[Array, "n 4"]
) -> Float[Array, "n 4"]:
    """Computes the deltas that move each anchor onto its box.

    With centers `(y, x)` and sizes `(h, w)`, those of the anchor marked `a`:
    `dy = (y - y_a) / h_a`, `dx = (x - x_a) / w_a`, `dh = log(h / h_a)`,
    `dw = log(w / w_a)`.

    Args:
      anchors: [N, 4] anchors or proposals, in pixels.
      boxes: [N, 4] the target box of each, in pixels.

    Returns:
      [N, 4] deltas `(dy, dx, dh, dw)`, without unit. Where the anchor or the box is
      empty (padding) the deltas are finite and mean nothing.

    Example:
      >>> anchor = jnp.array([[0.0, 0.0, 10.0, 10.0]])
      >>> print(encode_boxes(anchor, jnp.array([[5.0, 0.0, 15.0, 20.0]])).round(3))
      [[0.5   0.5   0.    0.693]]

    References:
      Girshick et al., Rich feature hierarchies (R-CNN), appendix C; Ren et al., Faster
      R-CNN, equation 2.
    """
    anchor_sizes, anchor_centers = _sizes_and_centers(anchors)
    sizes, centers = _sizes_and_centers(boxes)
    anchor_sizes = jnp.where(anchor_sizes > 0.0, anchor_sizes, 1.0)
    sizes = jnp.where(sizes > 0.0, sizes, anchor_sizes)
    shifts = (centers - anchor_centers) / anchor_sizes
    return jnp.concatenate([shifts, jnp.log(sizes / anchor_sizes)], axis=1)


@check_arrays
def decode_boxes(
    anchors: Real[Array, "n 4"], deltas: Real[Array, "n 4"]
) -> Float[Array, "n 4"]:
    """Applies deltas to anchors: the inverse of `encode_boxes`.

    Args:
      anchors: [N, 4] anchors or proposals, in pixels.
      deltas: [N, 4] `(dy, dx, dh, dw)`; dh and dw are clamped at log(1000/16), so that
        an untrained network cannot overflow exp.

    Returns:
      [N, 4] boxes, in pixels, not clipped to the image.

    Example:
      >>> anchor = jnp.array([[0.0, 0.0, 10.0, 10.0]])
      >>> print(decode_boxes(anchor, jnp.array([[0.5, 0.5, 0.0, 0.0]])))
      [[ 5.  5. 15. 15.]]
    """
    anchor_sizes, anchor_centers = _sizes_and_centers(anchors)
    centers = anchor_centers + deltas[:, :2] * anchor_sizes
    half_sizes = 0.5 * anchor_sizes * jnp.exp(jnp.minimum(deltas[:, 2:], MAX_LOG_SCALE))
    return jnp.concatenate([centers - half_sizes, centers + half_sizes], axis=1)


@check_arrays
def clip_boxes(boxes: Real[Array, "n 4"], image_size: ImageSize) -> Float[Array, "n 4"]:
    """Moves every edge into the image, `[0, height] x [0, width]`.

    Args:
      boxes: [N, 4] boxes, in pixels.
      image_size: (height, width) of the true image in pixels; may be traced.

    Returns:
      [N, 4] boxes; one that lay outside has no area.

    Example:
      >>> print(clip_boxes(jnp.array([[-5.0, 2.0, 7.0, 30.0]]), (10.0, 20.0)))
      [[ 0.  2.  7. 20.]]
    """
    height, width = image_size
    y_min, x_min, y_max, x_max = jnp.unstack(boxes, axis=1)
    return jnp.stack(
        [
            jnp.clip(y_min, 0.0, height),
            jnp.clip(x_min, 0.0, width),
            jnp.clip(y_max, 0.0, height),
            jnp.clip(x_max, 0.0, width),
        ],
        axis=1,
    )


def pairwise_iou(
    boxes: Float[Array, "4 n"], other: Float[Array, "4 k"]
) -> Float[Array, "n k"]:
    """Computes `box_iou` of boxes as columns.

    The inner loop over K then reads neighbors: on the CPU it is four times as fast.

    Args:
      boxes: [4, N] boxes, in pixels.
      other: [4, K] boxes, in pixels.
    """
    y_min, x_min, y_max, x_max = boxes[:, :, None]
    other_y_min, other_x_min, other_y_max, other_x_max = other[:, None, :]
    height = jnp.minimum(y_max, other_y_max) - jnp.maximum(y_min, other_y_min)
    width = jnp.minimum(x_max, other_x_max) - jnp.maximum(x_min, other_x_min)
    intersection = jnp.maximum(height, 0.0) * jnp.maximum(width, 0.0)

    area = (y_max - y_min) * (x_max - x_min)
    other_area = (other_y_max - other_y_min) * (other_x_max - other_x_min)
    union = area + other_area - intersection
    # Divide by 1 where the union is 0, so that padding stays finite under grad.
    has_union = union > 0.0
    return jnp.where(has_union, intersection / jnp.where(has_union, union, 1.0), 0.0)


def _sizes_and_centers(
    boxes: Float[Array, "n 4"],
) -> tuple[Float[Array, "n 2"], Float[Array, "n 2"]]:
    sizes = boxes[:, 2:] - boxes[:, :2]
    return sizes, boxes[:, :2] + 0.5 * sizes
