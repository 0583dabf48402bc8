"""Exact greedy non-maximum suppression with static shapes.

Boxes are ranked in rounds of about a thousand, since the list is usually full before
all of them need ranking. Each round is processed in tiles. A tile loses the boxes that
a survivor of an earlier tile overlaps; the rest of it is decided by a fixed point: a
box stays unless a box before it in the tile stays and overlaps it. Every pass settles
at least one more box, so the fixed point, which is the greedy answer, is reached after
at most one pass for each box of the tile. Usually a few passes suffice.

The shapes bound the number of trips of every loop, but the loops end early, once the
list is full or no box is left, so that the time depends on the boxes. There is no mode
of constant time: with all trips 12,000 -> 2,000 takes ten times as long on a CPU.

Boxes are `(y_min, x_min, y_max, x_max)` in pixels; one image each.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int, Integer, Real, Shaped

from frcnn_jax.ops.boxes import pairwise_iou
from frcnn_jax.ops.checks import check_arrays, check_count

# Boxes compared with one another at once. A CPU takes time for the comparisons, which
# are fewest with small tiles; a GPU for the iterations, fewest with large ones.
CPU_TILE_SIZE = 64
ACCELERATOR_TILE_SIZE = 512
ROUND_SIZE = 1024  # boxes ranked at once, unless twice the list's length is more


class Selection(NamedTuple):
    """Boxes that were selected, best first, padded."""

    indices: Int[Array, " k"]  #: into the caller's boxes; 0 for padding
    mask: Bool[Array, " k"]  #: False for padding


class _Boxes(NamedTuple):
    """Boxes as columns, for fast loops, with the values that go with them."""

    columns: Float[Array, "4 n"]
    classes: Int[Array, " n"] | None  # None: all of one class
    indices: Int[Array, " n"]  # into the caller's boxes

    def tile(self, number, size):
        return jax.tree.map(
            lambda x: jax.lax.dynamic_slice_in_dim(x, number * size, size, axis=-1),
            self,
        )


@check_arrays
def nms(
    boxes: Real[Array, "n 4"],
    scores: Float[Array, " n"],
    mask: Bool[Array, " n"] | None = None,
    *,
    iou_threshold: float,
    max_outputs: int,
) -> Selection:
    """Selects boxes by descending score, dropping those that overlap a selected one.

    The shapes alone bound the number of iterations. They end early, once K boxes are
    selected or none is left, so the time depends on the boxes.

    Args:
      boxes: [N, 4] boxes, in pixels. A box without area overlaps nothing; nor does one
        with a coordinate that is NaN or infinite.
      scores: [N] scores of any floating type; a NaN is never selected. Equal scores go
        to the lower index.
      mask: [N] which boxes take part; all when absent.
      iou_threshold: a box is dropped where its IoU with a selected one is greater, in
        (0, 1).
      max_outputs: K, how many are selected at most.

    Returns:
      `Selection` of K slots: int32 indices into boxes by descending score, and a mask.

    Raises:
      ValueError: if iou_threshold lies outside (0, 1) or max_outputs is not
        an integer >= 0.

    Example:
      >>> boxes = jnp.array([[0.0, 0, 10, 10], [0, 1, 10, 11], [20, 20, 30, 30]])
      >>> scores = jnp.array([0.8, 0.9, 0.1])
      >>> selection = nms(boxes, scores, iou_threshold=0.5, max_outputs=3)
      >>> print(selection.indices, selection.mask)
      [1 2 0] [ True  True False]

    References:
      The greedy algorithm of py-faster-rcnn, lib/nms/py_cpu_nms.py, without its +1.
      The tiles follow TensorFlow's non_max_suppression_padded, which is wrong for
      thresholds under 0.5 in its widespread copies.
    """
    return _nms(boxes, scores, None, mask, iou_threshold, max_outputs)


@check_arrays
def batched_nms(
    boxes: Real[Array, "n 4"],
    scores: Float[Array, " n"],
    classes: Integer[Array, " n"],
    mask: Bool[Array, " n"] | None = None,
    *,
    iou_threshold: float,
    max_outputs: int,
) -> Selection:
    """Selects boxes as `nms` does, but never across classes.

    Boxes of different classes do not suppress one another.

    Args:
      boxes: [N, 4] boxes, in pixels.
      scores: [N] scores; the K best of all classes together are selected.
      classes: [N] class of each box.
      mask: [N] which boxes take part; all when absent.
      iou_threshold: see `nms`.
      max_outputs: K, how many are selected at most, over all classes.

    Returns:
      `Selection` of K slots, as `nms` does.

    Raises:
      ValueError: if iou_threshold lies outside (0, 1) or max_outputs is not
        an integer >= 0.

    Example:
      >>> boxes = jnp.array([[0.0, 0, 10, 10], [0, 1, 10, 11], [0, 2, 10, 12]])
      >>> selection = batched_nms(
      ...     boxes, jnp.array([0.8, 0.9, 0.7]), jnp.array([0, 1, 0]),
      ...     iou_threshold=0.5, max_outputs=3)
      >>> print(selection.indices, selection.mask)
      [1 0 0] [ True  True False]
    """
    return _nms(boxes, scores, classes, mask, iou_threshold, max_outputs)


def take_selected(
    values: Shaped[Array, "n ..."], selection: Selection
) -> Shaped[Array, "k ..."]:
    """Gathers the selected values; the padding is zero, also where N is 0.

    Args:
      values: [N, ...] values of the boxes.
      selection: K slots.
    """
    indices, mask = selection
    shape = indices.shape + values.shape[1:]
    if values.shape[0] == 0:
        return jnp.zeros(shape, values.dtype)
    mask = mask.reshape(-1, *[1] * (values.ndim - 1))
    return jnp.where(mask, values[indices], jnp.zeros((), values.dtype))


def sortable(
    scores: Float[Array, " n"],
) -> tuple[Float[Array, " n"], Bool[Array, " n"]]:
    """Makes -0 a 0, and says which scores are not NaN: `top_k` sorts both by sign.

    Args:
      scores: [N] of any values.

    Returns:
      [N] scores, and a mask of those that can be ranked.
    """
    return jnp.where(scores == 0.0, 0.0, scores), ~jnp.isnan(scores)


def _nms(boxes, scores, classes, mask, iou_threshold, max_outputs):
    if not 0.0 < iou_threshold < 1.0:
        raise ValueError(f"iou_threshold is {iou_threshold}, expected it in (0, 1)")
    check_count("max_outputs", max_outputs)
    num_boxes = boxes.shape[0]
    if num_boxes == 0 or max_outputs == 0:
        empty = jnp.zeros(max_outputs, jnp.int32)
        return Selection(empty, empty.astype(bool))

    scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    scores, candidate = sortable(scores)
    if mask is not None:
        candidate &= mask
    indices = jnp.arange(num_boxes, dtype=jnp.int32)
    boxes = _Boxes(boxes.astype(jnp.float32).T, classes, indices)

    select = functools.partial(
        _select, iou_threshold=iou_threshold, max_outputs=max_outputs
    )
    indices, count = jax.lax.platform_dependent(
        boxes,
        scores,
        candidate,
        cpu=functools.partial(select, tile_size=CPU_TILE_SIZE),
        default=functools.partial(select, tile_size=ACCELERATOR_TILE_SIZE),
    )
    is_selected = jnp.arange(max_outputs) < count
    return Selection(jnp.where(is_selected, indices, 0), is_selected)


def _select(boxes, scores, candidate, *, tile_size, iou_threshold, max_outputs):
    """Runs over rounds until max_outputs are kept or the candidates are spent.

    Returns:
      Indices [K] of the boxes kept, and how many these are.
    """
    boxes, scores, candidate = jax.tree.map(
        lambda x: jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -x.shape[-1] % tile_size)]),
        (boxes, scores, candidate),
    )
    num_boxes = len(scores)
    round_size = max(ROUND_SIZE, 2 * max_outputs)
    round_size = min(round_size + -round_size % tile_size, num_boxes)
    num_rounds = -(-num_boxes // round_size) + 1  # those of -inf begin a round

    def unfinished(state):
        number, left, _, count = state
        return (number < num_rounds) & left.any() & (count < max_outputs)

    def select_from_round(state):
        number, left, kept, count = state
        order, num_ranked = _rank(scores, left, round_size)
        kept, count = _select_tile_by_tile(
            jax.tree.map(lambda x: x[..., order], boxes),
            num_ranked,
            kept,
            count,
            tile_size=tile_size,
            iou_threshold=iou_threshold,
            max_outputs=max_outputs,
        )
        is_ranked = jnp.arange(round_size) < num_ranked
        left = left.at[order].set(left[order] & ~is_ranked)
        return number + 1, left, kept, count

    num_slots = max_outputs + -max_outputs % tile_size
    kept = jax.tree.map(
        # Boxes of zeros overlap nothing.
        lambda x: jnp.zeros((*x.shape[:-1], num_slots), x.dtype),
        boxes,
    )
    state = (jnp.int32(0), candidate, kept, jnp.int32(0))
    *_, kept, count = jax.lax.while_loop(unfinished, select_from_round, state)
    return kept.indices[:max_outputs], count


def _rank(scores, left, count):
    """Finds the best of the boxes left, ties by index, and how many these are.

    Scores of -inf come last, by index: `top_k` cannot distinguish them from boxes that
    are no longer candidates.
    """
    above = left & (scores > -jnp.inf)
    index = jnp.arange(len(scores), dtype=scores.dtype)
    key = jnp.where(above.any(), scores, -index)
    # No `where` of booleans: ONNX Runtime has none on the CPU.
    eligible = above | (left & ~above.any())
    _, order = jax.lax.top_k(jnp.where(eligible, key, -jnp.inf), count)
    return order, jnp.minimum(eligible.sum(dtype=jnp.int32), count)


def _select_tile_by_tile(
    ranked, num_ranked, kept, count, *, tile_size, iou_threshold, max_outputs
):
    """Runs over tiles until max_outputs are kept or the ranked boxes are spent."""

    def unfinished(state):
        tile, _, count = state
        return (tile * tile_size < num_ranked) & (count < max_outputs)

    def select_from_tile(state):
        number, kept, count = state
        tile = ranked.tile(number, tile_size)
        free = number * tile_size + jnp.arange(tile_size) < num_ranked

        def suppress(kept_tile, free):
            overlap = _overlap(kept.tile(kept_tile, tile_size), tile, iou_threshold)
            return free & ~overlap.any(axis=0)

        kept_tiles = (count + tile_size - 1) // tile_size
        free = jax.lax.fori_loop(0, kept_tiles, suppress, free)
        keep = _select_within_tile(_overlap(tile, tile, iou_threshold), free)

        slots = jnp.where(keep, count + jnp.cumsum(keep) - 1, kept.indices.shape[0])
        kept = jax.tree.map(
            lambda kept, new: kept.at[..., slots].set(new, mode="drop"), kept, tile
        )
        return number + 1, kept, count + keep.sum(dtype=jnp.int32)

    state = (jnp.int32(0), kept, count)
    return jax.lax.while_loop(unfinished, select_from_tile, state)[1:]


def _select_within_tile(
    overlap: Bool[Array, "t t"], free: Bool[Array, " t"]
) -> Bool[Array, " t"]:
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


def _overlap(boxes: _Boxes, other: _Boxes, iou_threshold: float) -> Bool[Array, "n k"]:
    overlap = pairwise_iou(boxes.columns, other.columns) > iou_threshold
    if boxes.classes is None or other.classes is None:
        return overlap
    return overlap & (boxes.classes[:, None] == other.classes[None])
