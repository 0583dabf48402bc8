"""One annotation file in PASCAL VOC format.

VOC counts pixels from 1 and includes the last one. Boxes leave here as everywhere:
`(y_min, x_min, y_max, x_max)` from 0, max edge exclusive; so the minima lose one and
the maxima stay.
"""

import math
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element, ParseError

import defusedxml
from defusedxml import ElementTree

from frcnn_jax.errors import UserError

# A box whose file says x_max <= x_min is at most one pixel wide here.
EMPTY_SIDE = 1.0

# No picture is larger; float32 still holds it.
_MAX_PIXELS = 1e9


class Object(NamedTuple):
    """An `<object>` of an annotation file."""

    name: str
    box: tuple[float, float, float, float]  # (y_min, x_min, y_max, x_max), from 0.
    difficult: bool


class AnnotationFile(NamedTuple):
    """What an annotation file holds."""

    objects: list[Object]  # Perhaps none.
    image_size: tuple[int, int] | None  # (height, width), if the file tells.


def parse(path: Path) -> AnnotationFile:
    """Reads an annotation file.

    Raises:
      UserError: if the file is missing or malformed; names it, the field and its
        value.
    """
    try:
        tree = ElementTree.parse(path, forbid_dtd=True)
    except defusedxml.DTDForbidden:
        raise UserError(f"{path}: has a <!DOCTYPE>, expected none") from None
    # An unknown encoding is a LookupError, one that does not decode a ValueError.
    except (OSError, ParseError, LookupError, ValueError) as error:
        raise UserError(f"cannot read annotation {path}: {error}") from error
    objects = [_parse_object(element, path) for element in tree.findall("object")]
    return AnnotationFile(objects, _parse_size(tree.getroot()))


def _parse_size(root: Element) -> tuple[int, int] | None:
    height, width = (root.findtext(f"size/{side}", "") for side in ("height", "width"))
    try:
        return int(height), int(width)
    except ValueError:
        return None


def _parse_object(element: Element, path: Path) -> Object:
    name = " ".join(element.findtext("name", "").split())
    if not name:
        raise UserError(f"{path}: an <object> has no <name>")
    difficult = element.findtext("difficult", "0").strip()
    if difficult not in ("0", "1"):
        raise UserError(f"{path}: <difficult> is {difficult!r}; expected 0 or 1")
    x_min, y_min, x_max, y_max = (
        _number(element, f"bndbox/{edge}", path)
        for edge in ("xmin", "ymin", "xmax", "ymax")
    )
    return Object(name, (y_min - 1, x_min - 1, y_max, x_max), difficult == "1")


def _number(element: Element, field: str, path: Path) -> float:
    text = element.findtext(field)
    try:
        value = math.nan if text is None else float(text)
    except ValueError:
        value = math.nan
    if not abs(value) < _MAX_PIXELS:  # NaN, too
        raise UserError(f"{path}: <{field}> is {text!r}; expected a number of pixels")
    return value
