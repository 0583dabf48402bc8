"""Anchors: the reference boxes that the region proposal network scores and refines.

Boxes are `(y_min, x_min, y_max, x_max)` in pixels of the resized image.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Real

from frcnn_jax.ops.checks import check_arrays, check_size


def base_anchors(
    scales: Sequence[int | float] = (8, 16, 32),
    ratios: Sequence[int | float] = (0.5, 1, 2),
    stride: int = 16,
) -> Float[Array, "a 4"]:
    """Computes the template of anchors around the origin.

    An anchor of scale s and ratio r (height / width) has the area `(s * stride)**2`:
    `height = s * stride * sqrt(r)`, `width = s * stride / sqrt(r)`.

    Args:
      scales: sides of the square anchors, in cells of the feature map.
      ratios: heights divided by widths.
      stride: pixels per cell.

    Returns:
      [A, 4] anchors in pixels, A = len(scales) * len(ratios), scale-major: all ratios
      of the first scale come first.

    Raises:
      ValueError: if scales or ratios are empty or one is not positive and finite, or
        stride is not positive.

    Example:
      >>> print(base_anchors(scales=(1, 2), ratios=(1,)))
      [[ -8.  -8.   8.   8.]
       [-16. -16.  16.  16.]]

    References:
      Ren et al., Faster R-CNN, section 3.1.1.
    """
    for name, values in (("scales", scales), ("ratios", ratios), ("stride", [stride])):
        if len(values) == 0 or not all(0 < value < math.inf for value in values):
            raise ValueError(f"{name} is {values}, expected positive numbers")
    scale, ratio = np.meshgrid(scales, ratios, indexing="ij")
    half_heights = (0.5 * stride * scale * np.sqrt(ratio)).ravel()
    half_widths = (0.5 * stride * scale / np.sqrt(ratio)).ravel()
    corners = [-half_heights, -half_widths, half_heights, half_widths]
    return jnp.asarray(np.stack(corners, axis=1), jnp.float32)


@check_arrays
def grid_anchors(
    feature_size: tuple[int, int], base: Real[Array, "a 4"], stride: int = 16
) -> Float[Array, "n 4"]:
    """Computes the anchors of every cell of a feature map.

    Args:
      feature_size: (height, width) of the feature map, in cells.
      base: [A, 4] template around the origin, in pixels.
      stride: pixels per cell; the first center lies at stride / 2.

    Returns:
      [H * W * A, 4] anchors in pixels, row-major over (y, x, a).

    Raises:
      ValueError: if a size is negative or not an integer, or stride is not positive.

    Example:
      >>> print(grid_anchors((1, 2), base_anchors((1,), (1,))))
      [[ 0.  0. 16. 16.]
       [ 0. 16. 16. 32.]]
    """
    check_size("feature_size", feature_size)
    if not stride > 0:
        raise ValueError(f"stride is {stride}, expected a positive number")
    center_y = (jnp.arange(feature_size[0], dtype=jnp.float32) + 0.5) * stride
    center_x = (jnp.arange(feature_size[1], dtype=jnp.float32) + 0.5) * stride
    y, x = jnp.meshgrid(center_y, center_x, indexing="ij")
    centers = jnp.stack([y, x, y, x], axis=-1).reshape(-1, 1, 4)
    return (centers + base[None]).reshape(-1, 4)
