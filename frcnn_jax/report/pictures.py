"""Small pictures inside of a page."""

import base64
import io
from collections.abc import Iterable

import numpy as np
from PIL import Image

from frcnn_jax.visualization import drawing

_CROP_SIDE = 176  # pixels
_CONTEXT = 2.2  # sides of the box
_MIN_CONTEXT = 48.0  # pixels


def crop(
    pixels: np.ndarray,
    box: np.ndarray,
    color: drawing.Color,
    others: Iterable[np.ndarray] = (),
) -> Image.Image:
    """Cuts out a square around a box, inside of the image, and draws the box.

    Args:
      pixels: [H, W, 3] uint8.
      box: [4] in pixels, max edge exclusive.
      color: of its edges.
      others: boxes to draw below it, in white dashes.
    """
    size = np.array(pixels.shape[:2])
    longest = (box[2:] - box[:2]).max()
    side = max(_CONTEXT * longest, _MIN_CONTEXT)
    side = int(np.ceil(min(side, max(longest, size.min()))))
    corner = np.round((box[:2] + box[2:] - side) / 2).astype(int)
    # If the image is narrower than the square, the rest is black.
    corner = np.where(size >= side, np.clip(corner, 0, size - side), (size - side) // 2)
    top, left = corner.tolist()
    picture = Image.fromarray(pixels).crop((left, top, left + side, top + side))
    picture = picture.resize((_CROP_SIDE, _CROP_SIDE), Image.Resampling.BICUBIC)

    def place(box: np.ndarray) -> drawing.Box:
        outline = (box - np.tile(corner, 2)) * (_CROP_SIDE / side)
        return drawing.pixel_box(outline, picture)

    for other in others:
        if (other[:2] < corner + side).all() and (other[2:] > corner).all():
            drawing.draw_dashes(picture, place(other), drawing.WHITE)
    drawing.draw_outline(picture, place(box), color)
    return picture


def to_uri(picture: Image.Image) -> str:
    """Returns a picture as a data URI of a JPEG."""
    content = io.BytesIO()
    picture.save(content, format="JPEG", quality=78, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
