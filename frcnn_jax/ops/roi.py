"""Pooling of a feature map inside regions of interest (RoIs), for one image.

RoIs are `(y_min, x_min, y_max, x_max)` in pixels of the resized image; the feature map
has one cell per `stride` pixels. Where the map is padded, `feature_size` says how many
cells are real, and the result is that of the map cut to this size.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int, Integer, Real

from frcnn_jax.ops.checks import check_arrays, check_count, check_size
from frcnn_jax.ops.range_max import range_max

# RoIs that `roi_align` handles at once: a row of the map for each of their bins must
# stay in memory.
ALIGNED_TOGETHER = 16


@check_arrays
def roi_pool(
    features: Float[Array, "h w c"],
    rois: Real[Array, "r 4"],
    *,
    output_size: tuple[int, int] = (7, 7),
    stride: int = 16,
    rounding: Literal["round", "floor"] = "round",
    feature_size: Integer[Array, "2"] | tuple[int, int] | None = None,
) -> Float[Array, "r p q c"]:
    """Takes the maximum of each bin of a grid laid over each RoI.

    Differentiable in the features in reverse mode only: `jax.grad`, `jax.vjp` and
    `jax.jacrev`, once or more often. Under `jax.jvp`, `jax.jacfwd` and `jax.hessian`
    JAX raises a TypeError about a "custom_vjp function": use `roi_align` there.

    Args:
      features: [H, W, C] feature map.
      rois: [R, 4] boxes, in pixels.
      output_size: (P, Q) bins down and across.
      stride: pixels per cell.
      rounding: how an edge in pixels becomes a cell. "round": half away from zero, bins
        laid over the whole RoI and then cut to the map, as in the CUDA kernel of Fast
        R-CNN. "floor": truncation, the RoI cut to the map and then divided, as the
        notebook does with an adaptive max pool.
      feature_size: (height, width) of the real part of the map, in cells; may be
        traced; all of it when absent.

    Returns:
      [R, P, Q, C] maxima; 0 for a bin without a cell (all bins where H or W is 0), and
      for a RoI with a coordinate that is NaN or infinite. Where cells tie the gradient
      goes to the first of them in reading order, as in Caffe and torchvision.

    Raises:
      ValueError: if output_size is not two integers >= 1, stride is not positive, or
        rounding is unknown.

    Example:
      >>> features = jnp.arange(16.0).reshape(4, 4, 1)
      >>> roi = jnp.array([[0.0, 0.0, 63.0, 31.0]])
      >>> print(roi_pool(features, roi, output_size=(2, 1), rounding="floor")[0, :, 0])
      [[ 5.]
       [13.]]

    References:
      Girshick, Fast R-CNN, section 2.1.
    """
    _check_options(output_size, stride)
    height, width, channels = features.shape
    if features.size == 0:
        return jnp.zeros((len(rois), *output_size, channels), features.dtype)
    if feature_size is None:
        feature_size = (height, width)
    bin_edges = {"round": _rounded_bins, "floor": _truncated_bins}
    if rounding not in bin_edges:
        raise ValueError(f'rounding is {rounding!r}, expected "round" or "floor"')
    edges = bin_edges[rounding]
    is_finite = jnp.isfinite(rois).all(axis=1)
    rois = jnp.where(is_finite[:, None], rois, 0.0)
    y_begin, y_end = edges(
        rois[:, 0] / stride, rois[:, 2] / stride, output_size[0], feature_size[0]
    )
    x_begin, x_end = edges(
        rois[:, 1] / stride, rois[:, 3] / stride, output_size[1], feature_size[1]
    )

    y_end = jnp.where(is_finite[:, None], y_end, y_begin)
    return range_max(features, (y_begin, y_end), (x_begin, x_end))


@check_arrays
def roi_align(
    features: Float[Array, "h w c"],
    rois: Real[Array, "r 4"],
    *,
    output_size: tuple[int, int] = (7, 7),
    stride: int = 16,
    sampling_ratio: int = 2,
    aligned: bool = True,
    feature_size: Integer[Array, "2"] | tuple[int, int] | None = None,
) -> Float[Array, "r p q c"]:
    """Averages bilinear samples in each bin of a grid laid over each RoI.

    Bilinear weights and the average are separable, so each RoI is two small matrix
    products, `weights_y @ features @ weights_x.T`; no gather, no scatter, and a
    deterministic gradient on every platform, for features and RoIs.

    Args:
      features: [H, W, C] feature map.
      rois: [R, 4] boxes, in pixels.
      output_size: (P, Q) bins down and across.
      stride: pixels per cell.
      sampling_ratio: samples per bin along each axis.
      aligned: whether pixel (0, 0) lies at coordinate (0.5, 0.5) of the map; the first
        RoIAlign did without this half cell, and took RoIs as at least one cell wide.
      feature_size: see `roi_pool`.

    Returns:
      [R, P, Q, C] averages; samples more than a cell outside the map count as 0, and so
      do those of a map without cells, and of a RoI with a coordinate that is NaN or
      infinite.

    Raises:
      ValueError: if output_size or sampling_ratio is not of integers >= 1, or stride
        is not positive.

    Example:
      >>> features = jnp.arange(16.0).reshape(4, 4, 1)
      >>> roi = jnp.array([[0.0, 0.0, 64.0, 64.0]])
      >>> print(roi_align(features, roi, output_size=(2, 2))[0, :, :, 0])
      [[ 2.5  4.5]
       [10.5 12.5]]

    References:
      He et al., Mask R-CNN, section 3; the einsum form follows scenic's roi_align.py.
    """
    _check_options(output_size, stride)
    check_count("sampling_ratio", sampling_ratio, 1)
    if feature_size is None:
        feature_size = (features.shape[0], features.shape[1])
    else:
        features = _zero_beyond(features, feature_size)

    def weights(low, high, num_bins, size, num_cells):
        offset = 0.5 if aligned else 0.0
        begin, end = low / stride - offset, high / stride - offset
        if not aligned:
            end = jnp.maximum(end, begin + 1.0)
        weights = _bilinear_weights(
            begin, end, num_bins, sampling_ratio, size, num_cells
        )
        return weights.astype(features.dtype)

    # The gradient of the features is a sum over the RoIs, added up in their type here.
    wide = features.astype(jnp.promote_types(features.dtype, jnp.float32))

    def align(roi):
        (height, width, _), (rows, columns) = features.shape, output_size
        weights_y = weights(roi[0], roi[2], rows, feature_size[0], height)
        weights_x = weights(roi[1], roi[3], columns, feature_size[1], width)
        lines = jnp.einsum("ph,hwc->pwc", weights_y, wide.astype(features.dtype))
        # A copy of the weights for each line: the products then need no transposition.
        weights_x = jnp.broadcast_to(weights_x[None], (rows, columns, width))
        return jnp.einsum("pqw,pwc->pqc", weights_x, lines)

    return jax.lax.map(align, rois, batch_size=ALIGNED_TOGETHER)


def _check_options(output_size: tuple[int, int], stride: int) -> None:
    check_size("output_size", output_size, 1)
    if not stride > 0:
        raise ValueError(f"stride is {stride}, expected a positive number")


def _zero_beyond(features, size):
    """Sets the cells beyond the real map to 0: a weight of 0 would not hide a NaN."""
    is_real_y = jnp.arange(features.shape[0]) < size[0]
    is_real_x = jnp.arange(features.shape[1]) < size[1]
    is_real = is_real_y[:, None, None] & is_real_x[None, :, None]
    return jnp.where(is_real, features, 0)


def _rounded_bins(low, high, num_bins, size):
    """Computes [R, bins] first cell and end of each bin, as the CUDA kernel does."""
    begin, end = jax.lax.round(low), jax.lax.round(high)  # half away from zero
    length = jnp.maximum(end - begin + 1.0, 1.0).astype(jnp.int32)
    bin_length = _divide(length, num_bins)[:, None]
    bins = jnp.arange(num_bins, dtype=jnp.float32)[None]
    first = jnp.floor(bins * bin_length) + begin[:, None]
    last = jnp.ceil((bins + 1.0) * bin_length) + begin[:, None]
    return tuple(jnp.clip(edge, 0, size).astype(jnp.int32) for edge in (first, last))


def _truncated_bins(low, high, num_bins, size):
    """Computes [R, bins] edges of an adaptive pool over the cells the RoI touches."""
    begin = jnp.clip(jnp.floor(low), 0, size).astype(jnp.int32)
    end = jnp.clip(jnp.floor(high) + 1, 0, size).astype(jnp.int32)
    length = jnp.maximum(end - begin, 0)[:, None]
    bins = jnp.arange(num_bins)[None]
    first = bins * length // num_bins
    last = -(-(bins + 1) * length // num_bins)
    return begin[:, None] + first, begin[:, None] + last


def _divide(length: Int[Array, " r"], count: int) -> Float[Array, " r"]:
    """Divides to the nearest float32.

    XLA multiplies by the rounded 1 / count instead, and some platforms divide loosely;
    but a quotient that is one bit too large can give a bin one cell too many. The first
    sum below is exact, so that only the second one rounds.
    """
    fractions = np.arange(count) / count
    heads = np.round(fractions * 1024.0) / 1024.0
    heads, tails = jnp.asarray([heads, fractions - heads], jnp.float32)
    whole, rest = jnp.divmod(length, count)
    return (whole + heads[rest]) + tails[rest]


def _bilinear_weights(begin, end, num_bins, sampling_ratio, size, num_cells):
    """Computes [bins, cells] weights, the mean over the samples of each bin."""
    num_samples = num_bins * sampling_ratio
    positions = jnp.arange(num_samples, dtype=jnp.float32) + 0.5
    samples = begin + (end - begin) * positions / num_samples
    inside = (samples >= -1.0) & (samples <= size)
    samples = jnp.clip(samples, 0.0, size - 1.0)
    cells = jnp.arange(num_cells, dtype=jnp.float32)
    weights = jnp.maximum(1.0 - jnp.abs(samples[:, None] - cells[None]), 0.0)
    weights = jnp.where(inside[:, None], weights, 0.0)
    return weights.reshape(num_bins, sampling_ratio, num_cells).mean(axis=1)
