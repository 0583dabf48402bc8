"""Reads image files, with errors that name the file.

An EXIF orientation is ignored: the boxes of detection data sets are given in the pixels
as they are stored.
"""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from frcnn_jax.errors import UserError

# A path, a PIL image of any mode, or [H, W, 3] uint8 RGB.
Picture = str | Path | Image.Image | np.ndarray


def read_size(file: Path | io.BytesIO, name: str) -> tuple[int, int]:
    """Reads (height, width) from the header of an image; the pixels stay unread.

    Args:
      file: a path, or the encoded image itself.
      name: what to call the image in an error.

    Returns:
      (height, width), in pixels.

    Raises:
      UserError: if the file is missing or not an image.
    """
    with _open(file, name) as image:
        return image.height, image.width


def read_rgb(file: Path | io.BytesIO, name: str) -> np.ndarray:
    """Reads an image of any color mode (gray, palette, CMYK, ..) as RGB.

    Args:
      file: a path, or the encoded image itself.
      name: what to call the image in an error.

    Returns:
      [H, W, 3] uint8.

    Raises:
      UserError: if the file is missing, not an image or truncated.
    """
    with _open(file, name) as image:
        return np.asarray(image.convert("RGB"))


def as_rgb(image: Picture) -> np.ndarray:
    """Returns the pixels of an image that is given in one of several ways.

    Args:
      image: a path, a PIL image of any mode, or [H, W, 3] uint8 RGB.

    Returns:
      [H, W, 3] uint8.

    Raises:
      UserError: if a file is missing, not an image or truncated.
      ValueError: if an array has another shape or type.
    """
    if isinstance(image, str | Path):
        return read_rgb(Path(image), str(image))
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"))
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"image is {image.dtype} {image.shape}, expected uint8 (height, width, 3)"
        )
    return image


@contextlib.contextmanager
def _open(file: Path | io.BytesIO, name: str) -> Iterator[Image.Image]:
    try:
        with Image.open(file) as image:
            yield image
    # For a broken file PIL raises OSError, SyntaxError, ValueError, struct.error, ..
    except Exception as error:
        raise UserError(f"cannot read image {name}: {error}") from error
