"""Geometry of one image and its boxes, on the host.

Images are [H, W, 3] uint8. Boxes are [N, 4] float32 `(y_min, x_min, y_max, x_max)` in
pixels, max edge exclusive. Sizes are (height, width).
"""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from frcnn_jax.config import Resizing
from frcnn_jax.errors import UserError


def resized_size(
    image_size: tuple[int, int],
    *,
    shorter_side: int,
    longer_side: int,
    keep_aspect_ratio: bool = True,
) -> tuple[int, int]:
    """Computes the size of an image after `resize`.

    Args:
      image_size: (height, width) of the original image.
      shorter_side: the wanted length of the shorter side, in pixels.
      longer_side: the greatest length of the longer side; an image that would exceed
        it becomes smaller than `shorter_side` asks for.
      keep_aspect_ratio: if False, both lengths are taken exactly.

    Returns:
      (height, width), whole pixels.

    Example:
      >>> resized_size((375, 500), shorter_side=600, longer_side=1000)
      (600, 800)
      >>> resized_size((200, 500), shorter_side=600, longer_side=1000)
      (400, 1000)
      >>> resized_size(
      ...     (500, 375), shorter_side=600, longer_side=800, keep_aspect_ratio=False)
      (800, 600)

    References:
      rbgirshick/py-faster-rcnn: lib/utils/blob.py, `prep_im_for_blob`.
    """
    if not keep_aspect_ratio:
        is_wide = image_size[0] <= image_size[1]
        return (shorter_side, longer_side) if is_wide else (longer_side, shorter_side)
    scale = min(shorter_side / min(image_size), longer_side / max(image_size))
    height, width = (max(round(side * scale), 1) for side in image_size)
    return height, width


def resized_size_of(image_size: tuple[int, int], resizing: Resizing) -> tuple[int, int]:
    """Computes the size of an image after it is resized as a config says.

    Args:
      image_size: (height, width) of the original image.
      resizing: has the sides.
    """
    return resized_size(
        image_size,
        shorter_side=resizing.shorter_side,
        longer_side=resizing.longer_side,
        keep_aspect_ratio=resizing.keep_aspect_ratio,
    )


def resize(
    image: np.ndarray,
    boxes: np.ndarray,
    *,
    shorter_side: int,
    longer_side: int,
    keep_aspect_ratio: bool = True,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Resizes an image and its boxes (bilinear, antialiased when it shrinks).

    Args:
      image: [H, W, 3] uint8.
      boxes: [N, 4] boxes, pixels of `image`.
      shorter_side: the wanted length of the shorter side, in pixels.
      longer_side: the greatest length of the longer side, in pixels.
      keep_aspect_ratio: if False, both lengths are taken exactly.

    Returns:
      The image [H', W', 3] of `resized_size`, the boxes [N, 4] in its pixels, and the
      scale [2] float32 in (y, x): the real ratios H'/H and W'/W, which differ at least
      by the rounding to whole pixels.
    """
    image_size = image.shape[:2]
    new_size = resized_size(
        image_size,
        shorter_side=shorter_side,
        longer_side=longer_side,
        keep_aspect_ratio=keep_aspect_ratio,
    )
    resized = Image.fromarray(image).resize(new_size[::-1], Image.Resampling.BILINEAR)
    scale = (np.array(new_size) / np.array(image_size)).astype(np.float32)
    return np.asarray(resized), boxes * np.tile(scale, 2), scale


def flip_horizontally(
    image: np.ndarray, boxes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mirrors an image and its boxes, left to right.

    Args:
      image: [H, W, 3] uint8.
      boxes: [N, 4] boxes, pixels of `image`.
    """
    y_min, x_min, y_max, x_max = boxes.T
    width = np.float32(image.shape[1])
    return image[:, ::-1], np.stack([y_min, width - x_max, y_max, width - x_min], 1)


def choose_canvas(
    image_size: tuple[int, int], canvases: Sequence[tuple[int, int]]
) -> int | None:
    """Chooses the canvas of the smallest area that an image fits into.

    Args:
      image_size: (height, width) of the resized image.
      canvases: (height, width) of each canvas.

    Returns:
      Its index, the first on ties; None where the image fits into no canvas.

    Example:
      >>> choose_canvas((600, 450), [(608, 1008), (1008, 608), (608, 608)])
      2
    """
    height, width = image_size
    fitting = [
        index
        for index, canvas in enumerate(canvases)
        if height <= canvas[0] and width <= canvas[1]
    ]
    return min(fitting, key=lambda index: math.prod(canvases[index]), default=None)


def choose_canvas_for(
    image_size: tuple[int, int], resizing: Resizing, image_id: str
) -> int:
    """Chooses the canvas that an image takes after `resize`.

    Args:
      image_size: (height, width) of the original image.
      resizing: sides and canvases.
      image_id: what to call the image in the error.

    Returns:
      The index of the canvas.

    Raises:
      UserError: if the resized image fits into no canvas.
    """
    size = resized_size_of(image_size, resizing)
    index = choose_canvas(size, resizing.canvases)
    if index is None:
        listed = ", ".join(f"{height}x{width}" for height, width in resizing.canvases)
        raise UserError(
            f"image {image_id} is {size[0]}x{size[1]} pixels (height x width) after "
            f"resizing, but canvases is {listed}; enlarge one of canvases or reduce "
            "longer_side"
        )
    return index


def pad_to(image: np.ndarray, canvas: tuple[int, int]) -> np.ndarray:
    """Puts an image [H, W, 3] into the upper left corner of a black canvas.

    Args:
      image: [H, W, 3] uint8.
      canvas: (height, width) of the result.

    Returns:
      `[*canvas, 3]` uint8, zero outside the image.

    Raises:
      UserError: if the image is larger than the canvas.
    """
    height, width = image.shape[:2]
    if height > canvas[0] or width > canvas[1]:
        raise UserError(
            f"an image of {height}x{width} pixels (height x width) does not fit into "
            f"a canvas of {canvas[0]}x{canvas[1]}"
        )
    padded = np.zeros((*canvas, 3), np.uint8)
    padded[:height, :width] = image
    return padded


def pad_boxes(
    boxes: np.ndarray, labels: np.ndarray, max_objects: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pads the N boxes of an image to a fixed number M.

    Args:
      boxes: [N, 4] float32.
      labels: [N] int32.
      max_objects: M, at least N.

    Returns:
      Boxes [M, 4] float32 and labels [M] int32, zero where padded, and their mask
      [M] bool.
    """
    padding = (0, max_objects - len(boxes))
    mask = np.arange(max_objects) < len(boxes)
    return np.pad(boxes, (padding, (0, 0))), np.pad(labels, padding), mask
