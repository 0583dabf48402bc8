"""One annotation file in PASCAL VOC format.

VOC counts pixels from 1 and includes the last one. Boxes leave here as everywhere:
`(y_min, x_min, y_max, x_max)` from 0, max edge exclusive; so the minima lose one and
the maxima stay.
"""

import math
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from frcnn_jax.errors import UserError


class Object(NamedTuple):
    """An `<object>` of an annotation file."""

    name: str
    box: tuple[float, float, float, float]  # (y_min, x_min, y_max, x_max), from 0.
    difficult: bool


def parse(path: Path) -> list[Object]:
    """Reads the objects of a file; there may be none.

    Raises:
      UserError: if the file is missing or malformed; names it, the field and its
        value.
    """
    try:
        tree = ElementTree.parse(path)
    except (OSError, ElementTree.ParseError) as error:
        raise UserError(f"cannot read annotation {path}: {error}") from error
    return [_parse_object(element, path) for element in tree.findall("object")]


def _parse_object(element: ElementTree.Element, path: Path) -> Object:
    name = element.findtext("name", "").strip()
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


def _number(element: ElementTree.Element, field: str, path: Path) -> float:
    text = element.findtext(field)
    try:
        value = math.nan if text is None else float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{path}: <{field}> is {text!r}; expected a number of pixels")
    return value
