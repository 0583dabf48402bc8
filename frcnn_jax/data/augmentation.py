"""Random changes of training images, drawn for one example at a time.

An augmentation depends only on the example's draw, its size and boxes, and the config.
Every random number is drawn, needed or not: enabling one change alters no other.
"""

from typing import NamedTuple

import numpy as np

from frcnn_jax.config import DataConfig
from frcnn_jax.data import transforms

_DRAW_BITS = 53  # of a float in [0, 1)


class Augmentation(NamedTuple):
    """What is done to one image, in this order."""

    window: transforms.Window  # the part that is kept
    size: transforms.Size  # that it is resized to
    color_factors: np.ndarray  # [3], of brightness, contrast and saturation
    num_rotations: int  # by 90 degrees
    flips_vertically: bool
    flips_horizontally: bool

    def apply(
        self, image: np.ndarray, boxes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Changes a resized image and its boxes.

        Args:
          image: [H, W, 3] uint8, the window after `transforms.resize_part`.
          boxes: [N, 4] boxes inside of the window, pixels of the original image.

        Returns:
          As `transforms.resize`.
        """
        boxes, scale = transforms.resize_boxes(boxes, self.window, self.size)
        if (self.color_factors != 1.0).any():
            image = transforms.adjust_colors(image, self.color_factors)
        for _ in range(self.num_rotations):
            image, boxes = transforms.rotate(image, boxes)
            scale = scale[::-1]
        if self.flips_vertically:
            image, boxes = transforms.flip_vertically(image, boxes)
        if self.flips_horizontally:
            image, boxes = transforms.flip_horizontally(image, boxes)
        return image, boxes, scale


def draw_augmentation(
    draw: float, image_size: tuple[int, int], boxes: np.ndarray, config: DataConfig
) -> Augmentation:
    """Draws what is done to a training image.

    Args:
      draw: uniform in [0, 1); decides everything.
      image_size: (height, width) of the original image.
      boxes: [N, 4] boxes that no crop may cut, pixels of the original image.
      config: says what may be done.
    """
    flips_horizontally = draw < config.flip_probability
    rng = np.random.default_rng(int(draw * 2**_DRAW_BITS))
    flips_vertically = rng.random() < config.vertical_flip_probability
    rotates = rng.random() < config.rotation_probability
    num_rotations = int(rng.integers(1, 4))
    size = _scaled_size(image_size, rng.uniform(*config.scale_range), config)
    color_factors = 1.0 + config.color_jitter * rng.uniform(-1.0, 1.0, 3)
    return Augmentation(
        window=_draw_window(rng, image_size, boxes, config.min_crop),
        size=size,
        color_factors=color_factors,
        num_rotations=num_rotations if rotates else 0,
        flips_vertically=flips_vertically,
        flips_horizontally=flips_horizontally,
    )


def largest_size(image_size: tuple[int, int], config: DataConfig) -> tuple[int, int]:
    """Returns the (height, width) that a training image needs room for.

    Args:
      image_size: (height, width) of the original image.
      config: says what may be done to it.
    """
    height, width = _scaled_size(image_size, config.scale_range[1], config)
    if config.rotation_probability > 0:
        return max(height, width), max(height, width)
    return height, width


def enlargement_note(image_size: tuple[int, int], config: DataConfig) -> str:
    """Explains in a message why an image needs more room than its resized size.

    Args:
      image_size: (height, width) of the original image.
      config: says what may be done to it.

    Returns:
      A note to follow the size, with the fields that are set; empty if it is that of
      the resized image.
    """
    if largest_size(image_size, config) == _scaled_size(image_size, 1.0, config):
        return ""
    causes = ["data.scale_range"] if config.scale_range[1] != 1.0 else []
    if config.rotation_probability > 0:
        causes.append("data.rotation_probability")
    return f" (with {' and '.join(causes)})"


def _scaled_size(
    image_size: tuple[int, int], factor: float, config: DataConfig
) -> tuple[int, int]:
    height, width = transforms.resized_size_of(image_size, config)
    return max(round(height * factor), 1), max(round(width * factor), 1)


def _draw_window(
    rng: np.random.Generator,
    image_size: tuple[int, int],
    boxes: np.ndarray,
    min_crop: float,
) -> transforms.Window:
    """Draws a part of an image, of the same shape, that holds all boxes."""
    sides = np.array(image_size)
    boxes = boxes.clip(0.0, np.tile(sides, 2))
    begin = np.floor(boxes[:, :2]).min(axis=0, initial=sides.max())
    end = np.ceil(boxes[:, 2:]).max(axis=0, initial=0.0)
    least = max(min_crop, *((end - begin) / sides))
    lengths = np.ceil(rng.uniform(least, 1.0) * sides)
    first = np.maximum(end - lengths, 0.0).astype(int)
    last = np.minimum(begin, sides - lengths).astype(int)
    y_min, x_min = map(int, rng.integers(first, last, endpoint=True))
    height, width = map(int, lengths)
    return y_min, x_min, y_min + height, x_min + width
