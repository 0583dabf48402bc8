"""Paints the shapes data set: opacity masks, backgrounds and colors.

Every function takes its random numbers from the generator it is given. Images are
float32 in about 0..255, sizes are (height, width) in pixels.
"""

import numpy as np
from PIL import Image, ImageDraw

_SUPERSAMPLING = 2
_MIN_CONTRAST = 100.0  # Distance in RGB, 0..441.
_NUM_COLORS = 20

# Corners as (x, y) in the unit square, which they touch on all four sides.
_TRIANGLE = np.array([[0.5, 0.0], [1.0, 1.0], [0.0, 1.0]])
_BAR = np.array([0.0, 0.34, 0.66, 1.0])  # The edges of a cross, either way.
_CROSS = np.stack(
    [
        _BAR[[1, 2, 2, 3, 3, 2, 2, 1, 1, 0, 0, 1]],
        _BAR[[0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 1, 1]],
    ],
    axis=1,
)
_ANGLES = np.pi * np.arange(10) / 5
_STAR = np.where(np.arange(10) % 2, 0.42, 1.0)[:, None] * np.stack(
    [np.sin(_ANGLES), -np.cos(_ANGLES)], axis=1
)
_STAR = (_STAR - _STAR.min(axis=0)) / np.ptp(_STAR, axis=0)
_POLYGONS = {"triangle": _TRIANGLE, "cross": _CROSS, "star": _STAR}


def mask(rng: np.random.Generator, name: str, height: int, width: int) -> np.ndarray:
    """Draws a shape that fills its box.

    Args:
      rng: decides which way up a polygon is.
      name: of the shape.
      height: of its box, in pixels.
      width: of its box, in pixels.

    Returns:
      [height, width] opacity in 0..1.
    """
    size = np.array([width, height]) * _SUPERSAMPLING
    canvas = Image.new("L", tuple(size), 0)
    draw = ImageDraw.Draw(canvas)
    last = size - 1  # PIL paints the end points of what it draws.
    if name == "rectangle":
        draw.rectangle((0, 0, *last), fill=255)
    elif name in _POLYGONS:
        corners = _POLYGONS[name]
        if rng.random() < 0.5:
            corners = 1 - corners  # Upside down.
        draw.polygon([tuple(corner) for corner in corners * last], fill=255)
    else:
        draw.ellipse((0, 0, *last), fill=255)
        if name == "ring":
            draw.ellipse((*(0.27 * last), *(0.73 * last)), fill=0)
    return np.asarray(canvas.reduce(_SUPERSAMPLING), np.float32) / 255


def background(
    rng: np.random.Generator, image_size: tuple[int, int]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Paints a background.

    Args:
      rng: decides pattern and colors.
      image_size: (height, width), in pixels.

    Returns:
      [H, W, 3] float32 in about 0..255, and its two colors.
    """
    color = rng.uniform(30, 225, 3).astype(np.float32)
    other = np.clip(color + rng.uniform(-60, 60, 3), 0, 255).astype(np.float32)
    y, x = np.ogrid[: image_size[0], : image_size[1]]
    period = rng.uniform(0.05, 0.3) * min(image_size)
    angle = rng.uniform(0, np.pi)
    across = np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y
    kind = rng.integers(4)
    if kind == 0:
        weight = (across - across.min()) / np.ptp(across)  # Gradient.
    elif kind == 1:
        weight = across // period % 2  # Stripes.
    elif kind == 2:
        weight = (y // period + x // period) % 2  # Checks.
    else:
        weight = rng.random(image_size, np.float32)  # Speckles.
    weight = weight.astype(np.float32)[..., None]
    return color + weight * (other - color), [color, other]


def contrasting_color(rng: np.random.Generator, others: list[np.ndarray]) -> np.ndarray:
    """Picks the first of some random colors that is far from the others.

    Args:
      rng: draws the colors.
      others: colors to contrast with, [3] each.
    """
    colors = rng.uniform(0, 255, (_NUM_COLORS, 3)).astype(np.float32)
    distances = np.linalg.norm(colors[:, None] - np.stack(others), axis=-1).min(axis=1)
    far = np.flatnonzero(distances > _MIN_CONTRAST)
    return colors[far[0] if far.size else distances.argmax()]
