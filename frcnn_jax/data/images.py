"""Reads images of any color mode as upright RGB, with errors that name the file.

- An EXIF orientation is applied, as viewers do: sizes, pixels and boxes are those of
  the upright picture.
- Gray values of more than 8 bits are scaled to 0..255.
- Transparency is ignored: the colors under it stay as they are stored.
- Of an animation the first frame is read.
"""

import contextlib
import io
import logging
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image

from frcnn_jax.data.records import Source, abbreviate
from frcnn_jax.errors import UserError

# A path, a PIL image of any mode, or [H, W, 3] uint8 RGB.
Picture = str | Path | Image.Image | np.ndarray

# Pillow goes by the content, not by the name; for EPS it would start Ghostscript.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM", "JPEG2000")

# What makes an image of this EXIF orientation upright. ImageOps.exif_transpose would
# also rewrite the other metadata, and fails where these are damaged.
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)

# The values that white may have in a gray mode of more than 8 bits.
_WHITES = {"I": (255, 65535), "F": (1, 255, 65535)}
_WHITE_16_BIT = (65535,)

# Python's warning filters belong to the process, not to a thread.
_filter_lock = threading.Lock()

_logger = logging.getLogger(__name__)


class EncodedImage(NamedTuple):
    """An image as its file holds it."""

    content: bytes
    name: str  # what to call it in an error

    def decode(self) -> Image.Image:
        """Decodes the image to upright RGB.

        Raises:
          UserError: if it is not an image, too large or truncated.
        """
        with _errors_naming(self.name), _open(io.BytesIO(self.content)) as image:
            return _to_rgb(image)


def read_size(file: Path | io.BytesIO, name: str) -> tuple[int, int]:
    """Reads (height, width) of the upright image; the pixels stay unread.

    Args:
      file: a path, or the encoded image itself.
      name: what to call the image in an error.

    Returns:
      (height, width), in pixels.

    Raises:
      UserError: if the file is missing, not an image or too large.
    """
    with _errors_naming(name), _open(file) as image:
        return _upright_size(image)


def read_annotated_size(
    file: Path, annotated_size: tuple[int, int] | None, annotation: str
) -> tuple[int, int]:
    """Reads the size of an upright image whose annotation may give a size, too.

    Args:
      file: the image.
      annotated_size: (height, width) according to the annotation, None if unknown.
      annotation: what to call the annotation in an error.

    Returns:
      (height, width), in pixels.

    Raises:
      UserError: as for `read_size`, and if the annotation has the size of the image
        before it is turned upright: its boxes may be meant for those pixels.
    """
    with _errors_naming(str(file)), _open(file) as image:
        size, stored_size = _upright_size(image), (image.height, image.width)
    if annotated_size == stored_size != size:
        raise UserError(
            f"{annotation}: has the size {stored_size[0]}x{stored_size[1]} (height x "
            f"width), expected {size[0]}x{size[1]} as of {file} after its EXIF "
            "orientation; correct the size if the boxes are meant for the upright "
            "picture, else remove the orientation from the image"
        )
    return size


def read_rgb(file: Path | io.BytesIO, name: str) -> np.ndarray:
    """Reads an image as upright RGB.

    Args:
      file: a path, or the encoded image itself.
      name: what to call the image in an error.

    Returns:
      [H, W, 3] uint8.

    Raises:
      UserError: if the file is missing, not an image, too large or truncated.
    """
    with _errors_naming(name), _open(file) as image:
        return np.asarray(_to_rgb(image))


def to_rgb(image: Image.Image, name: str = "given") -> np.ndarray:
    """Converts an image of any color mode to upright RGB.

    Args:
      image: the image; its file may be unread yet.
      name: what to call the image in an error.

    Returns:
      [H, W, 3] uint8.

    Raises:
      UserError: if the file is truncated, or a gray value is beyond 16 bits.
    """
    with _errors_naming(name):
        return np.asarray(_to_rgb(image))


def read_file(path: Path) -> EncodedImage:
    """Reads an image's file; it stays encoded.

    Raises:
      UserError: if the file cannot be read.
    """
    with _errors_naming(str(path)):
        return EncodedImage(path.read_bytes(), str(path))


def read_encoded(source: Source, index: int) -> EncodedImage | None:
    """Reads an image of a data set without decoding it.

    Args:
      source: the data set.
      index: of the image.

    Returns:
      What the source's own `read_encoded` returns; None if it has no such method.
    """
    read = getattr(source, "read_encoded", None)
    return None if read is None else read(index)


def find_readable(names: Sequence[str], read: Callable[[int], object]) -> list[int]:
    """Reads every image, and warns of those that are broken.

    Args:
      names: what to call each image in the warning.
      read: reads the image of an index; raises a `UserError` if it is broken.

    Returns:
      The indices of the others, in order.
    """
    readable, broken = [], []
    for index, name in enumerate(names):
        try:
            read(index)
        except UserError:
            broken.append(name)
        else:
            readable.append(index)
    if broken:
        _logger.warning(
            "left out %d broken images: %s", len(broken), abbreviate(broken)
        )
    return readable


def as_rgb(image: Picture) -> np.ndarray:
    """Returns the pixels of an image that is given in one of several ways.

    Args:
      image: a path, a PIL image of any mode, or [H, W, 3] uint8 RGB.

    Returns:
      [H, W, 3] uint8.

    Raises:
      UserError: if a file is missing, not an image or truncated.
      ValueError: if an array has another shape or type, or no pixels.
      TypeError: if it is something else.
    """
    if isinstance(image, str | Path):
        return read_rgb(Path(image), str(image))
    if isinstance(image, Image.Image):
        image = to_rgb(image)
    if not hasattr(image, "__array__"):  # NumPy's, JAX's and others' arrays have it
        raise TypeError(
            f"image is of type {type(image).__name__}, expected a path, a PIL image or "
            "an array"
        )
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(
            f"image is {pixels.dtype} {pixels.shape}, expected uint8 (height, width, 3)"
        )
    if not pixels.size:
        raise ValueError(f"image has the shape {pixels.shape}, expected some pixels")
    return pixels


@contextlib.contextmanager
def _errors_naming(name: str) -> Iterator[None]:
    try:
        yield
    # For a broken file PIL raises OSError, SyntaxError, ValueError, struct.error, ..
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"cannot read image {name}: {reason}") from error


def _open(file: Path | io.BytesIO) -> Image.Image:
    """Reads the header of a file.

    An image that Pillow would warn of as a decompression bomb is refused.
    """
    with _filter_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of damaged metadata.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(file, formats=_FORMATS)


def _to_rgb(image: Image.Image) -> Image.Image:
    transpose = _TRANSPOSES.get(_orientation(image))
    if image.mode == "F" or image.mode.startswith("I"):
        image = _to_8_bits(image)
    if "transparency" in image.info:  # Pillow warns where this is more than one color.
        image = image.convert("RGBA")
    if image.mode != "RGB":  # else it would be copied
        image = image.convert("RGB")
    image.load()
    return image if transpose is None else image.transpose(transpose)


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Scales gray values to 0..255.

    `I;16` has 16 bits. `I` and `F` do not say what is white: it is the first of the
    usual values that no pixel exceeds.
    """
    values = np.asarray(image, np.float32)
    whites = _WHITES.get(image.mode, _WHITE_16_BIT)
    white = next((white for white in whites if values.max() <= white), None)
    if white is None:  # NaN, too
        raise ValueError(
            f"a gray value of mode {image.mode} is {values.max()}, expected at most "
            f"{whites[-1]}"
        )
    levels = np.rint(values.clip(0, white) * (255 / white))
    return Image.fromarray(levels.astype(np.uint8))


def _upright_size(image: Image.Image) -> tuple[int, int]:
    height, width = image.height, image.width
    return (width, height) if _orientation(image) in _SIDEWAYS else (height, width)


def _orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation, 1 if there is none or it is unreadable."""
    if image.format == "TIFF":  # Pillow applies it.
        return 1
    try:
        with _filter_lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of damaged metadata.
            # Not a PngImageFile's own method, which reads the pixels, too: an
            # orientation that a PNG has behind them is ignored.
            return Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except Exception:  # as many types as for a broken file
        return 1
