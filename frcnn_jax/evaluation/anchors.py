"""How well anchors fit the objects, before anything is learned."""

import numpy as np


def best_anchor_iou(
    boxes: np.ndarray,
    image_size: tuple[float, float],
    base: np.ndarray,
    *,
    stride: int = 16,
) -> np.ndarray:
    """Computes the IoU of each object with the best placed anchor of each template.

    Only anchors inside of the image count, as in `ops.anchor_targets`. The best one of
    a template lies at the grid point nearest to the object's center: no other is
    compared.

    Args:
      boxes: [N, 4] objects of one image, in pixels of the resized image.
      image_size: its (height, width), in pixels.
      base: [A, 4] templates of `ops.base_anchors`, around the origin.
      stride: pixels between anchors; the first center lies at stride / 2.

    Returns:
      [N, A] in [0, 1]; 0 where no anchor of the template lies inside.

    Example:
      >>> base = np.array([[-8.0, -8.0, 8.0, 8.0], [-32.0, -32.0, 32.0, 32.0]])
      >>> best_anchor_iou(np.array([[16.0, 0.0, 32.0, 16.0]]), (48.0, 48.0), base)
      array([[1., 0.]])
    """
    shared = np.ones((len(boxes), len(base)))
    for axis in (0, 1):
        low, high = boxes[:, axis, None].astype(np.float64), boxes[:, axis + 2, None]
        half = base[:, axis + 2].astype(np.float64)
        # The first and the last grid point whose anchor lies inside, both >= 0.
        first = np.ceil(np.maximum(half / stride - 0.5, 0.0))
        last = np.floor((image_size[axis] - half) / stride - 0.5)
        last = np.minimum(last, image_size[axis] // stride - 1.0)
        nearest = np.round((low + high) / (2.0 * stride) - 0.5)
        center = (np.clip(nearest, first, last) + 0.5) * stride
        overlap = np.minimum(high, center + half) - np.maximum(low, center - half)
        shared *= np.where(first <= last, np.maximum(overlap, 0.0), 0.0)
    areas, anchor_areas = (
        np.prod(each[:, 2:].astype(np.float64) - each[:, :2], axis=1)
        for each in (boxes, base)
    )
    return shared / (areas[:, None] + anchor_areas - shared)
