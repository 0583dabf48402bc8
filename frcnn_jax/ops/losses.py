"""The four losses of Faster R-CNN, for one image.

Both stages pair a cross-entropy over the sampled boxes with a smooth L1 over the deltas
of the positive ones. `normalizer` and `localization_weight` distinguish the two
traditions: the notebook divides the localization loss by the number of positives and
weighs it by 10; the py-faster-rcnn family divides by the number of sampled boxes and
weighs it by 1.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int, Real

from frcnn_jax.ops.checks import check_arrays
from frcnn_jax.ops.targets import AnchorTargets, ProposalTargets

Normalizer = Literal["positives", "samples"]


@check_arrays
def smooth_l1(x: Float[Array, "..."], beta: float = 1.0) -> Float[Array, "..."]:
    """Computes the smooth L1 function, elementwise.

    `0.5 * x**2 / beta` where `|x| < beta`, `|x| - 0.5 * beta` beyond. The "sigma" of
    py-faster-rcnn is the same function with `beta = 1 / sigma**2`.

    Args:
      x: differences, any shape.
      beta: where the parabola meets the line, positive.

    Returns:
      values >= 0, shaped as x; infinite where x is, with a slope of 1 or -1.

    Raises:
      ValueError: if beta is not positive.

    Example:
      >>> print(smooth_l1(jnp.array([0.5, -2.0])))
      [0.125 1.5  ]

    References:
      Girshick, Fast R-CNN, equation 3 (beta = 1).
    """
    if not beta > 0.0:
        raise ValueError(f"beta is {beta}, expected a positive number")
    size = jnp.abs(x)
    is_small = size < beta
    # Of an infinite difference the square would have the gradient NaN.
    small = jnp.where(is_small, size, 0.0)
    return jnp.where(is_small, 0.5 * small**2 / beta, size - 0.5 * beta)


@check_arrays
def rpn_loss(
    logits: Float[Array, "n 2"],
    deltas: Real[Array, "n 4"],
    targets: AnchorTargets,
    *,
    beta: float = 1.0,
    normalizer: Normalizer = "samples",
    localization_weight: float = 1.0,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Computes the two losses of the region proposal network.

    Args:
      logits: [N, 2] scores of (background, object) before the softmax.
      deltas: [N, 4] predicted deltas.
      targets: labels [N] in {1, 0, -1} and deltas [N, 4].
      beta: of `smooth_l1`; 1 in the notebook, 1/9 (sigma 3) in py-faster-rcnn.
      normalizer: what divides the localization loss.
      localization_weight: multiplies the localization loss; 10 in the notebook.

    Returns:
      `(classification, localization)`, scalars; both 0 when nothing is sampled.

    Raises:
      ValueError: if beta is not positive or normalizer is unknown.

    Example:
      >>> targets = AnchorTargets(jnp.array([1, 0, -1]), jnp.zeros((3, 4)))
      >>> losses = rpn_loss(jnp.zeros((3, 2)), jnp.full((3, 4), 0.5), targets)
      >>> print([round(loss.item(), 3) for loss in losses])
      [0.693, 0.25]

    References:
      Ren et al., Faster R-CNN, equation 1.
    """
    sampled, positive = targets.labels >= 0, targets.labels > 0
    return (
        _cross_entropy(logits, targets.labels, sampled),
        _localization(
            deltas,
            targets.deltas,
            positive,
            sampled,
            beta=beta,
            normalizer=normalizer,
            weight=localization_weight,
        ),
    )


@check_arrays
def roi_loss(
    logits: Float[Array, "s c"],
    deltas: Real[Array, "s c 4"],
    targets: ProposalTargets,
    *,
    beta: float = 1.0,
    normalizer: Normalizer = "samples",
    localization_weight: float = 1.0,
    delta_std: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0),
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Computes the two losses of the RoI head.

    Args:
      logits: [S, C] class scores before the softmax, column 0 the background.
      deltas: [S, C, 4] predicted deltas per class, in units of `delta_std`.
      targets: what `proposal_targets` drew.
      beta: of `smooth_l1`.
      normalizer: what divides the localization loss.
      localization_weight: multiplies the localization loss; 10 in the notebook.
      delta_std: the head predicts deltas divided by these; (0.1, 0.1, 0.2, 0.2) in
        py-faster-rcnn, 1 in the notebook.

    Returns:
      `(classification, localization)`, scalars; both 0 when nothing is sampled.

    Raises:
      ValueError: if beta is not positive, delta_std is not four positive numbers, or
        normalizer is unknown.

    Example:
      >>> targets = ProposalTargets(
      ...     jnp.zeros((2, 4)), jnp.array([1, 0]), jnp.zeros((2, 4)),
      ...     jnp.array([True, True]))
      >>> losses = roi_loss(jnp.zeros((2, 2)), jnp.full((2, 2, 4), 0.5), targets)
      >>> print([round(loss.item(), 3) for loss in losses])
      [0.693, 0.25]

    References:
      Girshick, Fast R-CNN, section 2.3.
    """
    if len(delta_std) != 4 or not all(std > 0.0 for std in delta_std):
        raise ValueError(f"delta_std is {delta_std}, expected four positive numbers")
    own_class = jnp.take_along_axis(deltas, targets.labels[:, None, None], axis=1)
    return (
        _cross_entropy(logits, targets.labels, targets.mask),
        _localization(
            own_class[:, 0],
            targets.deltas / jnp.asarray(delta_std, jnp.float32)[None],
            targets.mask & (targets.labels > 0),
            targets.mask,
            beta=beta,
            normalizer=normalizer,
            weight=localization_weight,
        ),
    )


def _cross_entropy(
    logits: Float[Array, "n c"], labels: Int[Array, " n"], sampled: Bool[Array, " n"]
) -> Float[Array, ""]:
    # Logits that take no part may be infinite: the softmax's gradient would be NaN.
    logits = jnp.where(sampled[:, None], logits.astype(jnp.float32), 0.0)
    log_probabilities = jax.nn.log_softmax(logits)
    # Label -1 reads the last column; `sampled` then drops it.
    picked = jnp.take_along_axis(log_probabilities, labels[:, None], axis=1)[:, 0]
    return -jnp.where(sampled, picked, 0.0).sum() / jnp.maximum(sampled.sum(), 1)


def _localization(predicted, target, positive, sampled, *, beta, normalizer, weight):
    counted = {"positives": positive, "samples": sampled}
    if normalizer not in counted:
        raise ValueError(
            f'normalizer is {normalizer!r}, expected "positives" or "samples"'
        )
    differences = predicted - target.astype(jnp.float32)
    differences = jnp.where(positive[:, None], differences, 0.0)
    total = smooth_l1(differences, beta).sum()
    return weight * total / jnp.maximum(counted[normalizer].sum(), 1)
