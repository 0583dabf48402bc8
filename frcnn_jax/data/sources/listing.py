"""What a data set in files lists, in any format.

Boxes are `(y_min, x_min, y_max, x_max)` with the max edge exclusive, in pixels of the
upright image, or in fractions of its sides where a listing says so.
"""

from pathlib import Path
from typing import NamedTuple

ALL = "all"  # the split of all images, in formats that have one


class ListedObject(NamedTuple):
    """An object of an image, not checked against the image yet."""

    name: str  # of its class
    box: tuple[float, float, float, float]
    difficult: bool = False  # or a crowd


class ListedImage(NamedTuple):
    """An image and its objects."""

    image_id: str
    path: Path
    objects: list[ListedObject]
    annotation: str  # the file, and the place in it, for errors
    size: tuple[int, int] | None = None  # (height, width) if the annotation states it


class Listing(NamedTuple):
    """The images of a split."""

    class_names: tuple[str, ...]  # all that the data set knows, in its order
    images: list[ListedImage]
    in_fractions: bool = False  # whether boxes are fractions of the image's sides
    empty_side: float = 0.0  # pixels; a box with a side that is not longer is empty
