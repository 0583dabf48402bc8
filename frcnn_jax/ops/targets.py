"""Training targets of both stages: labels and deltas of anchors and proposals.

Boxes are `(y_min, x_min, y_max, x_max)` in pixels of the resized image; one image each.
Labels of a data set count from 0; in the RoI head 0 is the background and class c is
c + 1. That shift happens in `proposal_targets` and nowhere else.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int, Integer, Key, Real, Shaped

from frcnn_jax.ops.boxes import ImageSize, box_iou, encode_boxes
from frcnn_jax.ops.checks import check_arrays, check_count
from frcnn_jax.ops.sampling import sample_indices, split_key


class AnchorTargets(NamedTuple):
    """Targets of the region proposal network."""

    labels: Int[Array, " n"]  #: 1 object, 0 background, -1 takes no part in the loss
    deltas: Float[Array, "n 4"]  #: to the object it overlaps most; 0 unless label 1


class ProposalTargets(NamedTuple):
    """A sample of proposals and the RoI head's targets for them."""

    rois: Float[Array, "s 4"]  #: boxes in pixels, objects first; padding is zero
    labels: Int[Array, " s"]  #: 0 background, class + 1 otherwise
    deltas: Float[Array, "s 4"]  #: un-normalized; 0 for the background and padding
    mask: Bool[Array, " s"]  #: False for padding


@check_arrays
def anchor_targets(
    key: Key[Array, ""],
    anchors: Real[Array, "n 4"],
    gt_boxes: Real[Array, "m 4"],
    gt_mask: Bool[Array, " m"],
    image_size: ImageSize,
    *,
    num_samples: int = 256,
    positive_fraction: float = 0.5,
    positive_iou: float = 0.7,
    negative_iou: float = 0.3,
) -> AnchorTargets:
    """Computes labels and deltas for a random sample of the anchors inside the image.

    An anchor is positive if its IoU with an object reaches `positive_iou`, or if it
    ties for the best IoU with an object, unless that is 0. Any other anchor is negative
    if its IoU with all objects is below `negative_iou`. Negatives fill what
    the positives, at most `positive_fraction`, leave of the sample.

    Args:
      key: PRNG key of the sample.
      anchors: [N, 4] anchors; those across the image's border take no part.
      gt_boxes: [M, 4] objects, padded.
      gt_mask: [M] which of them are real.
      image_size: (height, width) of the true image, not of the canvas; may be traced.
      num_samples: anchors in the sample.
      positive_fraction: largest share of positives; rounded to whole anchors.
      positive_iou: see above.
      negative_iou: see above.

    Returns:
      `AnchorTargets`: labels [N] in {1, 0, -1}, deltas [N, 4].

    Raises:
      ValueError: if num_samples is not an integer >= 0, positive_fraction not in
        [0, 1], or positive_iou not positive.

    Example:
      >>> anchors = jnp.array([[0.0, 0, 8, 8], [0, 8, 8, 16], [8, 8, 24, 24]])
      >>> targets = anchor_targets(
      ...     jax.random.key(0), anchors, jnp.array([[0.0, 0, 8, 9]]),
      ...     jnp.array([True]), (16.0, 16.0))
      >>> print(targets.labels)
      [ 1  0 -1]

    References:
      Ren et al., Faster R-CNN, section 3.1.2.
    """
    max_positives = _max_positives(num_samples, positive_fraction, positive_iou)
    height, width = image_size
    inside = (anchors[:, :2] >= 0.0).all(axis=1)
    inside &= (anchors[:, 2] <= height) & (anchors[:, 3] <= width)
    # `iou` is compared with its own maxima below, to the bit. The barrier keeps the
    # compiler from computing it once for each, with roundings of their own.
    iou = jax.lax.optimization_barrier(box_iou(anchors, gt_boxes))
    iou = jnp.where(inside[:, None] & gt_mask[None], iou, 0.0)
    max_iou, assignment = _best(iou)

    gt_max_iou = iou.max(axis=0, initial=0.0)
    is_best = ((iou == gt_max_iou[None]) & (gt_max_iou[None] > 0.0)).any(axis=1)
    positive = (max_iou >= positive_iou) & inside | is_best
    negative = (max_iou < negative_iou) & inside & ~positive

    positive_key, negative_key = split_key(key, 2)
    positives, num_positives = sample_indices(positive_key, positive, max_positives)
    negatives, num_negatives = sample_indices(negative_key, negative, num_samples)
    num_negatives = jnp.minimum(num_negatives, num_samples - num_positives)

    labels = jnp.full(anchors.shape[0], -1, jnp.int32)
    labels = _set_first(labels, positives, num_positives, 1)
    labels = _set_first(labels, negatives, num_negatives, 0)
    deltas = encode_boxes(anchors, _take(gt_boxes, assignment))
    return AnchorTargets(labels, jnp.where(labels[:, None] == 1, deltas, 0.0))


@check_arrays
def proposal_targets(
    key: Key[Array, ""],
    proposals: Real[Array, "p 4"],
    proposal_mask: Bool[Array, " p"],
    gt_boxes: Real[Array, "m 4"],
    gt_labels: Integer[Array, " m"],
    gt_mask: Bool[Array, " m"],
    *,
    num_samples: int = 128,
    positive_fraction: float = 0.25,
    positive_iou: float = 0.5,
    negative_iou_high: float = 0.5,
    negative_iou_low: float = 0.0,
    append_gt: bool = True,
) -> ProposalTargets:
    """Draws the proposals that the RoI head learns from, with labels and deltas.

    Args:
      key: PRNG key of the sample.
      proposals: [P, 4] proposals, padded.
      proposal_mask: [P] which of them are real.
      gt_boxes: [M, 4] objects, padded.
      gt_labels: [M] classes of the objects, from 0.
      gt_mask: [M] which objects are real.
      num_samples: S, proposals in the sample.
      positive_fraction: largest share of objects in the sample; rounded.
      positive_iou: an object from this IoU on.
      negative_iou_high: background below this IoU,
      negative_iou_low: and from this one on.
      append_gt: whether the objects themselves are proposals too.

    Returns:
      `ProposalTargets`: rois [S, 4], labels [S], un-normalized deltas [S, 4], mask [S].
      Where candidates are too few the rest of the S slots is padding.

    Raises:
      ValueError: if num_samples is not an integer >= 0, positive_fraction not in
        [0, 1], or positive_iou not positive.

    Example:
      >>> targets = proposal_targets(
      ...     jax.random.key(0), jnp.array([[0.0, 0, 8, 8], [0, 20, 8, 28]]),
      ...     jnp.array([True, True]), jnp.array([[0.0, 0, 8, 10]]), jnp.array([2]),
      ...     jnp.array([True]), num_samples=4, append_gt=False)
      >>> print(targets.labels, targets.mask)
      [3 0 0 0] [ True  True False False]

    References:
      Girshick, Fast R-CNN, section 2.3.
    """
    max_positives = _max_positives(num_samples, positive_fraction, positive_iou)
    if append_gt:
        proposals = jnp.concatenate([proposals, gt_boxes])
        proposal_mask = jnp.concatenate([proposal_mask, gt_mask])
    iou = jnp.where(gt_mask[None], box_iou(proposals, gt_boxes), 0.0)
    max_iou, assignment = _best(iou)
    positive = proposal_mask & (max_iou >= positive_iou)
    negative = proposal_mask & ~positive
    negative &= (max_iou < negative_iou_high) & (max_iou >= negative_iou_low)

    chosen, is_object, mask = _sample_slots(
        key, positive, negative, num_samples, max_positives
    )

    rois = jnp.where(mask[:, None], _take(proposals, chosen), 0.0)
    matched = _take(assignment, chosen)
    labels = _take(gt_labels, matched) + 1
    deltas = encode_boxes(rois, _take(gt_boxes, matched))
    return ProposalTargets(
        rois,
        jnp.where(is_object, labels, 0).astype(jnp.int32),
        jnp.where(is_object[:, None], deltas, 0.0),
        mask,
    )


def _sample_slots(
    key: Key[Array, ""],
    positive: Bool[Array, " n"],
    negative: Bool[Array, " n"],
    num_samples: int,
    max_positives: int,
) -> tuple[Int[Array, " s"], Bool[Array, " s"], Bool[Array, " s"]]:
    """Fills the sample's slots: positives first, then negatives, then padding.

    Returns:
      The candidate of each slot, whether it is a positive, and which slots are real.
    """
    positive_key, negative_key = split_key(key, 2)
    positives, num_positives = sample_indices(positive_key, positive, max_positives)
    negatives, num_negatives = sample_indices(negative_key, negative, num_samples)
    slot = jnp.arange(num_samples)
    chosen = jnp.where(
        slot < num_positives,
        _take(positives, slot),
        _take(negatives, slot - num_positives),
    )
    return chosen, slot < num_positives, slot < num_positives + num_negatives


def _max_positives(
    num_samples: int, positive_fraction: float, positive_iou: float
) -> int:
    check_count("num_samples", num_samples)
    if not positive_iou > 0.0:  # it would take padding for objects
        raise ValueError(f"positive_iou is {positive_iou}, expected a positive number")
    if not 0.0 <= positive_fraction <= 1.0:
        raise ValueError(f"positive_fraction is {positive_fraction}, expected 0 to 1")
    return round(num_samples * positive_fraction)


def _best(iou: Float[Array, "n m"]) -> tuple[Float[Array, " n"], Int[Array, " n"]]:
    """Finds the object of highest IoU for each box; IoU 0 when there are no objects."""
    if iou.shape[1] == 0:
        return jnp.zeros(iou.shape[0]), jnp.zeros(iou.shape[0], jnp.int32)
    return iou.max(axis=1), iou.argmax(axis=1)


def _set_first(labels, indices, count, value):
    """Writes value at the first `count` indices."""
    drawn = jnp.arange(indices.shape[0]) < count
    return labels.at[jnp.where(drawn, indices, labels.shape[0])].set(value, mode="drop")


def _take(
    values: Shaped[Array, "m ..."], indices: Int[Array, " n"]
) -> Shaped[Array, "n ..."]:
    """Gathers entries; an index beyond the end (no objects at all) gives zeros."""
    if values.shape[0] == 0:
        return jnp.zeros(indices.shape + values.shape[1:], values.dtype)
    return values.at[indices].get(mode="fill", fill_value=0)
