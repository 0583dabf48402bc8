"""Exact greedy non-maximum suppression with static shapes.

The boxes, sorted by score, are taken in tiles. A tile loses the boxes that an earlier
tile's survivor overlaps; what is left inside it is settled by a fix-point: a box stays
unless a box before it in the tile stays and overlaps it. Every round settles at least
one more box for good, so the fix-point is reached, at the latest, after as many rounds
as the tile has boxes, and it is the greedy answer. In practice it takes a few rounds.

Boxes are `(y_min, x_min, y_max, x_max)` in pixels; one image each.
"""

import functools

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int, Shaped

from frcnn_jax.ops.boxes import box_iou

TILE_SIZE = 256


def nms(
    boxes: Float[Array, "n 4"],
    scores: Float[Array, " n"],
    mask: Bool[Array, " n"] | None = None,
    *,
    iou_threshold: float,
    max_outputs: int,
) -> tuple[Int[Array, " k"], Bool[Array, " k"]]:
    """Selects boxes by descending score, dropping those that overlap a selected one.

    Args:
      boxes: [N, 4] boxes, in pixels. A box without area overlaps nothing; nor does one
        with a NaN coordinate.
      scores: [N] scores of any floating type; a NaN is never selected. Equal scores go
        to the lower index.
      mask: [N] which boxes take part; all when absent.
      iou_threshold: a box is dropped where its IoU with a selected one is greater, in
        (0, 1).
      max_outputs: K, how many are selected at most.

    Returns:
      `(indices, valid)`: [K] int32 indices into boxes by descending score, 0 where not
      valid, and [K] bool.

    Raises:
      ValueError: if iou_threshold lies outside (0, 1) or max_outputs is negative.

    Example:
      >>> boxes = jnp.array([[0.0, 0, 10, 10], [0, 1, 10, 11], [20, 20, 30, 30]])
      >>> scores = jnp.array([0.8, 0.9, 0.1])
      >>> indices, valid = nms(boxes, scores, iou_threshold=0.5, max_outputs=3)
      >>> print(indices, valid)
      [1 2 0] [ True  True False]

    References:
      The greedy algorithm of py-faster-rcnn, lib/nms/py_cpu_nms.py, without its +1.
      The tiles follow TensorFlow's non_max_suppression_padded, which is wrong for
      thresholds under 0.5 in its widespread copies.
    """
    classes = jnp.zeros(scores.shape, jnp.int32)
    return batched_nms(
        boxes,
        scores,
        classes,
        mask,
        iou_threshold=iou_threshold,
        max_outputs=max_outputs,
    )


def batched_nms(
    boxes: Float[Array, "n 4"],
    scores: Float[Array, " n"],
    classes: Int[Array, " n"],
    mask: Bool[Array, " n"] | None = None,
    *,
    iou_threshold: float,
    max_outputs: int,
) -> tuple[Int[Array, " k"], Bool[Array, " k"]]:
    """Does `nms`, where boxes of different classes never suppress one another.

    Args:
      boxes: [N, 4] boxes, in pixels.
      scores: [N] scores; the K best of all classes together are selected.
      classes: [N] class of each box.
      mask: [N] which boxes take part; all when absent.
      iou_threshold: see `nms`.
      max_outputs: K, how many are selected at most, over all classes.

    Returns:
      `(indices, valid)` as `nms` does.

    Raises:
      ValueError: if iou_threshold lies outside (0, 1) or max_outputs is negative.

    Example:
      >>> boxes = jnp.array([[0.0, 0, 10, 10], [0, 1, 10, 11], [0, 2, 10, 12]])
      >>> indices, valid = batched_nms(
      ...     boxes, jnp.array([0.8, 0.9, 0.7]), jnp.array([0, 1, 0]),
      ...     iou_threshold=0.5, max_outputs=3)
      >>> print(indices, valid)
      [1 0 0] [ True  True False]
    """
    if not 0.0 < iou_threshold < 1.0:
        raise ValueError(f"iou_threshold is {iou_threshold}, expected it in (0, 1)")
    if max_outputs < 0:
        raise ValueError(f"max_outputs is {max_outputs}, expected it >= 0")
    num_boxes = boxes.shape[0]
    if num_boxes == 0 or max_outputs == 0:
        empty = jnp.zeros(max_outputs, jnp.int32)
        return empty, empty.astype(bool)

    candidate = ~jnp.isnan(scores)
    if mask is not None:
        candidate &= mask
    # Candidates first, by descending score; the sort is stable, so ties keep order.
    order = jnp.lexsort((-scores, ~candidate)).astype(jnp.int32)
    tile_size = min(TILE_SIZE, num_boxes)
    num_tiles = -(-num_boxes // tile_size)
    padding = (0, num_tiles * tile_size - num_boxes)
    order = jnp.pad(order, padding)
    candidate = jnp.pad(candidate[order[:num_boxes]], padding)
    return _select_tile_by_tile(
        boxes.astype(jnp.float32)[order],
        classes[order],
        candidate,
        order,
        iou_threshold,
        max_outputs,
        tile_size,
    )


def take_selected(
    values: Shaped[Array, "n ..."], indices: Int[Array, " k"], valid: Bool[Array, " k"]
) -> Shaped[Array, "k ..."]:
    """Gathers what `nms` selected; the rest is zero, also where N is 0."""
    shape = indices.shape + values.shape[1:]
    if values.shape[0] == 0:
        return jnp.zeros(shape, values.dtype)
    valid = valid.reshape(-1, *[1] * (values.ndim - 1))
    return jnp.where(valid, values[indices], jnp.zeros((), values.dtype))


def _select_tile_by_tile(
    boxes, classes, candidate, order, iou_threshold, max_outputs, tile_size
):
    """Runs over tiles of sorted boxes until the list is full or the boxes are spent."""
    num_tiles = boxes.shape[0] // tile_size

    def unfinished(state):
        tile, count, *_ = state
        return (tile < num_tiles) & (count < max_outputs)

    def select_from_tile(state):
        tile, count, kept_boxes, kept_classes, kept_indices = state
        slice_tile = functools.partial(
            jax.lax.dynamic_slice_in_dim,
            start_index=tile * tile_size,
            slice_size=tile_size,
        )
        tile_boxes, tile_classes = slice_tile(boxes), slice_tile(classes)
        overlaps = functools.partial(
            _overlaps, boxes=tile_boxes, classes=tile_classes, threshold=iou_threshold
        )
        free = slice_tile(candidate) & ~overlaps(kept_boxes, kept_classes).any(axis=0)
        keep = _settle_tile(overlaps(tile_boxes, tile_classes), free)

        slots = jnp.where(keep, count + jnp.cumsum(keep) - 1, max_outputs)
        return (
            tile + 1,
            count + keep.sum(dtype=jnp.int32),
            kept_boxes.at[slots].set(tile_boxes, mode="drop"),
            kept_classes.at[slots].set(tile_classes, mode="drop"),
            kept_indices.at[slots].set(slice_tile(order), mode="drop"),
        )

    state = (
        jnp.int32(0),
        jnp.int32(0),
        jnp.zeros((max_outputs, 4), boxes.dtype),  # empty boxes overlap nothing
        jnp.zeros(max_outputs, classes.dtype),
        jnp.zeros(max_outputs, jnp.int32),
    )
    _, count, _, _, indices = jax.lax.while_loop(unfinished, select_from_tile, state)
    return indices, jnp.arange(max_outputs) < count


def _settle_tile(overlap: Bool[Array, "t t"], free: Bool[Array, " t"]):
    """Finds the greedy selection among the sorted boxes of one tile."""
    tile_size = free.shape[0]
    before = jnp.arange(tile_size)[:, None] < jnp.arange(tile_size)[None, :]
    suppresses = overlap & before & free[:, None]

    def unsettled(state):
        rounds, keep, previous = state
        return (rounds < tile_size) & (keep != previous).any()

    def suppress(state):
        rounds, keep, _ = state
        return rounds + 1, free & ~(suppresses & keep[:, None]).any(axis=0), keep

    state = (jnp.int32(0), free & ~suppresses.any(axis=0), free)
    return jax.lax.while_loop(unsettled, suppress, state)[1]


def _overlaps(other_boxes, other_classes, *, boxes, classes, threshold):
    same_class = other_classes[:, None] == classes[None]
    return same_class & (box_iou(other_boxes, boxes) > threshold)
