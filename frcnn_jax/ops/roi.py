"""Pooling of a feature map inside regions of interest (RoIs), for one image.

RoIs are `(y_min, x_min, y_max, x_max)` in pixels of the resized image; the feature map
has one cell per `stride` pixels. Where the map is padded, `feature_size` tells how many
cells are real, and the result is that of the map cut to this size.
"""

from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

# Look-ups along an axis that cover one bin: a window serves bins of 1 to this many
# times its own length.
LOOK_UPS = 2


def roi_pool(
    features: Float[Array, "h w c"],
    rois: Float[Array, "r 4"],
    *,
    output_size: tuple[int, int] = (7, 7),
    stride: int = 16,
    rounding: Literal["round", "floor"] = "round",
    feature_size: Int[Array, "2"] | tuple[int, int] | None = None,
) -> Float[Array, "r p q c"]:
    """Takes the maximum of each bin of a grid laid over each RoI.

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
      [R, P, Q, C] maxima; 0 for a bin without a cell. Where cells tie the gradient is
      shared among them.

    Raises:
      ValueError: if output_size or stride is not positive, or rounding is unknown.

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
    height, width, _ = features.shape
    if feature_size is None:
        feature_size = (height, width)
    bin_edges = {"round": _rounded_bins, "floor": _truncated_bins}
    if rounding not in bin_edges:
        raise ValueError(f'rounding is {rounding!r}, expected "round" or "floor"')
    edges = bin_edges[rounding]
    y_begin, y_end = edges(
        rois[:, 0] / stride, rois[:, 2] / stride, output_size[0], feature_size[0]
    )
    x_begin, x_end = edges(
        rois[:, 1] / stride, rois[:, 3] / stride, output_size[1], feature_size[1]
    )

    # All look-ups address one table [levels * levels * H * W, C], a row a window.
    y_level, y_cells = _cover(y_begin, y_end, height)  # [R, P], [R, P, LOOK_UPS]
    x_level, x_cells = _cover(x_begin, x_end, width)
    table = _window_maxima(features)
    level = y_level[:, :, None] * len(_windows(width)) + x_level[:, None, :]
    row = y_cells[:, :, None, :, None] * width + x_cells[:, None, :, None, :]
    row += level[..., None, None] * (height * width)
    maxima = table[row.reshape(*level.shape, LOOK_UPS**2)].max(axis=3)

    empty = (y_end <= y_begin)[:, :, None] | (x_end <= x_begin)[:, None, :]
    return jnp.where(empty[..., None], 0.0, maxima).astype(features.dtype)


def roi_align(
    features: Float[Array, "h w c"],
    rois: Float[Array, "r 4"],
    *,
    output_size: tuple[int, int] = (7, 7),
    stride: int = 16,
    sampling_ratio: int = 2,
    aligned: bool = True,
    feature_size: Int[Array, "2"] | tuple[int, int] | None = None,
) -> Float[Array, "r p q c"]:
    """Averages bilinear samples in each bin of a grid laid over each RoI.

    Bilinear weights and the average are separable, so each RoI is two small matrix
    products, `weights_y @ features @ weights_x.T`; no gather, no scatter, and a
    deterministic gradient on every platform.

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
      [R, P, Q, C] averages; samples more than a cell outside the map count as 0.

    Raises:
      ValueError: if output_size, stride or sampling_ratio is not positive.

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
    if sampling_ratio <= 0:
        raise ValueError(f"sampling_ratio is {sampling_ratio}, expected it > 0")
    if feature_size is None:
        feature_size = features.shape[:2]

    def weights(low, high, num_bins, size, num_cells):
        offset = 0.5 if aligned else 0.0
        begin, end = low / stride - offset, high / stride - offset
        if not aligned:
            end = jnp.maximum(end, begin + 1.0)
        return _bilinear_weights(begin, end, num_bins, sampling_ratio, size, num_cells)

    weights_y = weights(
        rois[:, 0], rois[:, 2], output_size[0], feature_size[0], features.shape[0]
    )
    weights_x = weights(
        rois[:, 1], rois[:, 3], output_size[1], feature_size[1], features.shape[1]
    )
    rows = jnp.einsum("rph,hwc->rpwc", weights_y.astype(features.dtype), features)
    return jnp.einsum("rqw,rpwc->rpqc", weights_x.astype(features.dtype), rows)


def _check_options(output_size: tuple[int, int], stride: int) -> None:
    if min(output_size) <= 0:
        raise ValueError(f"output_size is {output_size}, expected sizes > 0")
    if stride <= 0:
        raise ValueError(f"stride is {stride}, expected it > 0")


def _rounded_bins(low, high, num_bins, size):
    """Computes [R, bins] first cell and end of each bin, as the CUDA kernel does."""
    begin, end = _round_half_away(low), _round_half_away(high)
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


def _round_half_away(x: Array) -> Array:
    return jnp.sign(x) * jnp.floor(jnp.abs(x) + 0.5)


def _windows(num_cells: int) -> tuple[int, ...]:
    """Lists window lengths, each serving bins up to the length of the next."""
    windows = [1]
    while windows[-1] * LOOK_UPS < num_cells:
        windows.append(windows[-1] * LOOK_UPS + 1)
    return tuple(windows)


def _cover(begin: Int[Array, "r p"], end: Int[Array, "r p"], num_cells: int):
    """Finds the windows that together cover exactly the cells from begin to end.

    Returns the level [R, P] of the longest window that fits, and the first cells
    [R, P, LOOK_UPS] of its copies: end to end, the last ones pushed back inside.
    """
    windows = jnp.asarray(_windows(num_cells))
    length = jnp.maximum(end - begin, 1)
    level = (length[..., None] >= windows[None, None]).sum(axis=-1) - 1
    window = windows[level]
    steps = jnp.arange(LOOK_UPS)[None, None] * window[..., None]
    cells = begin[..., None] + jnp.minimum(steps, (length - window)[..., None])
    return level, jnp.clip(cells, 0, num_cells - 1)


def _window_maxima(features: Float[Array, "h w c"]) -> Float[Array, "n c"]:
    """Computes the maximum over the window that begins at each cell, for every size."""
    height, width, channels = features.shape
    tables = [
        _running_maximum(_running_maximum(features, y_window, 0), x_window, 1)
        for y_window in _windows(height)
        for x_window in _windows(width)
    ]
    return jnp.stack(tables).reshape(-1, channels)


def _running_maximum(x: Array, window: int, axis: int) -> Array:
    """Computes the maximum of `window` successive entries, by doubling."""
    length = 1
    while length < window:
        shift = min(length, window - length)
        x = jnp.maximum(x, _shifted(x, shift, axis))
        length += shift
    return x


def _shifted(x: Array, shift: int, axis: int) -> Array:
    """Moves entries towards 0; the end repeats: no window inside the map reads it."""
    tail = jnp.take(x, jnp.full(min(shift, x.shape[axis]), -1), axis=axis)
    kept = jnp.take(x, jnp.arange(shift, x.shape[axis]), axis=axis)
    return jnp.concatenate([kept, tail], axis=axis)


def _bilinear_weights(begin, end, num_bins, sampling_ratio, size, num_cells):
    """Computes [R, bins, cells] weights, the mean over the samples of each bin."""
    fractions = (jnp.arange(num_bins * sampling_ratio) + 0.5) / (
        num_bins * sampling_ratio
    )
    samples = begin[:, None] + (end - begin)[:, None] * fractions[None]  # [R, bins * s]
    inside = (samples >= -1.0) & (samples <= size)
    samples = jnp.clip(samples, 0.0, size - 1.0)
    cells = jnp.arange(num_cells, dtype=jnp.float32)
    weights = jnp.maximum(1.0 - jnp.abs(samples[..., None] - cells[None, None]), 0.0)
    weights = jnp.where(inside[..., None], weights, 0.0)
    return weights.reshape(-1, num_bins, sampling_ratio, num_cells).mean(axis=2)
